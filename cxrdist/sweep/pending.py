"""Which cells of a sweep are still to be tried, and which of them share a worker. Free of ray."""

from __future__ import annotations

import math
from typing import Any

from cxrdist.sweep.folder import SweepFolder
from results.run import Run


def tasks(cells: list[dict[str, Any]], lanes: int) -> list[list[dict[str, Any]]]:
    """Cells as tasks of one worker each: alone, except that linear probes on the same features stay together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        config = cell["config"]
        key = cell["signature"]
        if config.get("mode") == "linear":
            parts = ("init", "arch", "stem", "image_size", "shards", "precision", "kmeans")
            key = "|".join(str(config.get(part)) for part in parts)
        groups.setdefault(key, []).append(cell)
    out = []
    for group in groups.values():
        pieces = math.ceil(lanes / len(groups)) if len(groups) < lanes else 1
        size = math.ceil(len(group) / pieces)
        out += [group[start : start + size] for start in range(0, len(group), size)]
    return out


def unfinished(plan: dict[str, Any], ledger: SweepFolder) -> list[dict[str, Any]]:
    """Cells that are not done and may be tried (again), largest first, so that no lane idles at the end."""
    out = []
    for cell in plan["cells"]:
        attempts = ledger.attempts(cell["signature"])
        final = len(attempts) > plan["retries"] or any(attempt["kind"] == "input" for attempt in attempts)
        if not final and not Run(ledger.cell_folder(cell["signature"])).is_done:
            out.append(cell)
    return sorted(out, key=lambda cell: -cell["work"])
