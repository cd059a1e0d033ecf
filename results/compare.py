"""Paired tests between cells, from the predictions that lie beside the metrics."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from results import stats
from results.cells import Cell
from results.collect import predictions_beside
from results.delong import Difference, delong_paired
from results.errors import InputError
from results.metrics import METRICS
from results.names import LOWER_IS_BETTER
from results.panel import Panel, panels
from results.schema import MACRO, read_metrics, read_predictions
from results.select import Row

ALPHA = 0.05
"""Level of a test after Holm's correction."""

PANELS_HELD = 64
"""Runs whose predictions stay in memory (3 MB for NIH's test set)."""


class Comparer:
    """Compares cells; keeps what it has read and resampled, so that a run is resampled once per metric."""

    def __init__(self, n_boot: int = 2000, seed: int = 0) -> None:
        """Use `n_boot` resamples of patients drawn by `seed`."""
        self.n_boot, self.seed = n_boot, seed
        self._panels: dict[tuple[str, str], Panel | str] = {}
        self._resampled: dict[tuple[str, str, str], np.ndarray] = {}
        self._thresholds: dict[str, dict[tuple[str, str], float | None]] = {}

    def compare(self, first: Cell, second: Cell) -> Difference | str:
        """First minus second, or the reason why they cannot be compared."""
        if first.value is None or second.value is None:
            return "undefined values"
        rows = (*first.rows, *second.rows)
        metric, label = rows[0]["metric"], rows[0]["label"]
        if metric not in METRICS:
            return f"no test for {metric}"
        if any(row["value"] is None for row in rows):
            return "undefined values"
        if label == MACRO and len({row["n_labels"] for row in rows}) > 1:
            return "means over different labels"
        found = [self.panel(row) for row in rows]
        bad = [panel for panel in found if isinstance(panel, str)]
        if bad:
            return bad[0]
        held = [panel for panel in found if isinstance(panel, Panel)]
        if any(not _same_images(held[0], panel) for panel in held[1:]):
            return "tested on different images"
        if metric == "auroc" and len(rows) == 2 and (label != MACRO or len(held[0].labels) == 1):
            name = held[0].labels[0] if label == MACRO else label
            truth, score, patients = held[0].column(name)
            try:
                return delong_paired(truth, score, held[1].column(name)[1], patients)
            except InputError:
                return "too few patients of a class"
        runs = [self._of_label(row) for row in rows]
        split = len(first.rows)
        difference = stats.paired_difference(
            np.stack(runs[:split]), np.stack(runs[split:]), first.value - second.value, self.seed
        )
        return difference or "undefined in most resamples"

    def panel(self, row: Row) -> Panel | str:
        """The test predictions behind a row, or why there are none."""
        key = (str(row["source"]), str(row["test_dataset"]))
        if key not in self._panels:
            while len(self._panels) >= PANELS_HELD:
                del self._panels[next(iter(self._panels))]
            self._panels[key] = load_panel(*key)
        return self._panels[key]

    def _of_label(self, row: Row) -> np.ndarray:
        """Resampled values (B,) of the row's metric and label."""
        key = (str(row["source"]), str(row["test_dataset"]), str(row["metric"]))
        panel = self.panel(row)
        assert isinstance(panel, Panel)
        if key not in self._resampled:
            cuts = self._cuts(key[0])
            self._resampled[key] = stats.bootstrap(
                panel.truth,
                panel.score,
                panel.patients,
                thresholds=[cuts.get((key[1], label)) for label in panel.labels],
                metrics=(key[2],),
                n_boot=self.n_boot,
                seed=self.seed,
            )[key[2]]
        resampled = self._resampled[key]
        if row["label"] != MACRO:
            return resampled[:, panel.labels.index(row["label"])]
        both = [j for j, label in enumerate(panel.labels) if len(set(panel.column(label)[0].tolist())) == 2]
        usable = [j for j in both if np.isfinite(resampled[:, j]).any()]
        return resampled[:, usable].mean(axis=1)

    def _cuts(self, source: str) -> dict[tuple[str, str], float | None]:
        """The thresholds that the run's metrics were computed with."""
        if source not in self._thresholds:
            table = read_metrics(Path(source)).select(["test_dataset", "label", "metric", "threshold"])
            self._thresholds[source] = {
                (row["test_dataset"], row["label"]): row["threshold"]
                for row in table.to_pylist()
                if row["metric"] == "accuracy"
            }
        return self._thresholds[source]


def load_panel(source: str, dataset: str) -> Panel | str:
    """The test predictions beside a metrics file, or why there are none."""
    path = predictions_beside(source)
    if path is None:
        return "predictions not found"
    try:
        return panels(read_predictions(path), "test").get((dataset, "test"), "predictions not found")
    except InputError:
        return "predictions not readable"


def _same_images(a: Panel, b: Panel) -> bool:
    return (
        a.labels == b.labels
        and np.array_equal(a.keys, b.keys)
        and np.array_equal(a.truth, b.truth)
        and np.array_equal(a.patients, b.patients)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the tests over a table said."""

    best: frozenset[int]
    """Places, in the order of the groups' cells, of cells that beat all others of their group."""
    tested: int
    """Comparisons made, over which p values are corrected."""
    methods: tuple[str, ...]
    """Tests that were used."""
    untested: tuple[str, ...]
    """Reasons why comparisons were not possible."""


def judge(groups: Sequence[Sequence[tuple[int, Cell]]], comparer: Comparer) -> Verdict:
    """Test each group's best cell against its others; correct over all groups (Holm).

    Args:
        groups: cells that may be compared (one test set, label and metric), each with its place.
        comparer: does the tests.
    """
    pending: list[tuple[int, list[int]]] = []  # the best cell's place, its comparisons' numbers
    p_values: list[float] = []
    methods: set[str] = set()
    untested: set[str] = set()
    for number, group in enumerate(groups):
        _progress(number, len(groups))
        defined = [(place, cell) for place, cell in group if cell.value is not None]
        if len(defined) < 2:
            continue
        sign = -1 if defined[0][1].rows[0]["metric"] in LOWER_IS_BETTER else 1
        defined.sort(key=lambda item: -sign * (item[1].value or 0.0))
        best, comparisons = defined[0], []
        for other in defined[1:]:
            outcome = comparer.compare(best[1], other[1])
            if isinstance(outcome, str):
                untested.add(outcome)
                comparisons.append(-1)
                continue
            methods.add(outcome.method)
            comparisons.append(len(p_values))
            # A bootstrap's p is two-sided; a best value that the resamples call worse is no win.
            p_values.append(outcome.p if sign * outcome.value > 0 else 1.0)
        pending.append((best[0], comparisons))
    corrected = stats.holm(p_values)
    winners = {
        place for place, numbers in pending if all(number >= 0 and corrected[number] < ALPHA for number in numbers)
    }
    return Verdict(
        best=frozenset(winners),
        tested=len(p_values),
        methods=tuple(sorted(methods)),
        untested=tuple(sorted(untested)),
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and total > 1:
        end = "\r" if done < total - 1 else "\r" + " " * 40 + "\r"
        print(f"paired tests {done + 1}/{total}", end=end, file=sys.stderr, flush=True)
