"""`subgroups`: AUROC and rates at the threshold by sex, age band and view, and the largest gap between groups.

Thresholds are those of the run, the same for every group: what a model would be used with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from results import levels
from results.cells.captions import caption_of, metric_title, setting_notes
from results.cells.cell import Cell
from results.cells.display import FEW_MARK, METRIC_TITLES
from results.cells.options import Options
from results.errors import InputError
from results.metric_names import THRESHOLD_METRICS
from results.schema import Row
from results.stats import effects, groups, influence, multiple_testing, uncertainty
from results.stats.delong import Difference
from results.stats.groups import ATTRIBUTES, Grouped
from results.stats.influence import MIN_PATIENTS, Influence
from results.tables.predicted import cell_of, labels_of, mean_over_labels, run_groups
from results.tables.table import Table, difference_text

METRICS = ("auroc", "recall", "specificity")
"""Columns, where the user names no metric."""

TITLES = {"sex": "Sex", "age": "Age (years)", "view": "View"}


def build(results: pa.Table, options: Options) -> Table:
    """Each group's metrics with patient-clustered intervals, then the largest gap of each attribute with a test."""
    _check(options)
    found = run_groups(results, options, ("init",))
    metrics = (options.metric,) if options.metric else METRICS
    blocks: list[tuple[tuple[Any, ...], Attribute]] = []
    absent: dict[str, str] = {}
    for key, cell in found.groups.items():
        for attribute in options.by:
            block = _attribute(cell.rows, attribute, metrics, options)
            if isinstance(block, str):
                absent[attribute] = block
            else:
                blocks.append((key, block))
    if not blocks:
        raise InputError(f"no subgroups: {'; '.join(f'{name}: {reason}' for name, reason in absent.items())}")
    gaps = [gap for _, block in blocks for gap in block.gaps if gap is not None]
    corrected = iter(multiple_testing.holm([gap.p for gap in gaps]) if options.test else [1.0] * len(gaps))
    names, lines = [], []
    for key, block in blocks:
        lead = (*found.names(key), TITLES[block.attribute])
        for name, cells in block.lines.items():
            names.append((*lead, name, str(block.images[name]), str(block.patients[name])))
            lines.append(cells)
        if len(block.lines) > 1:
            names.append((*lead, "Largest gap", "", ""))
            lines.append(tuple(_gap_cell(gap, corrected, options) for gap in block.gaps))
    cells = [cell for line in lines for cell in line if cell is not None and cell.text is None]
    shown = (*found.axes, "metric")
    title = f"{metric_title(found.rows) if options.metric == 'auroc' else 'Metrics'} by subgroup"
    return Table(
        caption=caption_of(title, _as(found.rows, metrics), shown, cells),
        notes=(
            *_notes([block for _, block in blocks], absent, found.note, metrics, options),
            *setting_notes(found.rows, [cell.rows for cell in found.groups.values()], found.axes),
        ),
        row_titles=(*found.titles, "Attribute", "Group", levels.unit(found.rows).capitalize(), "Patients"),
        row_names=tuple(names),
        column_names=tuple(METRIC_TITLES.get(metric, metric) for metric in metrics),
        cells=tuple(lines),
        digits=options.digits,
    )


def _check(options: Options) -> None:
    unknown = [name for name in options.by if name not in ATTRIBUTES]
    if unknown or not options.by:
        raise InputError(f"--by {','.join(options.by)}: name some of {', '.join(ATTRIBUTES)}")
    if options.metric and options.metric not in influence.INTERVAL_METRICS:
        raise InputError(
            f"--metric {options.metric}: subgroups can be compared in {', '.join(influence.INTERVAL_METRICS)}"
        )
    if not options.ages or list(options.ages) != sorted(set(options.ages)) or options.ages[0] <= 0:
        raise InputError("--ages takes the years at which bands begin, rising, e.g. 18,40,65")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between two groups."""

    first: str
    """The group of the higher value."""
    second: str
    difference: Difference
    """First minus second; the interval is simultaneous over the attribute's pairs."""
    p: float
    """Corrected for the attribute's pairs (Bonferroni)."""
    n: int
    """Seeds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribute:
    """One attribute of the runs of one row."""

    attribute: str
    lines: dict[str, tuple[Cell, ...]]
    """Group -> a cell for each metric."""
    gaps: tuple[Gap | None, ...]
    """One for each metric; None where fewer than two groups can be compared."""
    images: dict[str, int]
    """Group -> images, or studies."""
    patients: dict[str, int]
    labels: tuple[str, ...]
    """That values average."""
    dropped: int
    """Labels that the runs have and some group has too few patients of."""
    unknown: int
    """Images whose group is not known."""


def _attribute(rows: Sequence[Row], attribute: str, metrics: Sequence[str], options: Options) -> Attribute | str:
    """The groups of one attribute, or why there are none."""
    found = [groups.grouped(row, attribute, options.ages) for row in rows]
    for one in found:
        if isinstance(one, str):
            return one
    runs = [one for one in found if isinstance(one, Grouped)]
    names = list(runs[0].groups)
    if not all(_same_images(run, runs[0]) for run in runs):
        return "the seeds were tested on different images"
    wanted = labels_of(rows[0], next(iter(runs[0].groups.values())))
    large = [name for name in names if _count(runs[0], name) >= MIN_PATIENTS]
    enough = {name: [label for label in wanted if _enough(runs[0], name, label)] for name in large}
    compared = [name for name in large if enough[name]]
    common = tuple(label for label in wanted if compared and all(label in enough[name] for name in compared))
    lines: dict[str, tuple[Cell, ...]] = {}
    values: dict[str, list[list[Influence] | None]] = {}
    for name in names:
        if name not in compared or not common:
            lines[name] = tuple(Cell(text=FEW_MARK) for _ in metrics)
            continue
        per_metric = [_of_group(rows, runs, name, common, metric) for metric in metrics]
        lines[name] = tuple(cell_of(found) for found in per_metric)
        values[name] = [_complete(found) for found in per_metric]
    return Attribute(
        attribute=attribute,
        lines=lines,
        gaps=tuple(largest_gap(values, place) for place in range(len(metrics))),
        images={name: len(runs[0].groups[name].keys) for name in names},
        patients={name: _count(runs[0], name) for name in names},
        labels=common,
        dropped=len(wanted) - len(common),
        unknown=runs[0].unknown,
    )


def _same_images(run: Grouped, other: Grouped) -> bool:
    """Whether two runs have the same images and patients in the same groups."""
    return (
        list(run.groups) == list(other.groups)
        and run.n_patients == other.n_patients
        and all(
            np.array_equal(one.keys, two.keys) and np.array_equal(one.patients, two.patients)
            for one, two in zip(run.groups.values(), other.groups.values(), strict=True)
        )
    )


def _count(run: Grouped, name: str) -> int:
    return len(set(run.groups[name].patients.tolist()))


def _enough(run: Grouped, name: str, label: str) -> bool:
    """Whether a group has enough patients of a label for an interval."""
    matrix = run.groups[name]
    if label not in matrix.labels:
        return False
    truth, _, patients = matrix.column(label)
    return not influence.too_few(truth, patients)


def _of_group(
    rows: Sequence[Row], runs: Sequence[Grouped], name: str, labels: Sequence[str], metric: str
) -> list[Influence | None]:
    """The metric of every run in one group, the mean over labels."""
    out = []
    for row, run in zip(rows, runs, strict=True):
        place = (str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"], levels.of(row))
        thresholds, matrix = effects.thresholds_of(*place), run.groups[name]
        parts = [
            influence.influence(metric, *matrix.column(label), thresholds.get(label), run.n_patients)
            for label in labels
        ]
        out.append(mean_over_labels(parts))
    return out


def _complete(found: Sequence[Influence | None]) -> list[Influence] | None:
    held = [one for one in found if one is not None]
    return held if len(held) == len(found) else None


def largest_gap(values: dict[str, list[list[Influence] | None]], place: int) -> Gap | None:
    """The largest difference over all pairs of groups, corrected for having been looked for."""
    held = {name: runs for name, line in values.items() if (runs := line[place]) is not None}
    pairs = list(combinations(held, 2))
    if not pairs:
        return None

    def mean(name: str) -> float:
        return sum(run.value for run in held[name]) / len(held[name])

    first, second = max(pairs, key=lambda pair: abs(mean(pair[0]) - mean(pair[1])))
    if mean(first) < mean(second):
        first, second = second, first
    level = 1 - (1 - uncertainty.LEVEL) / len(pairs)
    found = uncertainty.difference(held[first], held[second], by_seed=True, level=level)
    return Gap(first=first, second=second, difference=found, p=min(1.0, len(pairs) * found.p), n=len(held[first]))


def _gap_cell(gap: Gap | None, corrected: Any, options: Options) -> Cell | None:
    if gap is None:
        return None
    p = next(corrected)
    found = gap.difference
    cell = Cell(value=found.value, low=found.low, high=found.high, n=gap.n, p=p if options.test else None)
    return dataclasses.replace(
        cell, text=f"{difference_text(cell, options.digits, sign=False)} ({gap.first} over {gap.second})"
    )


def _as(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """The rows as if of these metrics: a caption then says how thresholds were chosen."""
    return [{**row, "metric": metric} for row in rows for metric in metrics]


def _notes(
    blocks: Sequence[Attribute], absent: dict[str, str], left_out: str, metrics: Sequence[str], options: Options
) -> list[str]:
    notes = [left_out] if left_out else []
    if set(metrics) & set(THRESHOLD_METRICS):
        notes.insert(0, "Thresholds are those of the runs, the same for every group.")
    if any(gap for block in blocks for gap in block.gaps):
        text = (
            "Largest gap: the largest difference between two groups of an attribute, with an interval that holds for"
            " all pairs of its groups at 95 % (Bonferroni)"
        )
        method = sorted({gap.difference.method for block in blocks for gap in block.gaps if gap})[0]
        tested = f"; p by {method.replace('paired ', '')}, corrected for the pairs and over the table (Holm)"
        notes.append(text + (tested if options.test else "") + ".")
    sizes = {len(block.labels) for block in blocks if block.labels}
    if any(len(block.labels) > 1 for block in blocks):
        words = "/".join(map(str, sorted(sizes)))
        notes.append(f"Means are over the {words} labels of which every group that is compared has enough patients.")
    if any(block.dropped for block in blocks):
        most = max(block.dropped for block in blocks)
        notes.append(f"Up to {most} labels are left out because a group has too few patients with or without them.")
    if any(cell.text == FEW_MARK for block in blocks for line in block.lines.values() for cell in line):
        notes.append(f"{FEW_MARK} {effects.TOO_FEW}; such groups are left out of the gaps.")
    if unknown := max(block.unknown for block in blocks):
        notes.append(f"Up to {unknown} images whose group is not recorded are in no group.")
    notes += [f"No groups by {name}: {reason}." for name, reason in sorted(absent.items())]
    return notes
