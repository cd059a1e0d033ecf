"""Tables about the runs themselves: the trials of a search, and what everything cost."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import dataset_names
from results.captions import caption_of
from results.cells import Cell, config_of, cuts_of, gather
from results.collect import COST_METRIC, predictions_beside
from results.common import LABELS
from results.errors import InputError
from results.metrics import METRICS, compute
from results.names import AXIS_TITLES, LOWER_IS_BETTER, METRIC_TITLES, count, show, sort_key
from results.options import Options
from results.panel import Panel, panels
from results.render import Table
from results.schema import MACRO, read_predictions
from results.select import Choice, Row, choose, layout

HIDDEN_SETTINGS = {"out", "seed", "init_signature"}
"""Settings that do not tell the trials of a search apart."""


def search(results: pa.Table, options: Options) -> Table:
    """The trials of a search, best on validation first, with the settings in which they differ."""
    metric, label = options.metric or "auroc", options.label or MACRO
    rows = choose(results, Choice(metrics=(metric,), labels=(label,), where=options.where, allow=options.allow))
    axes = [axis for axis in layout(rows, (), (), chosen=False)[0] if axis not in ("metric", "label")]
    configs = {row["signature"]: config_of(row) for row in rows}
    settings = _varying_settings(list(configs.values()), axes)
    for row in rows:
        config = configs[row["signature"]]
        row["settings"] = tuple(str(config.get(name, "default")) for name in settings)
    cells = gather(rows, (*axes, "settings"), (), "seeds" in options.allow)
    trials = []
    for (key, _), cell in cells.items():
        known = [validation_value(row, metric) for row in cell.rows]
        values = [value for value in known if value is not None]
        chosen = sum(values) / len(values) if values and len(values) == len(known) else None
        trials.append((key, cell, chosen))
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    by_validation = all(chosen is not None for _, _, chosen in trials)
    trials.sort(key=lambda trial: -sign * ((trial[2] if by_validation else trial[1].value) or 0.0))
    shown = trials[: options.limit]
    notes = ["Ordered by validation." if by_validation else _ORDERED_BY_TEST]
    if len(shown) < len(trials):
        notes.append(f"The first {len(shown)} of {count(len(trials), 'trial')}.")
    title = METRIC_TITLES.get(metric, metric)
    return Table(
        name="search",
        caption=caption_of("{metric} of the trials of a search", rows, axes, [cell for _, cell, _ in shown]),
        notes=tuple(notes),
        row_titles=("Rank", *(AXIS_TITLES[axis] for axis in axes), *settings),
        row_names=tuple(
            (str(rank), *(show(axis, value) for axis, value in zip(axes, key[:-1], strict=True)), *key[-1])
            for rank, (key, _, _) in enumerate(shown, 1)
        ),
        column_names=(f"Validation {title}", f"Test {title}"),
        cells=tuple((Cell(value=chosen, n=cell.n) if chosen is not None else None, cell) for _, cell, chosen in shown),
        digits=options.digits,
    )


_ORDERED_BY_TEST = (
    "Caution: ordered by test, because the predictions on validation were not found; the first value is too good."
)


def _varying_settings(configs: Sequence[dict[str, Any]], axes: Sequence[str]) -> list[str]:
    """Dotted configuration names that take several values and are not an axis already."""
    names = sorted({name for config in configs for name in config})
    skipped = HIDDEN_SETTINGS | set(axes) | ({"shards"} if {"train_dataset", "test_dataset"} & set(axes) else set())
    return [name for name in names if name not in skipped and len({str(config.get(name)) for config in configs}) > 1]


def validation_value(row: Row, metric: str) -> float | None:
    """A run's metric on its validation images: one label's, or the mean over labels where it is defined."""
    sets = tuple((str(row[name]), row[f"{name}_hash"]) for name in ("train_dataset", "test_dataset"))
    panel = _validation_panel(str(row["source"]), sets)
    if panel is None or metric not in METRICS:
        return None
    cuts = cuts_of(str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"])
    values = [
        compute(*panel.column(label)[:2], cuts.get(label))[metric]
        for label in ([row["label"]] if row["label"] != MACRO else row.get(LABELS, panel.labels))
        if label in panel.labels
    ]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@functools.lru_cache(maxsize=256)
def _validation_panel(source: str, sets: tuple[tuple[str, str | None], ...]) -> Panel | None:
    path = predictions_beside(source)
    if path is None:
        return None
    try:
        held = panels(read_predictions(path), "val")
    except InputError:
        return None
    names = [dataset_names.in_run(name, content, (known for known, _ in held)) for name, content in sets]
    return next((held[name, "val"] for name in names if name is not None), None)


def cost(results: pa.Table, options: Options) -> Table:
    """GPU and wall-clock hours per kind of run: pretraining first, then fine-tuning by initialisation and labels."""
    allow = (*options.allow, "splits", "policies")
    training = _one_per_run(choose(results, Choice(where=options.where, allow=allow)))
    pretraining = [row for row in results.to_pylist() if row["metric"] == COST_METRIC]
    shown = tuple(options.rows) or tuple(axis for axis in ("train_dataset", "arch", "init", "mode", "label_fraction"))
    axes = tuple(axis for axis in shown if len({row[axis] for row in training}) > 1) or shown[:1]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in training:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    keys = sorted(groups, key=lambda key: [sort_key(a, v) for a, v in zip(axes, key, strict=True)])
    names = [tuple(show(a, v) for a, v in zip(axes, key, strict=True)) for key in keys]
    lines = [_hours(groups[key]) for key in keys]
    if pretraining:
        blank = ("",) * (len(axes) - 1)
        names.insert(0, ("Pretraining", *blank))
        lines.insert(0, _hours(_one_per_run(pretraining)))
    everything = [*_one_per_run(pretraining), *training]
    names.append(("Total", *("",) * (len(axes) - 1)))
    lines.append(_hours(everything))
    notes = ["GPU-hours: GPUs of a run times its hours; \u2013 where a run did not record them or had no GPU."]
    if not pretraining:
        notes.append("No pretraining run was among the results; its cost is not in the total.")
    return Table(
        name="cost",
        caption="What the runs took." + (" Fine-tuning by " + ", ".join(AXIS_TITLES[a].lower() for a in axes) + "."),
        notes=tuple(notes),
        row_titles=tuple(AXIS_TITLES[axis] for axis in axes),
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
