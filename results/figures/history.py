"""The figure of training: what runs logged, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from results.cells.display import pretraining_titles, show
from results.cells.options import Options
from results.cells.select import RowChoice, choose
from results.errors import InputError
from results.figures.style import COLOURS, Drawing, canvas, legend_below, line_style
from results.run import Run
from results.wording import count

SKIPPED = {"step", "time", "epoch"}
MAX_RUNS = 60
_Log = dict[str, list[tuple[int, float]]]


def draw(results: pa.Table, options: Options) -> Drawing:
    """Every number that runs logged over steps, one panel each; one colour per initialisation, one line per run.

    Losses of different kinds (of fine-tuning, of each method of pretraining) have panels of their own.
    """
    runs = _runs(results, options)
    names = {folder: name for folder, (name, _) in runs.items()}
    logs = [(folder, log) for folder, (_, path) in runs.items() for log in [_columns(Run(path))] if log]
    if not logs:
        raise InputError("none of the chosen runs has a readable metrics.jsonl")
    logs = _losses_apart(logs, names)
    keys = sorted({key for _, log in logs for key in log}, key=lambda key: ("loss" not in key, key))[:12]
    groups = sorted(set(names.values()), key=lambda name: (name == "Pretraining", name != "Scratch", name))
    logs.sort(key=lambda item: groups.index(names[item[0]]))
    figure, axes = canvas(len(keys), width=3.1, height=2.3)
    for axis, key in zip(axes, keys, strict=True):
        curved = any(len(log.get(key, ())) > 1 for _, log in logs)
        for folder, log in logs:
            if key in log and (len(log[key]) > 1 or not curved):  # a linear probe logs one value, which is no course
                place = groups.index(names[folder])
                steps, values = zip(*log[key], strict=True)
                style = line_style(place, mark="." if len(steps) == 1 else "")
                axis.plot(steps, values, label=names[folder], alpha=0.8, linewidth=1.0, **style)
        axis.set(xlabel="Step", title=key)
    legend_below(figure, axes)
    left = f" The first {MAX_RUNS} of more runs." if len(runs) == MAX_RUNS else ""
    caption = f"Training curves of {count(len(logs), 'run')}, one line per run with several values.{left}"
    return Drawing(figure=figure, caption=caption)


def _runs(results: pa.Table, options: Options) -> dict[str, tuple[str, Path]]:
    """Run folder -> (group's name, folder), pretraining runs too unless the user filtered."""
    chosen: list[dict[str, Any]] = choose(
        results, RowChoice(where=options.where, allow=("splits", "policies", "levels", *options.allow))
    )
    if not options.where:
        chosen += [row for row in results.to_pylist() if row["job"] == "pretrain"]
    found: dict[str, tuple[str, Path]] = {}
    titles = pretraining_titles(row["method"] for row in chosen if row["job"] == "pretrain")
    for row in chosen:
        source = Path(str(row["source"]))
        folder = source.parent if source.name == "run.json" else source.parent.parent
        if folder.joinpath("metrics.jsonl").is_file():
            name = titles[row["method"]] if row["job"] == "pretrain" else show("init", row["init"])
            found.setdefault(str(folder), (name, folder))
    if len({name for name, _ in found.values()}) > len(COLOURS):
        raise InputError("too many initialisations to distinguish; choose with --where")
    return dict(list(found.items())[:MAX_RUNS])


def _losses_apart(logs: list[tuple[str, _Log]], names: dict[str, str]) -> list[tuple[str, _Log]]:
    """Logs whose losses are named by their kind where the runs have several, as they share neither unit nor range.

    Args:
        logs: run folder and its numbers by name.
        names: of each run's group; those of pretraining begin with the word.
    """

    def kind(folder: str) -> str:
        return names[folder] if names[folder].startswith("Pretraining") else "Fine-tuning"

    kinds: dict[str, set[str]] = {}
    for folder, log in logs:
        for key in log:
            kinds.setdefault(key, set()).add(kind(folder))

    def title(key: str, folder: str) -> str:
        return f"{key} ({kind(folder)})" if "loss" in key and len(kinds[key]) > 1 else key

    return [(folder, {title(key, folder): values for key, values in log.items()}) for folder, log in logs]


def _columns(run: Run) -> _Log:
    """Logged numbers by name: (step, value) pairs."""
    out: _Log = {}
    for row in run.read_log():
        for key, value in row.items():
            if key not in SKIPPED and isinstance(value, (int, float)) and not isinstance(value, bool):
                out.setdefault(key, []).append((row["step"], value))
    return out
