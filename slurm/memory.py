"""Whether the kernel has killed processes of this job step because memory ran out, from its control group (Linux)."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def kills(root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processes of this control group were killed because memory ran out; 0 where nothing says so.

    Args:
        root: Where control groups are mounted.
        own: The list of those that this process is in: "4:memory:/slurm/..." (version 1), "0::/..." (version 2).
    """
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _count(root / "memory" / path.lstrip("/") / "memory.oom_control")
            if not controllers and (events := root / path.lstrip("/") / "memory.events").is_file():
                return _count(events)
    return 0


def _count(path: Path) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0
