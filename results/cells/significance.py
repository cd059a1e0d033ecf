"""Paired tests between cells, from the predictions that lie beside the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from results.cells.cell import Cell
from results.cells.display import LOWER_IS_BETTER, METRIC_TITLES
from results.schema import MACRO
from results.stats import effects, multiple_testing, tested, uncertainty
from results.stats.delong import Difference
from results.stats.effects import LABELS
from results.stats.influence import INTERVAL_METRICS, Influence

ALPHA = 0.05
"""Level of a test after Holm's correction."""

ONE_SEED = "an arm of one seed, whose spread over seeds is not known"
"""Why a comparison does not decide what is bold."""

TWO_MODELS = (
    "Where a side has one seed, two trained models are compared and not two ways to train, and nothing is bold."
)
"""For a note beside p values of such comparisons."""


class Comparer:
    """Compares cells by their predictions."""

    def expect(self, cells: Iterable[Cell]) -> None:
        """Read what the cells need, several runs at a time."""
        effects.prepare(row for cell in cells for row in cell.rows if row["value"] is not None)

    def compare(self, first: Cell, second: Cell) -> Difference | str:
        """First minus second, or the reason why they cannot be compared.

        With one seed on either side it is two trained models that are compared, not two ways to train: the spread over
        seeds is not in the difference's interval, and its method says so.
        """
        if first.value is None or second.value is None:
            return "undefined values"
        rows = (*first.rows, *second.rows)
        metric, label = rows[0]["metric"], rows[0]["label"]
        if metric not in INTERVAL_METRICS:
            return f"no test for {METRIC_TITLES.get(metric, metric)}"
        if any(row["value"] is None for row in rows):
            return "undefined values"
        if label == MACRO and len({row.get(LABELS, row["n_labels"]) for row in rows}) > 1:
            return "means over different labels"
        effects.prepare(rows)
        found = [effects.tested(row) for row in rows]
        bad = [one for one in found if isinstance(one, str)]
        if bad:
            return bad[0]
        held = [one for one in found if isinstance(one, tested.Tested)]
        if len({effects.images_of(row, one) for row, one in zip(rows, held, strict=True)}) > 1:
            return "tested on different images"
        parts = [effects.estimate(row, one) for row, one in zip(rows, held, strict=True)]
        reasons = [part for part in parts if isinstance(part, str)]
        if reasons:
            return reasons[0]
        runs = [part for part in parts if isinstance(part, Influence)]
        split = len(first.rows)
        return uncertainty.difference(runs[:split], runs[split:], by_seed=_seeds(first) == _seeds(second))


def _seeds(cell: Cell) -> list[Any]:
    return [row["seed"] for row in cell.rows]


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


def marked(
    grid: Sequence[Sequence[Cell | None]], group: Callable[[int, int, Cell], Any]
) -> tuple[list[list[Cell | None]], Verdict]:
    """The cells of a table with the winners marked.

    Args:
        grid: the cells, row by row; None where there is none.
        group: (number of the row, of the column, cell) -> what the cells that may be compared have in common.
    """
    numbered = [(r, c, cell) for r, line in enumerate(grid) for c, cell in enumerate(line) if cell is not None]
    width = max(map(len, grid), default=0)
    groups: dict[Any, list[tuple[int, Cell]]] = {}
    for r, c, cell in numbered:
        groups.setdefault(group(r, c, cell), []).append((r * width + c, cell))
    verdict = judge(list(groups.values()), Comparer())
    made = [list(line) for line in grid]
    for r, c, cell in numbered:
        if r * width + c in verdict.best:
            made[r][c] = dataclasses.replace(cell, best=True)
    return made, verdict


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
            if isinstance(outcome, Difference) and min(len(best[1].rows), len(other[1].rows)) < 2:
                outcome = ONE_SEED
            if isinstance(outcome, str):
                untested.add(outcome)
                comparisons.append(-1)
                continue
            methods.add(outcome.method)
            comparisons.append(len(p_values))
            p_values.append(outcome.p if sign * outcome.value > 0 else 1.0)
        pending.append((best[0], comparisons))
    corrected = multiple_testing.holm(p_values)
    winners = {
        place for place, numbers in pending if all(number >= 0 and corrected[number] < ALPHA for number in numbers)
    }
    return Verdict(
        best=frozenset(winners),
        tested=len(p_values),
        methods=tuple(sorted(methods)),
        untested=tuple(sorted(untested)),
    )
