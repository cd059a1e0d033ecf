"""How figures look: colours for colour-blind readers (Okabe and Ito 2008), distinct in grey by line and mark too."""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import atomic
from results.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), "-")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")

FORMATS = ("png", "pdf", "svg")

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "cxrdist",
    "savefig.facecolor": "white",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure and what a reader must know to read it."""

    figure: Figure
    """The matplotlib figure."""
    caption: str
    """What it shows, on which data, with which bands."""
    name: str = ""
    """The name it is asked for by; the registry knows it."""


MAX_SERIES = 14
"""Series of a figure that can be told apart: those beyond seven have the same colours with other marks and lines."""


def series_count(values: Sequence[Any], axis: str) -> int:
    """How many series there are.

    Raises:
        InputError: more than MAX_SERIES.
    """
    if len(values) > MAX_SERIES:
        raise InputError(
            f"{len(values)} values of {axis} are too many to distinguish; choose with --where (at most {MAX_SERIES})"
        )
    return len(values)


def colour(place: int) -> str:
    """Colour of the series at `place`; from the eighth they come again."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Mark of the series at `place`: those of one colour have different ones."""
    return MARKS[(place + place // len(COLOURS)) % len(MARKS)]


def hatch(place: int) -> str:
    """Hatching of the series at `place`: those of one colour have different ones."""
    return HATCHES[(place + place // len(COLOURS)) % len(HATCHES)]


def line_style(place: int, mark: str | None = None) -> dict[str, Any]:
    """Colour, line and mark of the series at `place`; `mark` replaces its own."""
    line = LINES[(place + 2 * (place // len(COLOURS))) % len(LINES)]
    return {"color": colour(place), "linestyle": line, "marker": marker(place) if mark is None else mark}


def thinned(places: Sequence[float], labels: Sequence[str], width: float, *, log: bool = False) -> list[str]:
    """Tick labels of an axis without those that would touch the next one; the last always stays.

    Args:
        places: of the ticks, ascending.
        labels: what stands at them.
        width: of the axis between the first and the last tick, inches.
        log: whether the axis is logarithmic.
    """
    scaled = [math.log(place) for place in places] if log else list(places)
    span = max(scaled[-1] - scaled[0], 1e-12)
    kept, right = [], math.inf
    for place, label in zip(reversed(scaled), reversed(labels), strict=True):
        centre, half = (place - scaled[0]) / span * width, 0.5 * len(label) * _LETTER
        fits = centre + half + _LETTER <= right
        kept.append(label if fits else "")
        right = centre - half if fits else right
    return kept[::-1]


_LETTER = 0.62 * 8 / 72
_LEGEND = 8  # points


def wrapped(label: str, width: float, size: float = _LEGEND) -> str:
    """A legend's entry in lines that fit into `width` inches, for text of `size` points beside a line of 0.4 inches."""
    return "\n".join(textwrap.wrap(label, max(10, int((width - 0.4) * 72 / (0.5 * size))), break_on_hyphens=False))


"""Width of a letter of a tick label, inches."""


@contextmanager
def styled() -> Iterator[None]:
    """The house style, for drawing and for saving."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def canvas(count: int, *, width: float = 3.3, height: float = 2.7, across: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most `across` side by side; widths and heights in inches per panel."""
    from matplotlib.figure import Figure

    columns = min(across, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 4.2), height * lines + 0.35), layout="constrained")
    axes = [figure.add_subplot(lines, columns, place + 1) for place in range(count)]
    return figure, axes


def stacked(*, width: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure with panels above one another that share their horizontal axis; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, sum(heights) + 0.35), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=list(heights))
    axes = [figure.add_subplot(grid[0])]
    axes += [figure.add_subplot(grid[place], sharex=axes[0]) for place in range(1, len(heights))]
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    return figure, axes


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, without repeats."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(wrapped(label, figure.get_figwidth()), handle)
    if entries:
        longest = max(len(line) for entry in entries for line in entry.split("\n"))
        columns = max(1, min(4, len(entries), int(figure.get_figwidth() * 14 / (longest + 8))))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def encode(figure: Figure, form: str) -> bytes:
    """The figure as PNG (300 dots per inch), PDF or SVG; equal figures give equal bytes.

    Raises:
        InputError: another format.
    """
    if form not in FORMATS:
        raise InputError(f"cannot write .{form} figures; there are {', '.join(FORMATS)}")
    stamp: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    out = io.BytesIO()
    with styled():
        figure.savefig(out, format=form, dpi=300 if form == "png" else 72, metadata=stamp)
    return out.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's name ends in.

    Raises:
        InputError: another format, or the file cannot be written.
    """
    atomic.write_bytes(path, encode(figure, path.suffix.removeprefix(".").lower()))
