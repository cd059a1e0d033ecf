"""`cost`: what everything took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results.cells.cell import Cell
from results.cells.display import AXIS_TITLES, pretraining_titles, show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, make_axes
from results.collect import COST_METRIC
from results.schema import Row
from results.tables.table import Table
from results.wording import count


def build(results: pa.Table, options: Options) -> Table:
    """GPU and wall-clock hours per kind of run: pretraining first, then fine-tuning by initialisation and labels.

    Filters choose fine-tunings, and with them the pretraining runs that these started from.
    """
    allow = (*options.allow, "splits", "policies", "levels")
    where = (*options.where, *((f"label={options.label}",) if options.label else ()))
    training = _one_per_run(choose(results, RowChoice(where=where, allow=allow)))
    pretraining = _one_per_run([row for row in results.to_pylist() if row["metric"] == COST_METRIC])
    others = 0
    if options.where:
        used = {row["init_signature"] for row in training}
        others = sum(row["signature"] not in used for row in pretraining)
        pretraining = [row for row in pretraining if row["signature"] in used]
    make_axes(training, options.rows)
    shown = tuple(options.rows) or tuple(axis for axis in ("train_dataset", "arch", "init", "mode", "label_fraction"))
    axes = tuple(axis for axis in shown if len({row[axis] for row in training}) > 1) or shown[:1]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in training:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    keys = sorted(groups, key=lambda key: [sort_key(a, v) for a, v in zip(axes, key, strict=True)])
    names = [tuple(show(a, v) for a, v in zip(axes, key, strict=True)) for key in keys]
    lines = [_hours(groups[key]) for key in keys]
    blank = ("",) * (len(axes) - 1)
    titles = pretraining_titles(row["method"] for row in pretraining)
    for title in reversed(dict.fromkeys(titles.values())):
        names.insert(0, (title, *blank))
        lines.insert(0, _hours([row for row in pretraining if titles[row["method"]] == title]))
    everything = [*pretraining, *training]
    names.append(("Total", *blank))
    lines.append(_hours(everything))
    notes = ["GPU-hours: GPUs of a run times its hours; \u2013 where a run did not record them or had no GPU."]
    if others:
        notes.append(f"{count(others, 'pretraining run')} that no chosen run started from left out.")
    elif not pretraining:
        notes.append("No pretraining run was among the results; its cost is not in the total.")
    return Table(
        caption="Compute used." + (" Fine-tuning by " + ", ".join(AXIS_TITLES.get(a, a).lower() for a in axes) + "."),
        notes=tuple(notes),
        row_titles=tuple(AXIS_TITLES.get(axis, axis) for axis in axes),
        row_names=tuple(names),
        column_names=("Runs", "GPU-hours per run", "GPU-hours", "Hours"),
        cells=tuple(lines),
        digits=options.digits,
    )


def _one_per_run(rows: Sequence[Row]) -> list[Row]:
    return list({(row["signature"] or row["run"]): row for row in rows if row["job"] != "evaluate"}.values())


def _hours(rows: Sequence[Row]) -> tuple[Cell | None, ...]:
    gpu = [row["gpu_seconds"] / 3600 for row in rows if row["gpu_seconds"]]
    wall = [row["wall_seconds"] / 3600 for row in rows if row["wall_seconds"]]
    complete = len(gpu) == len(rows)
    return (
        Cell(value=float(len(rows)), n=len(rows), text=str(len(rows))),
        Cell(value=sum(gpu) / len(gpu), n=len(gpu)) if gpu else None,
        Cell(value=sum(gpu), n=len(gpu), text=None if complete else f"{sum(gpu):.3f} (of {count(len(gpu), 'run')})")
        if gpu
        else None,
        Cell(value=sum(wall), n=len(wall), text=None if len(wall) == len(rows) else f"{sum(wall):.3f} (of {len(wall)})")
        if wall
        else None,
    )
