"""What a user may choose about a table or figure."""

from __future__ import annotations

import dataclasses
import shlex

from results.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Choices; None or empty leaves each to the table's own default."""

    metric: str | None = None
    """Metric, e.g. auroc, auprc, balanced_accuracy."""
    label: str | None = None
    """Label, or macro."""
    labels: tuple[str, ...] = ()
    """Labels to look at: macro means go over exactly these, rows of single labels are these; empty takes all."""
    rows: tuple[str, ...] = ()
    """Axes going down: display.AXES, or keys of the runs' configuration."""
    columns: tuple[str, ...] = ()
    """Axes going across."""
    where: tuple[str, ...] = ()
    """Filters column=value[,value], of a key of the runs' configuration too."""
    allow: tuple[str, ...] = ()
    """Mixtures to accept: select.ALLOWANCES."""
    digits: int = 3
    """Digits after the point."""
    test: bool = True
    """Whether to test and print the best in bold."""
    reference: str | None = None
    """What an ablation compares with; None = the full recipe (no variant), or the named value of its axis."""
    limit: int = 20
    """Rows of a search table."""
    difference: str | None = None
    """Value of an axis (mostly an initialisation) that differences are taken to; None = no differences."""
    style: str = "interval"
    """What stands behind a mean: interval, or mean-sd for the standard deviation over seeds."""
    intervals: str = "beside"
    """Where intervals stand: beside their values, below them (LaTeX), or none."""
    split: int | None = None
    """LaTeX: data columns of one part of a table whose parts stand below one another; None = all in one."""
    at: tuple[str, ...] = ("sensitivity=0.9", "specificity=0.9")
    """Operating points: threshold rules of `stats.metrics.pick_threshold`."""
    prevalence: float | None = None
    """Share of positives, in (0, 1), that predictive values are for; None = that of the test set."""
    by: tuple[str, ...] = ("sex", "age", "view")
    """Subgroups: what images are grouped by."""
    ages: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0)
    """Years at which age bands begin."""
    recalibrate: str | None = None
    """temperature: scores are recalibrated on validation; None leaves them as they are."""


def words(text: str | None) -> tuple[str, ...]:
    """`a,b` as ("a", "b")."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def filters(text: str | None, level: str | None = None) -> tuple[str, ...]:
    """`mode=full seed=0,1` as ("mode=full", "seed=0,1"); quotes keep blanks together, as in a shell.

    Args:
        text: what stands behind --where.
        level: what stands behind --level, a filter too.

    Raises:
        InputError: a quote is not closed.
    """
    try:
        found = tuple(shlex.split(text or ""))
    except ValueError as error:
        raise InputError(f"--where {text}: {error}") from error
    return found if level is None else (*found, f"level={level}")
