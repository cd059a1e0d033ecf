"""`cxrdist specs`: the named experiments that come with cxrdist, for `--config NAME` in any folder."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from jobs._options import UsageError, specs

HELP = "List the named experiments that come with cxrdist (--config NAME takes them anywhere), or print one to copy."
POSITIONALS: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Which."""

    show: str | None = None
    """Name of one to print whole, ready to be copied and changed; None = list all with their first lines."""


def run(config: Config) -> None:
    """List them, or print one."""
    found = specs()
    if config.show is not None:
        if config.show not in found:
            raise UsageError(f"specs: no shipped spec {config.show!r}; there are {', '.join(found)}")
        print(found[config.show].read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, found))
    for name, path in found.items():
        print(f"{name:<{width}}  {_about(path)}")
    print("\nrun one: cxrdist sweep --config NAME --out DIR ...; print one: cxrdist specs --show NAME")


def _about(path: Path) -> str:
    """The first sentence of a spec's header."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or not line.lstrip("# "):
            break
        lines.append(line.lstrip("# ").strip())
    return re.split(r"(?<! al)[.?] ", " ".join(lines))[0].rstrip(".")
