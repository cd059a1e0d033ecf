"""`calibration`: log loss, Brier score, ECE, slope and intercept, as trained or recalibrated on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from results import levels
from results.cells.captions import caption_of, labelled_title
from results.cells.cell import Cell
from results.cells.options import Options
from results.errors import InputError
from results.schema import Row
from results.stats import calibration, effects, influence, uncertainty
from results.stats.influence import Influence
from results.stats.metrics import expected_calibration_error
from results.stats.recalibrate import METHODS, recalibrated_scores, sentence
from results.tables.predicted import cell_of, labels_of, mean_over_labels, run_groups, scores_of_seeds
from results.tables.table import Table

COLUMNS = ("log_loss", "brier", "ece", "slope", "intercept")


def build(results: pa.Table, options: Options) -> Table:
    """How far probabilities can be taken as such, model by model."""
    if options.metric:
        raise InputError("calibration shows its own five measures; leave out --metric")
    if options.recalibrate is not None and options.recalibrate not in METHODS:
        raise InputError(f"--recalibrate {options.recalibrate}: there is {', '.join(METHODS)}")
    found = run_groups(results, options, ("init",))
    lines = [_line(cell.rows, options) for cell in found.groups.values()]
    cells = [cell for line in lines for cell in line]
    unit = levels.unit(found.rows)
    title = labelled_title("Calibration", found.rows)
    title += f", {sentence(options.recalibrate)}" if options.recalibrate else ""
    notes = [
        "Log loss: cross-entropy in nats. Slope: of the logistic regression of the truths on the logits of the scores;"
        " below 1 the scores are too extreme. Intercept: of the same with the slope held at 1; above 0 the findings are"
        " more common than the scores say."
        " The ideal values are 1 and 0. ECE over 15 bins has no interval: it is too large on average, the more so the"
        f" fewer the {unit}." + (f" {found.note}" if found.note else "")
    ]
    if any(cell.value is None for line in lines for cell in line):
        notes.append(
            "undefined: a class is missing, the scores are all equal or separate the classes perfectly,"
            " or there is no validation to recalibrate on."
        )
    if any(cell.few for line in lines for cell in line):
        notes.append(f"\u2021 No interval: {effects.TOO_FEW}.")
    return Table(
        caption=caption_of(title, found.rows, found.axes, cells),
        notes=(*notes, *found.notes()),
        row_titles=found.titles,
        row_names=tuple(found.names(key) for key in found.groups),
        column_names=("Log loss", "Brier score", "ECE", "Slope", "Intercept"),
        cells=tuple(lines),
        digits=options.digits,
    )


def _line(rows: Sequence[Row], options: Options) -> tuple[Cell, ...]:
    found: dict[str, list[Influence | None]] = {name: [] for name in COLUMNS}
    few = False
    for row, tested in zip(rows, scores_of_seeds(rows), strict=True):
        total = int(tested.patients.max(initial=-1)) + 1
        labels = labels_of(row, tested)
        matrix = recalibrated_scores(row, tested, options.recalibrate) if options.recalibrate else tested
        parts: dict[str, list[Influence | None]] = {name: [] for name in COLUMNS}
        for label in labels:
            if matrix is None or label not in matrix.labels:
                for name in COLUMNS:
                    parts[name].append(None)
                continue
            truth, score, patients = matrix.column(label)
            few = few or influence.too_few(truth, patients)
            parts["log_loss"].append(calibration.log_loss(truth, score, patients, total))
            parts["brier"].append(influence.influence("brier", truth, score, patients, None, total))
            parts["ece"].append(_ece(truth, score, total))
            parts["slope"].append(calibration.slope(truth, score, patients, total))
            parts["intercept"].append(calibration.intercept(truth, score, patients, total))
        for name in COLUMNS:
            found[name].append(mean_over_labels(parts[name]))
    brier, ece = cell_of(found["brier"], few), cell_of(found["ece"], few)
    ece = dataclasses.replace(ece, low=None, high=None, interval=None, few=False)
    loss = cell_of(found["log_loss"], few, positive)
    return (loss, brier, ece, *(cell_of(found[name], few, unbounded) for name in ("slope", "intercept")))


def _ece(truth: np.ndarray, score: np.ndarray, total: int) -> Influence | None:
    """The error alone: it has no variance estimate."""
    if not truth.any() or truth.all():
        return None
    return Influence(value=expected_calibration_error(truth, score), patients=np.zeros(total))


def unbounded(runs: Sequence[Influence]) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a mean over seeds of what may take any value."""
    parts = uncertainty.components(runs)
    if parts.variance <= 0:
        return None, None
    half = _half_width(parts)
    return parts.value - half, parts.value + half


def positive(runs: Sequence[Influence]) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a mean over seeds of what is above 0 and has no upper end: symmetric for its logarithm."""
    parts = uncertainty.components(runs)
    if parts.variance <= 0 or parts.value <= 0:
        return None, None
    factor = float(np.exp(_half_width(parts) / parts.value))
    return parts.value / factor, parts.value * factor


def _half_width(parts: uncertainty.Components) -> float:
    return uncertainty.critical(parts) * float(np.sqrt(parts.variance))
