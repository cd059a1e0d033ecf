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


def draw(results: pa.Table, options: Options) -> Drawing:
    """Every number that runs logged over steps, one panel each; one colour per initialisation, one line per run."""
    runs = _runs(results, options)
    logs = [(name, log) for name, folder in runs.items() for log in [_columns(Run(folder[1]))] if log]
    names = {folder: name for folder, (name, _) in runs.items()}
    if not logs:
        raise InputError("none of the chosen runs has a readable metrics.jsonl")
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


def _columns(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Logged numbers by name: (step, value) pairs."""
    out: dict[str, list[tuple[int, float]]] = {}
    for row in run.read_log():
        for key, value in row.items():
            if key not in SKIPPED and isinstance(value, (int, float)) and not isinstance(value, bool):
                out.setdefault(key, []).append((row["step"], value))
    return out
