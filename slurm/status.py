"""How far a run is, from its log; where its job's output is, and following it. Torch-free, for the login node."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NOISE = re.compile(r"submitit INFO|^\[W\d|hostname of the client socket|^\s*$")
"""Lines of a log that tell a user nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a training run is."""

    step: int | None = None
    """Latest logged step."""
    steps: int | None = None
    """Step at which it is done; None when its settings do not tell."""
    images_per_s: float | None = None
    """Latest logged speed."""
    seconds_left: float | None = None
    """At that speed."""


def progress(
    rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], done: Mapping[str, Any] | None = None
) -> RunProgress:
    """Return how far a run is.

    Args:
        rows: Lines of its metrics.jsonl.
        config: Its settings: `epochs` (with `min_steps`) or `steps`, and `global_batch`.
        done: Its done.json; None while it is not complete.
    """
    if not rows:
        return RunProgress()
    step = int(rows[-1]["step"])
    with_epoch = [row for row in rows if row.get("epoch")]
    steps = config.get("steps")
    if not steps and with_epoch and config.get("epochs"):
        # Epochs are logged with few digits, and a short training may be given more steps than its epochs have.
        steps = max(step, round(config["epochs"] * with_epoch[-1]["step"] / with_epoch[-1]["epoch"]))
        steps = max(steps, int(config.get("min_steps") or 0))
    if done is not None:
        steps = step = int(done.get("steps") or step)
    speeds = [row["images_per_s"] for row in rows if row.get("images_per_s")]
    speed = speeds[-1] if speeds else None
    left = None
    if steps and speed and config.get("global_batch"):
        left = max(0, steps - step) * config["global_batch"] / speed
    return RunProgress(step=step, steps=steps, images_per_s=speed, seconds_left=left)


def log_files(folder: Path, job_id: str | None = None) -> list[Path]:
    """Return the logs of a submission folder, those of the newest job first, its nodes in order.

    Args:
        folder: Submission folder.
        job_id: Only this job's; None means the newest job that has any.
    """

    def numbers(path: Path) -> list[int]:
        return [int(word) for word in re.findall(r"\d+", path.name)]

    found = sorted(folder.glob("*_log.out"), key=lambda path: (-numbers(path)[0], numbers(path)[1:]))
    if job_id is None and found:
        job_id = str(numbers(found[0])[0])
    return [path for path in found if str(numbers(path)[0]) == job_id]


def last_line(path: Path) -> str:
    """Return the last line of a log that says something; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16384))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [re.split(r"\r", line)[-1].rstrip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if not NOISE.search(line)), "")


def follow(path: Path, over: Callable[[], bool], pause: float = 0.5, ask_every: float = 5.0) -> Iterator[str]:
    """Yield a log's text as it grows, from its beginning, until `over` says that nothing more will come.

    Args:
        path: The log; it need not exist yet.
        over: StopSignals now and then (it may ask SLURM).
        pause: Seconds between two looks at the file.
        ask_every: Seconds between two calls of `over`.
    """
    position, next_ask, last_look = 0, time.monotonic() + ask_every, False
    while True:
        try:
            with path.open("rb") as log:
                log.seek(position)
                chunk = log.read()
        except FileNotFoundError:
            chunk = b""
        position += len(chunk)
        if chunk:
            yield chunk.decode(errors="replace")
        elif last_look:
            return
        elif time.monotonic() >= next_ask:
            next_ask = time.monotonic() + ask_every
            last_look = over()
            continue
        time.sleep(pause)


def duration(seconds: float | None) -> str:
    """Return seconds as a reader likes them: 45 s, 12 min, 3.4 h, 2.1 d; a dash for None."""
    if seconds is None:
        return "-"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} d"
