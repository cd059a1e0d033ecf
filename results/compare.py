"""Paired tests between cells, from the predictions that lie beside the metrics."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from results import stats
from results.cells import Cell, cuts_of
from results.common import LABELS
from results.delong import Difference, delong_paired
from results.errors import InputError
from results.metrics import METRICS
from results.names import LOWER_IS_BETTER
from results.panel import Panel
from results.panel import load_panel as load_panel
from results.schema import MACRO
from results.select import Row

ALPHA = 0.05
"""Level of a test after Holm's correction."""

PROGRESS_AFTER = 2.0
"""Seconds of resampling after which progress is shown."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Runs that are read and resampled at a time."""

PANELS_HELD = 64
"""Runs whose predictions stay in memory (3 MB for NIH's test set)."""


class Progress:
    """Says how far the resampling of runs is: on a terminal in place, in a log now and then; nothing for short work."""

    def __init__(self, total: int) -> None:
        """Expect `total` runs."""
        self.total, self.done = total, 0
        self._next = time.monotonic() + PROGRESS_AFTER

    def one(self) -> None:
        """One more run is being resampled."""
        self.done += 1
        if time.monotonic() < self._next:
            return
        text = f"paired tests: run {self.done} of {max(self.done, self.total)}"
        terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0.5 if terminal else 20.0)
        last = "\r" + " " * len(text) + "\r" if self.done >= self.total else ""
        print(f"\r{text}{last}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


class Comparer:
    """Compares cells; keeps what it has read and resampled, so that a run is resampled once per metric."""

    def __init__(self, n_boot: int = 2000, seed: int = 0) -> None:
        """Use `n_boot` resamples of patients drawn by `seed`."""
        self.n_boot, self.seed = n_boot, seed
        self._panels: dict[tuple[str, str, str | None], Panel | str] = {}
        self._resampled: dict[tuple[str, str, str], np.ndarray] = {}
        self._progress = Progress(0)
        self._guard = threading.Lock()

    def expect(self, cells: Iterable[Cell]) -> None:
        """Tell how many runs are going to be resampled, so that progress can be shown."""
        self._progress = Progress(len({str(row["source"]) for cell in cells for row in cell.rows}))

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
        if label == MACRO and len({row.get(LABELS, row["n_labels"]) for row in rows}) > 1:
            return "means over different labels"
        with ThreadPoolExecutor(max_workers=CORES) as pool:
            found = list(pool.map(self.panel, rows))
        bad = [panel for panel in found if isinstance(panel, str)]
        if bad:
            return bad[0]
        held = [panel for panel in found if isinstance(panel, Panel)]
        labels = _labels_of(rows[0], held[0])
        if any(not set(labels) <= set(panel.labels) for panel in held):
            return "predictions not found"
        if any(not _same_images(held[0], panel, labels) for panel in held[1:]):
            return "tested on different images"
        if metric == "auroc" and len(rows) == 2 and len(labels) == 1:
            truth, score, patients = held[0].column(labels[0])
            try:
                return delong_paired(truth, score, held[1].column(labels[0])[1], patients)
            except InputError:
                return "too few patients of a class"
        with ThreadPoolExecutor(max_workers=CORES) as pool:  # numpy and scipy release the interpreter's lock
            runs = list(pool.map(self._of_label, rows))
        split = len(first.rows)
        difference = stats.paired_difference(np.stack(runs[:split]), np.stack(runs[split:]), first.value - second.value)
        return difference or "undefined in most resamples"

    def panel(self, row: Row) -> Panel | str:
        """The test predictions behind a row, or why there are none."""
        key = (str(row["source"]), str(row["test_dataset"]), row["test_dataset_hash"])
        with self._guard:
            held = self._panels.get(key)
        if held is None:
            held = load_panel(*key)
            with self._guard:
                while len(self._panels) >= PANELS_HELD:
                    del self._panels[next(iter(self._panels))]
                self._panels[key] = held
        return held

    def _of_label(self, row: Row) -> np.ndarray:
        """Resampled values (B,) of the row's metric and label."""
        key = (str(row["source"]), str(row["test_dataset"]), str(row["metric"]))
        panel = self.panel(row)
        assert isinstance(panel, Panel)
        if key not in self._resampled:
            self._progress.one()
            cuts = cuts_of(key[0], key[1], row["test_dataset_hash"])
            self._resampled[key] = stats.bootstrap(
                panel.truth,
                panel.score,
                panel.patients,
                thresholds=[cuts.get(label) for label in panel.labels],
                metrics=(key[2],),
                n_boot=self.n_boot,
                seed=self.seed,
            )[key[2]]
        columns = [panel.labels.index(label) for label in _labels_of(row, panel)]
        return self._resampled[key][:, columns].mean(axis=1)


def _labels_of(row: Row, panel: Panel) -> tuple[str, ...]:
    """The labels that a row's value is of, or averages."""
    if row["label"] != MACRO:
        return (row["label"],)
    if LABELS in row:
        return row[LABELS]
    both = (len(set(panel.column(label)[0].tolist())) == 2 for label in panel.labels)
    return tuple(label for label, good in zip(panel.labels, both, strict=True) if good)


def _same_images(a: Panel, b: Panel, labels: Sequence[str]) -> bool:
    return (
        np.array_equal(a.keys, b.keys)
        and np.array_equal(a.patients, b.patients)
        and np.array_equal(a.only(labels).truth, b.only(labels).truth)
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
    comparer.expect(cell for group in groups if len(group) > 1 for _, cell in group)
    pending: list[tuple[int, list[int]]] = []  # the best cell's place, its comparisons' numbers
    p_values: list[float] = []
    methods: set[str] = set()
    untested: set[str] = set()
    for group in groups:
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
