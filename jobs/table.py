"""`cxrdist table`: a paper table from collected results."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from results.tables.registry import TABLES

if TYPE_CHECKING:
    TableName = str
else:
    TableName = Literal[tuple(TABLES)]

HELP = "Make a paper table from collected results."
POSITIONALS = ("name", "inputs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which table, of which results, in which form."""

    name: TableName
    """The table."""
    inputs: list[str]
    """A file from `cxrdist collect`; or runs, or folders of runs, which are collected on the fly."""
    format: Literal["markdown", "latex", "siunitx", "csv", "html"] = "markdown"
    """How to write it; siunitx is LaTeX with columns aligned at the decimal point, csv has one line per cell with all
    digits."""
    out: str | None = None
    """File to write; None = stdout."""
    metric: str | None = None
    """Metric, e.g. auroc, auprc, balanced_accuracy, recall; None = the table's own (mostly auroc)."""
    label: str | None = None
    """One label, or macro; None = the table's own (mostly macro)."""
    labels: str | None = None
    """Labels that macro means go over and that rows of labels show: names by commas, chexpert5 (CheXpert's
    competition tasks) or shared (the seven of NIH and CheXpert); None = all that the compared runs have."""
    rows: str | None = None
    """Columns of the results, or keys of the configuration (optim.lr), that go down, e.g. label_fraction,mode; None =
    the table's own."""
    columns: str | None = None
    """Columns of the results, or keys of the configuration, that go across, e.g. init; None = the table's own."""
    where: str | None = None
    """Filters with blanks between, e.g. "mode=full label_fraction=0.1,1"; a result must meet all.
    Keys of the configuration work too (optim.lr=0.001). None = no filter."""
    level: Literal["image", "study", "study_max"] | None = None
    """What is scored: image, study (the mean over a study's images) or study_max (their highest), made from
    the predictions where runs were not scored so; None = what the results hold, one or the other."""
    allow: str | None = None
    """What is refused unless asked for: splits, policies, levels (mixed on a test set), configs, sets, seeds (several
    configurations, test sets of one name, runs of one seed in one cell)."""
    digits: Annotated[int, "[0, 17]"] = 3
    """Digits after the point."""
    test: bool = True
    """Whether to test for differences and print what is best in bold; needs the runs' predictions."""
    n_boot: Annotated[int, "[1, 10^6]"] = 2000
    """Without effect; tests need no resamples any more."""
    reference: str | None = None
    """Ablation: what to compare with; None = the full recipe. Labels-saved: None = scratch."""
    limit: Annotated[int, "[1, inf)"] = 20
    """Search: how many trials to show."""
    style: Literal["interval", "mean-sd"] = "interval"
    """What stands behind a mean over seeds: its 95 % interval, or the standard deviation over seeds."""
    intervals: Literal["beside", "below", "none"] = "beside"
    """Where intervals stand: beside their values, below them (latex and siunitx, for narrow pages), or none."""
    split: Annotated[int | None, "[1, inf)"] = None
    """latex and siunitx: a table with more data columns than this is split into parts that stand below one another;
    None = all columns side by side."""
    difference: str | None = None
    """Label-efficiency and transfer: also differences to this initialisation (scratch), with interval and p; None = no
    differences."""
    at: str | None = None
    """Operating-points: rules with blanks between that choose thresholds on val: sensitivity=0.9, specificity=0.95,
    balanced_accuracy, f1; None = sensitivity=0.9 specificity=0.9."""
    prevalence: Annotated[float | None, "(0, 1)"] = None
    """Operating-points: share of positives that PPV and NPV are for; None = that of the test set."""
    by: str | None = None
    """Subgroups: what images are grouped by, separated by commas; None = sex,age,view."""
    ages: str | None = None
    """Subgroups: years at which age bands begin, separated by commas; None = 20,40,60,80."""
    recalibrate: Literal["temperature"] | None = None
    """Calibration: how scores are recalibrated on validation; None = as trained."""


ONLY_FOR = {
    "difference": ("label-efficiency", "transfer"),
    "at": ("operating-points",),
    "prevalence": ("operating-points",),
    "by": ("subgroups",),
    "ages": ("subgroups",),
    "recalibrate": ("calibration",),
    "reference": ("ablation", "labels-saved"),
}
"""Options that mean something to some tables only, and those tables."""


def run(config: Config) -> None:
    """Build the table and write it."""
    from results.light import without_pandas

    without_pandas()
    from results.atomic import write_text
    from results.cells.options import Options, filters, words
    from results.cells.select import label_names
    from results.errors import InputError
    from results.stats.rescore import open_results
    from results.tables.registry import build
    from results.tables.render import render

    if not 0 <= config.digits <= 10 or config.limit < 1:
        raise InputError("--digits goes from 0 to 10, --limit from 1 up")
    for option, tables in ONLY_FOR.items():
        if getattr(config, option) is not None and config.name not in tables:
            raise InputError(f"--{option} is for the table {' and '.join(tables)}; {config.name} does not take it")
    if config.format not in ("latex", "siunitx") and (config.intervals == "below" or config.split is not None):
        name = "--split" if config.split is not None else "--intervals below"
        raise InputError(f"{name} is for --format latex and siunitx; {config.format} does not take it")
    results, warnings = open_results(config.inputs, config.level)
    for warning in warnings[:3]:
        print(f"note: {warning}", file=sys.stderr)
    if len(warnings) > 3:
        print(f"note: and {len(warnings) - 3} more of these (see `cxrdist collect`)", file=sys.stderr)
    options = Options(
        metric=config.metric,
        label=config.label,
        labels=label_names(words(config.labels)),
        rows=words(config.rows),
        columns=words(config.columns),
        where=filters(config.where, config.level),
        allow=words(config.allow),
        digits=config.digits,
        test=config.test,
        reference=config.reference,
        limit=config.limit,
        style=config.style,
        intervals=config.intervals,
        split=config.split,
        difference=config.difference,
        prevalence=config.prevalence,
        recalibrate=config.recalibrate,
        **_own_defaults(config),
    )
    text = render(build(config.name, results, options), config.format)
    if config.out is None:
        sys.stdout.write(text)
    else:
        from pathlib import Path

        write_text(Path(config.out), text)
        print(config.out)


def _own_defaults(config: Config) -> dict[str, Any]:
    """Options whose default is the table's own, as far as they were given."""
    from results.cells.options import words
    from results.errors import InputError

    given: dict[str, Any] = {}
    if config.at is not None:
        given["at"] = tuple(config.at.split())
    if config.by is not None:
        given["by"] = words(config.by)
    if config.ages is not None:
        try:
            given["ages"] = tuple(float(word) for word in words(config.ages))
        except ValueError as error:
            raise InputError(f"--ages {config.ages}: years separated by commas, e.g. 18,40,65") from error
    return given
