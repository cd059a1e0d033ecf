"""What the small files of run folders say: kind, data, settings, how far, how good, how long ago.

Read for every run of a folder at once, so only what is needed: of config.toml the lines that are shown, of
metrics.jsonl the end. Neither Parquet nor torch.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from results import used_datasets
from results.configs import flat
from results.errors import InputError
from results.run import RUN_FOLDERS, Run
from slurm.status import progress

_SETTINGS = re.compile(
    r"^(?:shards|init|arch|mode|method|level|label_fraction|seed|epochs|steps|min_steps|global_batch) = "
    r"(?:\[\n(?:    .*\n)*\]|.*)$",
    re.MULTILINE,
)
"""Settings above the first table of config.toml; an array has each of its values on an indented line of its own."""

_TAIL_BYTES = 16384
"""End of metrics.jsonl that is read: more than a hundred lines."""

SETTING = "config"
"""Key of a run's facts: a function that gives its whole configuration, dotted names."""


def below(top: Path, silent_after: float) -> Iterator[dict[str, Any]]:
    """The facts of every run below a folder, in the order of their names.

    Args:
        top: the folder; a run itself counts.
        silent_after: seconds without a sign of life after which a run that is not done is called silent.
    """
    now = time.time()
    for folder, names in _runs(str(top)):
        run = Run(folder)
        try:
            yield _facts(run, names, now, silent_after) | {"run": os.path.relpath(folder, top)}
        except InputError as error:
            yield {"run": os.path.relpath(folder, top), "state": "damaged", "note": str(error), SETTING: dict}


def _runs(top: str) -> Iterator[tuple[str, set[str]]]:
    """Folders with a run.json, and the names in them."""
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if "run.json" in names:
        yield top, names
        entries = [entry for entry in entries if entry.name not in RUN_FOLDERS]  # a sweep holds runs of its own
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _runs(entry.path)


def _facts(run: Run, names: set[str], now: float, silent_after: float) -> dict[str, Any]:
    info, done = run.read_info(), run.read_done() if "done.json" in names else None
    settings = _settings(run) if "config.toml" in names else {}
    log_tells = "metrics.jsonl" in names and (done is None or "steps" not in done)
    rows, written = _log_end(run) if log_tells else ([], None)
    facts = {
        "kind": info.get("job"),
        "dataset": _dataset(info, done or {}, settings),
        "arch": settings.get("arch"),
        "init": (info.get("init") or {}).get("name") or _brief(settings.get("init")),
        "mode": settings.get("mode") or settings.get("method"),
        "label_fraction": settings.get("label_fraction"),
        "seed": settings.get("seed"),
        "level": settings.get("level"),
    }
    if done is not None:
        seen, step = _moment(done.get("finished_at")), done.get("steps", progress(rows, settings).step)
        facts |= {"state": "done", "step": step, "steps": step}
        facts |= {"val_auroc": done.get("val_auroc"), "test_auroc": done.get("test_auroc")}
        facts |= {"gpu_hours": _hours(done.get("gpu_seconds")), "hours": _hours(done.get("wall_seconds"))}
    else:
        seen, reached = written or _moment(info.get("created_at")), progress(rows, settings)
        state = _unfinished(run, written, seen is not None and now - seen > silent_after)
        facts |= {"state": state, "step": reached.step, "steps": reached.steps}
        looks = [row["val_auroc"] for row in rows if row.get("val_auroc") is not None]
        facts |= {"val_auroc": looks[-1] if looks else None, "test_auroc": None, "gpu_hours": None, "hours": None}
    age = None if seen is None else max(0.0, now - seen)
    return facts | {"age_seconds": None if age is None else round(age, 1), SETTING: _whole(run)}


def _unfinished(run: Run, written: float | None, is_long_ago: bool) -> str:
    """running, silent, waiting (nothing logged yet) or failed (a sweep noted it, and it logged nothing since)."""
    entry = run.path.parent.parent / "failures" / f"{run.path.name}.json"
    if run.path.parent.name == "cells" and entry.is_file() and entry.stat().st_mtime >= (written or 0.0):
        return "failed"
    if written is None:
        return "silent" if is_long_ago and not run.submission.is_dir() else "waiting"
    return "silent" if is_long_ago else "running"


def _settings(run: Run) -> dict[str, Any]:
    """The settings that are shown, from the top of config.toml: reading all of it takes ten times as long."""
    try:
        text = run.config.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {run.config}: {error}") from error
    head = text.partition("\n[")[0]
    try:
        return {key: value for line in _SETTINGS.findall(head) for key, value in _line(line)}
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{run.config} is damaged: {error}") from error


@functools.lru_cache(maxsize=4096)
def _line(text: str) -> tuple[tuple[str, Any], ...]:
    """A setting and its value; the runs of a study share most of their lines."""
    return tuple(tomllib.loads(text).items())


def _whole(run: Run) -> Callable[[], Mapping[str, Any]]:
    """A function that reads all of a run's configuration, for filters on keys that are not shown."""

    def read() -> Mapping[str, Any]:
        try:
            return flat(run.read_config())
        except InputError:
            return {}

    return read


def _log_end(run: Run) -> tuple[list[dict[str, Any]], float | None]:
    """The last lines of metrics.jsonl, oldest first, and when it was written last."""
    try:
        with run.metrics_log.open("rb") as log:
            found = os.fstat(log.fileno())
            log.seek(max(0, found.st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return [], None
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows, found.st_mtime


def _dataset(info: Mapping[str, Any], done: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """Name of the shard set that a run learns from: as noted, else the last part of its place."""
    place = settings.get("shards")
    if done.get("dataset"):
        return str(done["dataset"])
    if isinstance(place, list):
        return "+".join(name for name in map(_brief, place) if name)
    content = (info.get("shards") or {}).get(place)
    name = used_datasets.of_info(info).get(str(content), {}).get("name")
    return name or _brief(place)


def _brief(place: Any) -> str | None:
    return None if place is None else str(place).rstrip("/").rpartition("/")[2]


def _moment(text: Any) -> float | None:
    """Seconds since 1970 of a time as run.json and done.json write it."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _hours(seconds: Any) -> float | None:
    return round(seconds / 3600, 4) if isinstance(seconds, (int, float)) else None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    text: Callable[[Any], str]


def _plain(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(digits: int) -> Callable[[Any], str]:
    return lambda value: "-" if value is None else f"{value:.{digits}f}"


def _share(value: Any) -> str:
    return "-" if value is None else f"{100 * value:g} %"


def _age(value: Any) -> str:
    from slurm.status import duration

    return duration(value)


COLUMNS: dict[str, Column] = {
    "run": Column("run", _plain),
    "kind": Column("kind", _plain),
    "dataset": Column("dataset", _plain),
    "arch": Column("arch", _plain),
    "init": Column("init", _plain),
    "mode": Column("mode", _plain),
    "label_fraction": Column("labels", _share),
    "seed": Column("seed", _plain),
    "level": Column("scored by", _plain),
    "state": Column("state", _plain),
    "step": Column("step", _plain),
    "steps": Column("of", _plain),
    "val_auroc": Column("val", _number(3)),
    "test_auroc": Column("test", _number(3)),
    "age_seconds": Column("age", _age),
    "gpu_hours": Column("GPU h", _number(2)),
    "hours": Column("hours", _number(2)),
}
"""What is known of a run, by the names that --sort, --where and --json use."""
