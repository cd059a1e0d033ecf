"""`cxrdist plot`: a figure from collected results."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from results.figures.registry import FIGURES

if TYPE_CHECKING:
    FigureName = str
else:
    FigureName = Literal[tuple(FIGURES)]

HELP = "Make a figure from collected results."
POSITIONALS = ("name", "inputs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which figure, of which results."""

    name: FigureName
    """The figure."""
    inputs: list[str]
    """A file from `cxrdist collect`; or runs, or folders of runs, which are collected on the fly."""
    out: str | None = None
    """File to write, ending in .png, .pdf or .svg; None = NAME.png here."""
    metric: str | None = None
    """Metric, for figures of metrics; None = auroc."""
    label: str | None = None
    """One label; None = macro, or all labels."""
    labels: str | None = None
    """Labels that macro means go over and that panels show: names by commas, chexpert5 (CheXpert's competition
    tasks) or shared (the seven of NIH and CheXpert); None = all that the runs of a panel have."""
    columns: str | None = None
    """Column of the results, or key of the configuration (optim.lr), that lines stand for; None = init, and for figures
    of scores all that differ."""
    where: str | None = None
    """Filters with blanks between, e.g. "mode=full label_fraction=0.1"; a result must meet all.
    Keys of the configuration work too (optim.lr=0.001). None = no filter."""
    level: Literal["image", "study", "study_max"] | None = None
    """What is scored: image, study (the mean over a study's images) or study_max (their highest), made from
    the predictions where runs were not scored so; None = what the results hold, one or the other."""
    allow: str | None = None
    """What is refused unless asked for: splits, policies, levels (mixed on a test set), configs, sets, seeds (several
    configurations, test sets of one name, runs of one seed in one cell)."""
    difference: str | None = None
    """Forest: show differences to this initialisation (scratch); None = the values."""
    recalibrate: Literal["temperature"] | None = None
    """Calibration: how scores are recalibrated on validation; None = as trained."""


def run(config: Config) -> None:
    """Draw the figure, write it, print its caption."""
    from pathlib import Path

    from results.cells.options import Options, filters, words
    from results.cells.select import label_names
    from results.errors import InputError
    from results.figures.registry import draw
    from results.figures.style import FORMATS, save
    from results.stats.rescore import open_results

    out = Path(config.out or f"{config.name}.png")
    if out.suffix.removeprefix(".").lower() not in FORMATS:
        raise InputError(f"--out {out} must end in one of {', '.join('.' + form for form in FORMATS)}")
    for option, figure in (("difference", "forest"), ("recalibrate", "calibration")):
        if getattr(config, option) is not None and config.name != figure:
            raise InputError(f"--{option} is for the figure {figure}; {config.name} does not take it")
    results, warnings = open_results(config.inputs, config.level)
    if warnings:
        print(f"note: {warnings[0]}" + (f" (and {len(warnings) - 1} more)" if warnings[1:] else ""), file=sys.stderr)
    options = Options(
        metric=config.metric,
        label=config.label,
        labels=label_names(words(config.labels)),
        columns=words(config.columns),
        where=filters(config.where, config.level),
        allow=words(config.allow),
        difference=config.difference,
        recalibrate=config.recalibrate,
    )
    drawing = draw(config.name, results, options)
    save(drawing.figure, out)
    print(f"{out}: {drawing.caption}")
