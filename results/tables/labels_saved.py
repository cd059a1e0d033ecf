"""`labels-saved`: the share of labels at which scratch reaches what a pretrained encoder has with fewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from results.cells import comparable
from results.cells.captions import caption_of, macro_notes, setting_notes
from results.cells.cell import Cell, gather
from results.cells.display import AXIS_TITLES, METRIC_TITLES, show, sort_key
from results.cells.options import Options
from results.cells.select import RowChoice, choose, layout
from results.errors import InputError
from results.schema import MACRO, Row
from results.stats import effects
from results.stats.influence import INTERVAL_METRICS, Influence
from results.stats.saved_labels import Point, Reached, reached
from results.tables.table import Table

X = "label_fraction"


def build(results: pa.Table, options: Options) -> Table:
    """For every share of labels of every other initialisation: where the reference reaches the same value."""
    metric = options.metric or "auroc"
    if metric not in INTERVAL_METRICS or metric == "brier":
        wanted = ", ".join(name for name in INTERVAL_METRICS if name != "brier")
        raise InputError(f"--metric {metric}: labels saved can be computed for {wanted}")
    if options.columns:
        raise InputError("this table has columns of its own; leave out --columns")
    axis = options.rows[-1] if options.rows else "init"
    choice = RowChoice.of(options, (metric,), (MACRO,))
    rows = [row for row in choose(results, choice) if row[X] is not None]
    _, added = layout(rows, (axis, X), (), chosen=False)
    added = (*added, *(name for name in options.rows[:-1] if name not in added))
    rows = comparable.with_common_labels(rows, results, added, choice.among)
    cells = {key: cell for (key, _), cell in gather(rows, (*added, axis, X), (), options.allow).items()}
    reference = _reference(rows, axis, options)
    order = sorted(
        (key for key in cells if key[-2] != reference),
        key=lambda key: [sort_key(name, value) for name, value in zip((*added, axis, X), key, strict=True)],
    )
    points = {key: _point(cell, key[-1]) for key, cell in cells.items()}
    names, lines, reasons = [], [], set()
    for key in order:
        outcome = _saved(key, points, reference)
        if isinstance(outcome, str):
            reasons.add(outcome)
        base = cells.get((*key[:-2], reference, key[-1]))
        names.append(tuple(show(name, value) for name, value in zip((*added, axis, X), key, strict=True)))
        lines.append((cells[key], base, *_outcome_cells(outcome, key[-1], _ends(key, points, reference), cells[key].n)))
    if not lines:
        raise InputError(f"no other {AXIS_TITLES.get(axis, axis).lower()} than {show(axis, reference)}")
    shares = sorted({key[-1] for key in cells if key[-2] == reference})
    notes = [
        f"Where {show(axis, reference)} reaches the value, interpolated on the logarithm of the share of labels between"
        f" {show(X, shares[0])} and {show(X, shares[-1])} on a curve made monotone (isotonic regression); the interval"
        " is over resamples of the test patients, the same ones for every model, and seeds. Times the labels: that"
        " share over the row's own."
    ]
    notes += [f"Not compared: {reason}." for reason in sorted(reasons)]
    notes += [
        *macro_notes(rows, added),
        *setting_notes(rows, [cell.rows for cell in cells.values()], (*added, axis, X)),
    ]
    title = f"Labels saved: the share of labels at which {show(axis, reference)} reaches the {{metric}} of others"
    printed = [cell for line in lines for cell in line[:2] if cell is not None]
    return Table(
        caption=caption_of(title, rows, (*added, axis, X), printed, "block"),
        notes=tuple(notes),
        row_titles=tuple(AXIS_TITLES.get(name, name) for name in (*added, axis, X)),
        row_names=tuple(names),
        column_names=(
            METRIC_TITLES.get(metric, metric),
            show(axis, reference),
            f"{show(axis, reference)} reaches it at",
            "Times the labels",
        ),
        cells=tuple(lines),
        digits=options.digits,
    )


def _reference(rows: list[Row], axis: str, options: Options) -> Any:
    held = {row[axis] for row in rows}
    wanted = options.reference or "scratch"
    for value in held:
        if wanted in (str(value), show(axis, value)):
            return value
    raise InputError(
        f"no run with {axis} = {wanted} to compare with; there are {', '.join(sorted(map(str, held)))}"
        " (--reference names another one)"
    )


def _point(cell: Cell, share: float) -> tuple[Point, tuple[Any, ...]] | str:
    """A cell with its influences and what it was tested on, or why it cannot be compared."""
    if cell.value is None or any(row["value"] is None for row in cell.rows):
        return "undefined values"
    found = [effects.tested(row) for row in cell.rows]
    parts = [effects.estimate(row, one) for row, one in zip(cell.rows, found, strict=True)]
    for part in parts:
        if isinstance(part, str):
            return part
    images = {
        effects.images_of(row, one) for row, one in zip(cell.rows, found, strict=True) if not isinstance(one, str)
    }
    if len(images) > 1:
        return "tested on different images"
    return Point(share=share, runs=[part for part in parts if isinstance(part, Influence)]), images.pop()


def _saved(key: tuple[Any, ...], points: dict[tuple[Any, ...], Any], reference: Any) -> Reached | str:
    """Where the reference's curve reaches one point."""
    curve = sorted(
        (other for other in points if other[:-2] == key[:-2] and other[-2] == reference), key=lambda other: other[-1]
    )
    held = [points[other] for other in (*curve, key)]
    bad = [one for one in held if isinstance(one, str)]
    if bad:
        return bad[0]
    if len(curve) < 2:
        return "the reference has fewer than two shares of labels"
    if len({images for _, images in held}) > 1:
        return "tested on different images, or means over different labels"
    return reached([point for point, _ in held[:-1]], held[-1][0])


def _ends(key: tuple[Any, ...], points: dict[tuple[Any, ...], Any], reference: Any) -> tuple[float, float]:
    """The smallest and the largest share of the reference's curve."""
    shares = [other[-1] for other in points if other[:-2] == key[:-2] and other[-2] == reference]
    return min(shares, default=0.0), max(shares, default=0.0)


def _outcome_cells(
    outcome: Reached | str, share: float, ends: tuple[float, float], n: int
) -> tuple[Cell | None, Cell | None]:
    if isinstance(outcome, str):
        return Cell(text="not told"), Cell(text="not told")
    return _cell(outcome, 1.0, ends, n, _percent), _cell(outcome, share, ends, n, _times)


def _cell(found: Reached, unit: float, ends: tuple[float, float], n: int, spell: Callable[[float], str]) -> Cell:
    """A share, or a share over another one; what is off the curve is `<` or `>` its end, and empty in CSV."""
    numbers = [0.0 if number is None else number for number in (found.share, found.low, found.high)]
    words = []
    for number in numbers:
        inside = 0 < number < float("inf")
        end = ends[number > 0]
        words.append(spell(number / unit) if inside else f"{'>' if number > 0 else '<'} {spell(end / unit)}")
    value, low, high = (number / unit if 0 < number < float("inf") else None for number in numbers)
    return Cell(value=value, low=low, high=high, n=n, text=f"{words[0]} [{words[1]}, {words[2]}]")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _times(factor: float) -> str:
    return f"{factor:.2g}\u00d7" if factor < 100 else f"{factor:.0f}\u00d7"
