"""How GPUs are written: in what SLURM lists of a node ("gpu:a100:4(S:0-1)") and in what a job asks for."""

from __future__ import annotations

import re


def counts(gres: str) -> dict[str, int]:
    """Return the number of GPUs by type; those of no named type count under "".

    Args:
        gres: SLURM's list of generic resources: "gpu:4", "gpu:a100:4(S:0-1),gpu:v100:2,nvme:1", "(null)".
    """
    found: dict[str, int] = {}
    for part in _parts(gres):
        if _is_gpu(part):
            words = re.split("[:=]", part)[1:]
            number = int(words.pop()) if words and words[-1].isdigit() else 1
            kind = words[0] if words else ""
            found[kind] = found.get(kind, 0) + number
    return found


def without(gres: str) -> str:
    """Return a list of generic resources without its GPUs."""
    return ",".join(part for part in _parts(gres) if not _is_gpu(part))


def shown(found: dict[str, int]) -> str:
    """Return counts as SLURM writes them: "a100:2,v100:1"."""
    return ",".join(f"{kind}:{number}" if kind else str(number) for kind, number in found.items()) or "none"


def _parts(gres: str) -> list[str]:
    return [part.strip() for part in re.sub(r"\([^)]*\)", "", gres).split(",") if part.strip()]


def _is_gpu(part: str) -> bool:
    return re.split("[:=]", part)[0].removeprefix("gres/") == "gpu"
