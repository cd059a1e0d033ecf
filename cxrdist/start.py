"""Where the `cxrdist` command begins: it makes sure that the packages are ours before it uses them.

jobs, results, shards and slurm are names that other packages and files have too. One that stands earlier on Python's
path would be imported in place of ours, and fail somewhere in the middle. This module imports none of them before it
has looked, and the name of its own package is no other's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("jobs", "results", "shards", "slurm")
"""Top-level packages that come with this one, in the same folder."""

HOME = Path(__file__).resolve().parents[1]
"""The folder of all five."""


def shadows() -> list[str]:
    """What Python would import in place of our packages, a line each; empty where all are ours."""
    found = []
    for name in PACKAGES:
        place = _place(name)
        if place is None:
            found.append(f"the package {name} of cxrdist is missing in {HOME}; install cxrdist again")
        elif place != HOME / name:
            found.append(
                f"{place} shadows the package {name} of cxrdist ({HOME / name}); remove or rename it, start elsewhere,"
                " or install cxrdist in an environment of its own"
            )
    return found


def shared() -> list[str]:
    """Other installed distributions whose files lie in our packages' folders, a line each."""
    owners = metadata.packages_distributions()
    lines = []
    for name in PACKAGES:
        others = sorted({owner for owner in owners.get(name, []) if owner != "cxrdist"})
        if others:
            lines.append(
                f"{', '.join(others)} installs a package {name} too; install cxrdist in an environment of its own"
            )
    return lines


def _place(name: str) -> Path | None:
    """The folder or file that `import NAME` would take."""
    module = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def main() -> int:
    """Run `cxrdist`; 2 where another package stands in for one of ours."""
    if lines := shadows():
        print(f"cxrdist: {lines[0]}", file=sys.stderr)
        return 2
    # By name: nothing in this package depends on jobs.
    return int(importlib.import_module("jobs.cli").main())
