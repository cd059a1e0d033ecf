"""Proof that a change of the code changes no bit of what it makes.

    python -m tests.golden --write before.json      on the commit before
    python -m tests.golden --compare before.json    on the commit after, on the same machine
    python -m tests.golden --update                 what the suite compares with: only where a change was meant

Exit code 1: something differs, and it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE.json", help="write the hash of everything to a new file")
    what.add_argument("--compare", type=Path, metavar="FILE.json", help="compare with such a file")
    what.add_argument("--update", action="store_true", help="replace the files of tests/golden/expected")
    asked = parser.parse_args(argv)
    if asked.write and asked.write.exists():
        parser.error(f"{asked.write} exists already: give another name, or remove it")
    if asked.compare and not asked.compare.is_file():
        parser.error(f"{asked.compare}: no such file; --write makes one")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: other threads sum in another order
    if asked.update:
        return update()
    found = everything()
    if asked.write:
        asked.write.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(f"{asked.write}: {len(found['sha256'])} hashes")
        return 0
    return report(json.loads(asked.compare.read_bytes()), found)


def everything() -> dict[str, Any]:
    """The hash of everything golden, and what besides the code decides the bits."""
    import torch

    from tests.golden.contents import LIBRARIES, digests, versions
    from tests.golden.products import Products

    machine = versions([*LIBRARIES, "torch", "timm", "scipy", "scikit-learn", "submitit"])
    machine |= {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": os.environ["OMP_NUM_THREADS"]}
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        return {"machine": machine, "sha256": digests(Products(Path(folder)))}


def report(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print what differs; 1 if anything does."""
    for name, value in after["machine"].items():
        if before["machine"].get(name) != value:
            print(f"note: {name} was {before['machine'].get(name)}, is {value}: bits may differ for that reason alone")
    old, new = before["sha256"], after["sha256"]
    for name in sorted(set(old) | set(new)):
        if old.get(name) != new.get(name):
            print(f"{name}: {'gone' if name not in new else 'new' if name not in old else 'differs'}")
    equal = sum(old.get(name) == digest for name, digest in new.items())
    print(f"{equal} of {len(set(old) | set(new))} equal")
    return int(old != new)


def update() -> int:
    """Write anew what the suite compares with."""
    from tests.golden import contents
    from tests.golden.products import Products

    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        products = Products(Path(folder))
        kept = contents.texts(products)
        kept["sets/bytes.json"] = contents.readable(contents.all_bytes(products)) + "\n"
        kept["arithmetic.json"] = contents.readable(contents.short(contents.arithmetic(products))) + "\n"
    for path in contents.EXPECTED.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, text in kept.items():
        path = contents.EXPECTED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{contents.EXPECTED}: {len(kept)} files; git diff shows what changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
