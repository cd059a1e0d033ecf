"""`operating-points`: what a model finds and misses at thresholds chosen on validation by any rule.

The rule is applied when the table is made, to the validation predictions that lie beside the results, so that other
operating points need no new training.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from results import levels
from results.cells.captions import caption_of, labelled_title, rule_title
from results.cells.cell import Cell
from results.cells.display import METRIC_TITLES
from results.cells.options import Options
from results.errors import InputError
from results.schema import Row
from results.stats import effects, influence, operating
from results.stats.influence import Influence
from results.stats.metrics import check_rule
from results.stats.operating import RATES
from results.stats.scoring import val_thresholds
from results.stats.validation import validation_scores
from results.tables.predicted import cell_of, labels_of, mean_over_labels, run_groups, scores_of_seeds
from results.tables.table import Table

TITLES = {"recall": "Sensitivity", "specificity": "Specificity", "precision": "PPV", "npv": "NPV"}


def build(results: pa.Table, options: Options) -> Table:
    """Sensitivity, specificity and predictive values of each model at each operating point."""
    if not options.at:
        raise InputError("--at names no operating point; give rules, e.g. --at 'sensitivity=0.9 specificity=0.95'")
    for rule in options.at:
        check_rule(rule)
    if options.prevalence is not None and not 0 < options.prevalence < 1:
        raise InputError(f"--prevalence {options.prevalence:g}: a share between 0 and 1, both excluded")
    if options.metric:
        raise InputError("operating-points shows its own four rates; leave out --metric")
    found = run_groups(results, options, ("init",))
    names, lines = [], []
    for key, group in found.groups.items():
        for rule in options.at:
            names.append((*found.names(key), _point(rule)))
            lines.append(_line(group.rows, rule, options))
    cells = [cell for line in lines for cell in line[1:]]
    title = labelled_title("Operating points", found.rows)
    return Table(
        caption=caption_of(title, found.rows, found.axes, cells),
        notes=(*_notes(found.rows, lines, options, found.note), *found.notes()),
        row_titles=(*found.titles, "Chosen on validation"),
        row_names=tuple(names),
        column_names=("Threshold", *(TITLES[rate] for rate in RATES)),
        cells=tuple(lines),
        digits=options.digits,
    )


def _point(rule: str) -> str:
    """A rule as a row shows it: `sensitivity 0.9`, `highest F1`."""
    name, _, number = rule.partition("=")
    return f"{name} {number}" if number else rule_title(name)


def _line(rows: Sequence[Row], rule: str, options: Options) -> tuple[Cell, ...]:
    """The threshold and the four rates of one group of runs."""
    found: dict[str, list[Influence | None]] = {rate: [] for rate in RATES}
    thresholds, few = [], False
    for row, matrix in zip(rows, scores_of_seeds(rows), strict=True):
        total = int(matrix.patients.max(initial=-1)) + 1
        labels = labels_of(row, matrix)
        chosen = val_thresholds(labels, validation_scores(row), rule)
        parts = []
        for label in labels:
            truth, score, patients = matrix.column(label)
            few = few or influence.too_few(truth, patients)
            threshold = chosen[label]
            if threshold is None:
                parts.append(dict.fromkeys(RATES))
                continue
            thresholds.append(threshold)
            parts.append(
                operating.rates(truth, score, patients, threshold, prevalence=options.prevalence, n_patients=total)
            )
        for rate in RATES:
            found[rate].append(mean_over_labels([part[rate] for part in parts]))
    return (_range(thresholds, len(rows), options.digits), *(cell_of(found[rate], few) for rate in RATES))


def _range(thresholds: Sequence[float], seeds: int, digits: int) -> Cell:
    """The thresholds of all seeds and labels: their one value, or from the lowest to the highest."""
    if not thresholds:
        return Cell()
    low, high = min(thresholds), max(thresholds)
    text = f"{low:.{digits}f}" + (f"\u2013{high:.{digits}f}" if high > low else "")
    return Cell(value=sum(thresholds) / len(thresholds), n=seeds, text=text)


def _notes(rows: Sequence[Row], lines: Sequence[Sequence[Cell]], options: Options, left_out: str) -> list[str]:
    unit = levels.unit(rows)
    if options.prevalence is None:
        share = "the prevalence of the test set"
    else:
        share = f"a prevalence of {100 * options.prevalence:g} %, from sensitivity and specificity by Bayes' theorem"
    text = (
        f"Thresholds are chosen for each run and label on its validation {unit} (sensitivity: the highest threshold"
        " that reaches it there; specificity: the lowest), and values are those on the test set at them, so that they"
        " differ from the targets. Intervals hold for these thresholds. PPV and NPV are for "
    )
    notes = [f"{text}{share}." + (f" {left_out}" if left_out else "")]
    cells = [cell for line in lines for cell in line[1:]]
    if any(cell.value is None for cell in cells):
        notes.append(
            "undefined: no validation predictions with both classes (at the level of studies: that say the study), or"
            " nothing was called positive (PPV) or negative (NPV)."
        )
    if any(cell.few for cell in cells):
        notes.append(f"\u2021 No interval: {effects.TOO_FEW}.")
    return notes


assert set(TITLES) == set(RATES) and TITLES["recall"] == METRIC_TITLES["recall"]
