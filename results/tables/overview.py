"""Tables about the runs themselves: the trials of a search, and what everything cost."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import configs, dataset_names, levels
from results.cells import comparable
from results.cells.captions import caption_of, macro_notes
from results.cells.cell import Cell, cuts_of, gather
from results.cells.comparable import LABELS
from results.cells.display import AXIS_TITLES, LOWER_IS_BETTER, METRIC_TITLES, count, pretraining_titles, show, sort_key
from results.cells.options import Options
from results.cells.select import Choice, Row, choose, layout, make_axes
from results.collect import COST_METRIC, predictions_beside
from results.errors import InputError
from results.schema import MACRO, read_predictions
from results.stats.metrics import METRICS, compute
from results.stats.predictions import Panel, panels
from results.tables.render import Table


def search(results: pa.Table, options: Options) -> Table:
    """The trials of a search on each test set, best on validation first, with the settings in which they differ."""
    metric = options.metric or "auroc"
    choice = Choice.of(options, (metric,), (MACRO,))
    rows = choose(results, choice)
    axes = [axis for axis in layout(rows, (), (), chosen=False)[0] if axis not in ("metric", "label")]
    rows = comparable.comparable(rows, results, (), choice.among)
    settings = [key for key in configs.differing(rows) if key not in {*axes, *_SAID_BY_AXES}]
    for key in settings:
        configs.set_axis(rows, key)
    ordered = _ranked(gather(rows, (*axes, *settings), (), options.allow), axes, metric)
    shown = [trial for trials in ordered for trial in trials[: options.limit]]
    total = sum(map(len, ordered))
    notes = [_order_note(shown, len(ordered) > 1)]
    if len(shown) < total:
        each = " on each test set" if len(ordered) > 1 else ""
        notes.append(f"The first {min(options.limit, max(map(len, ordered)))}{each} of {count(total, 'trial')}.")
    notes += macro_notes(rows)
    title = METRIC_TITLES.get(metric, metric)
    places = [str(place) for trials in ordered for place, _ in enumerate(trials[: options.limit], 1)]
    return Table(
        name="search",
        caption=caption_of("{metric} of the trials of a search", rows, axes, [trial.cell for trial in shown]),
        notes=tuple(notes),
        row_titles=("Rank", *(AXIS_TITLES[axis] for axis in axes), *settings),
        row_names=tuple(
            (
                place if trial.on_validation is not None or not any_validated(shown) else "\u2013",
                *(show(axis, value) for axis, value in zip((*axes, *settings), trial.key, strict=True)),
            )
            for place, trial in zip(places, shown, strict=True)
        ),
        column_names=(f"Validation {title}", f"Test {title}"),
        cells=tuple(
            (
                None if trial.on_validation is None else Cell(value=trial.on_validation, n=trial.cell.n),
                trial.cell,
            )
            for trial in shown
        ),
        digits=options.digits,
    )


_SAID_BY_AXES = {"shards", "init", "variant"}
"""Configuration keys that columns of the results say better: the training set, the initialisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trial:
    """One setting of a search."""

    key: tuple[Any, ...]
    """Values of the axes, then of the settings."""
    cell: Cell
    on_validation: float | None
    """Mean over its runs; None when undefined, or when the predictions are gone."""


def _ranked(
    cells: dict[tuple[tuple[Any, ...], tuple[Any, ...]], Cell], axes: Sequence[str], metric: str
) -> list[list[_Trial]]:
    """The trials of each test set, best first: by validation where any has a value there; the undefined come last."""
    blocks: dict[str, list[_Trial]] = {}
    for (key, _), cell in cells.items():
        known = [validation_value(row, metric) for row in cell.rows]
        values = [value for value in known if value is not None]
        mean = sum(values) / len(values) if values and len(values) == len(known) else None
        block = f"{cell.rows[0]['test_dataset']} {levels.of(cell.rows[0])}"
        blocks.setdefault(block, []).append(_Trial(key=key, cell=cell, on_validation=mean))
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    for trials in blocks.values():
        validated = any_validated(trials)

        def order(trial: _Trial, validated: bool = validated) -> tuple[Any, ...]:
            value = trial.on_validation if validated else trial.cell.value
            names = [sort_key(axis, part) for axis, part in zip(axes, trial.key, strict=False)]
            return (value is None, -sign * (value or 0.0), names, [str(part) for part in trial.key])

        trials.sort(key=order)
    return [blocks[name] for name in sorted(blocks)]


def any_validated(trials: Sequence[_Trial]) -> bool:
    """Whether trials can be ordered by validation."""
    return any(trial.on_validation is not None for trial in trials)


def _order_note(shown: Sequence[_Trial], several: bool) -> str:
    where = ", within each test set" if several else ""
    if not any_validated(shown):
        return (
            f"Caution: ordered by test{where}, because no trial has a value on validation; the first value is too good."
        )
    missing = sum(trial.on_validation is None for trial in shown)
    last = (
        f" {count(missing, 'trial')} without a value there (undefined, or its predictions are gone) stand last."
        if missing
        else ""
    )
    return f"Ordered by validation{where}.{last}"


def validation_value(row: Row, metric: str) -> float | None:
    """A run's metric on validation, at the row's level: one label's, or the mean over labels where it is defined."""
    sets = tuple((str(row[name]), row[f"{name}_hash"]) for name in ("train_dataset", "test_dataset"))
    panel = _validation_panel(str(row["source"]), sets, levels.of(row))
    if panel is None or metric not in METRICS:
        return None
    cuts = cuts_of(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
    values = [
        compute(*panel.column(label)[:2], cuts.get(label))[metric]
        for label in ([row["label"]] if row["label"] != MACRO else row.get(LABELS, panel.labels))
        if label in panel.labels
    ]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@functools.lru_cache(maxsize=256)
def _validation_panel(source: str, sets: tuple[tuple[str, str | None], ...], level: str) -> Panel | None:
    path = predictions_beside(source)
    if path is None:
        return None
    try:
        held = panels(read_predictions(path), "val", level)
    except InputError:
        return None
    names = [dataset_names.in_run(name, content, (known for known, _ in held)) for name, content in sets]
    return next((held[name, "val"] for name in names if name is not None), None)


def cost(results: pa.Table, options: Options) -> Table:
    """GPU and wall-clock hours per kind of run: pretraining first, then fine-tuning by initialisation and labels.

    Filters choose fine-tunings, and with them the pretraining runs that these started from.
    """
    allow = (*options.allow, "splits", "policies", "levels")
    where = (*options.where, *((f"label={options.label}",) if options.label else ()))
    training = _one_per_run(choose(results, Choice(where=where, allow=allow)))
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
        name="cost",
        caption="What the runs took."
        + (" Fine-tuning by " + ", ".join(AXIS_TITLES.get(a, a).lower() for a in axes) + "."),
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
