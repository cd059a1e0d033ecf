"""What a reader of a figure needs: labels that do not touch, series that differ, names, panels of one unit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from results.cells.options import Options
from results.collect import collect
from results.errors import InputError
from results.figures import confusion
from results.figures.registry import FIGURES, draw
from results.figures.scores import Scores
from results.figures.style import HATCHES, MAX_SERIES, hatch, line_style, styled, thinned
from tests.results import simulate


def collisions(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of tick labels of one axis that overlap where they are drawn."""
    with styled():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer, found = canvas.get_renderer(), []
        for panel in figure.get_axes():
            for axis in (panel.xaxis, panel.yaxis):
                low, high = sorted(axis.get_view_interval())
                margin = 1e-9 * (high - low)
                ticks = [tick for tick in axis.get_major_ticks() if low - margin <= tick.get_loc() <= high + margin]
                shown = [
                    label for tick in ticks for label in (tick.label1,) if label.get_text() and label.get_visible()
                ]
                boxes = [(label.get_text(), label.get_window_extent(renderer)) for label in shown]
                found += [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_tick_labels_of_every_figure_keep_apart(name: str, results: pa.Table) -> None:
    options = Options(where=("label_fraction=1",) if name == "per-class" else ())
    assert collisions(draw(name, results, options).figure) == []


LONG = " + ".join(f"simclr:a-hospital-s-own-{number}" for number in range(6))


@pytest.mark.parametrize("name", ["roc", "precision-recall", "label-efficiency", "calibration"])
def test_a_long_name_leaves_room_for_the_figure_and_stays_on_the_page(name: str, tmp_path: Path) -> None:
    """The names of ensembles are as long as those of their members together."""
    for init in ("scratch", LONG):
        simulate.finetune(tmp_path, init=init, history=False)
    with styled():
        figure = draw(name, collect(tmp_path)[0], Options(labels=("edema",))).figure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        legends = [*figure.legends, *(axis.get_legend() for axis in figure.get_axes() if axis.get_legend())]
        boxes = [legend.get_window_extent(canvas.get_renderer()) for legend in legends]
        panel = figure.get_axes()[0].get_window_extent(canvas.get_renderer())
    assert boxes and all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert panel.width > 0.3 * figure.bbox.width


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Nine shares of labels, some of them near each other, of nine initialisations at the largest."""
    folder = tmp_path_factory.mktemp("many")
    for share in (0.001, 0.0012, 0.0015, 0.01, 0.02, 0.1, 0.5, 0.75, 1.0):
        simulate.finetune(folder, label_fraction=share, n_labelled=round(112_120 * share), history=False)
    for number in range(8):
        simulate.finetune(folder, init=f"encoder{number}", n_labelled=112_120, history=False)
    return collect(folder)[0]


@pytest.mark.parametrize("name", ["label-efficiency", "data-scaling"])
def test_shares_of_labels_that_lie_near_each_other_keep_apart(name: str, many: pa.Table) -> None:
    figure = draw(name, many, Options(where=("init=scratch",))).figure
    assert collisions(figure) == []
    labels = [label.get_text() for label in figure.get_axes()[0].get_xticklabels()]
    if name == "label-efficiency":
        assert labels[-1] == "100 %" and "10 %" in labels and "" in labels


def test_labels_that_would_touch_the_next_are_left_out_from_the_right() -> None:
    assert thinned([1, 2, 3], ["a", "b", "c"], 3.0) == ["a", "b", "c"]
    assert thinned([0, 99, 100], ["start", "before", "end"], 2.0) == ["start", "", "end"]
    assert thinned([0.01, 0.9, 1.0], ["1 %", "90 %", "100 %"], 2.2, log=True) == ["1 %", "", "100 %"]
    assert thinned([5], ["5"], 2.0) == ["5"]


def test_more_than_seven_series_differ_in_more_than_colour(many: pa.Table) -> None:
    for name in ("forest", "label-efficiency", "per-class"):
        options = Options(where=("label_fraction=1",))
        (axis, *_) = draw(name, many, options).figure.get_axes()
        if name == "per-class":
            bars: list[Any] = list(axis.containers)
            looks = [(bar.patches[0].get_facecolor(), bar.patches[0].get_hatch()) for bar in bars]
        else:
            lines = [
                line for line in axis.get_lines() if not str(line.get_label()).startswith("_") and line.get_label()
            ]
            looks = [(line.get_color(), line.get_marker()) for line in lines]
        assert len(looks) == len(set(looks)) == 9, name
    styles = [tuple(map(str, line_style(place).values())) for place in range(MAX_SERIES)]
    assert len(set(styles)) == MAX_SERIES
    assert len({(place % 7, hatch(place)) for place in range(MAX_SERIES)}) == MAX_SERIES and len(HATCHES) == 7


def test_more_series_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    for number in range(MAX_SERIES + 1):
        simulate.finetune(tmp_path, init=f"e{number:02d}", history=False, n={"val": 40, "test": 40}, intervals=False)
    table = collect(tmp_path)[0]
    for name in ("forest", "label-efficiency", "per-class"):
        with pytest.raises(InputError, match="15 values of init are too many to distinguish; choose with --where"):
            draw(name, table)


def test_a_confusion_matrix_names_the_classes(results: pa.Table) -> None:
    one = draw("confusion", results, Options(label="edema")).figure.get_axes()[0]
    assert [label.get_text() for label in one.get_xticklabels()] == ["No edema", "Edema"]
    several = draw("confusion", results).figure.get_axes()[0]
    assert [label.get_text() for label in several.get_yticklabels()] == ["negative", "positive"]
    assert (one.get_xlabel(), one.get_ylabel()) == ("Predicted", "True")


def test_a_seed_without_a_threshold_does_not_thin_the_counts_of_the_others() -> None:
    truth, score = np.arange(10) < 4, np.linspace(1, 0, 10)
    one, other = (
        Scores(truth=truth, score=score, patients=np.arange(10), threshold=threshold) for threshold in (0.5, None)
    )
    assert confusion.mean_counts([one]).tolist() == confusion.mean_counts([one, other]).tolist()
    assert confusion.mean_counts([one, other]).sum() == pytest.approx(10)


def test_losses_of_pretraining_and_fine_tuning_have_panels_of_their_own(results: pa.Table, tmp_path: Path) -> None:
    panels = {axis.get_title(): axis for axis in draw("history", results).figure.get_axes()}
    assert {"loss (Fine-tuning)", "loss (Pretraining)", "lr", "val_auroc"} == set(panels)
    assert len(panels["loss (Pretraining)"].get_lines()) == 1
    simulate.finetune(tmp_path)
    alone = draw("history", collect(tmp_path)[0]).figure.get_axes()
    assert "loss" in {axis.get_title() for axis in alone}, "one kind needs no name"


def test_the_threshold_sweep_shows_balanced_accuracy(results: pa.Table) -> None:
    axis = draw("threshold-sweep", results).figure.get_axes()[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.get_lines()}
    mean = (lines["Sensitivity"] + lines["Specificity"]) / 2
    assert lines["Balanced accuracy"] == pytest.approx(mean)


def test_legends_of_curves_say_what_their_numbers_are(results: pa.Table) -> None:
    for name, title in (("roc", "AUROC"), ("precision-recall", "AUPRC")):
        legend = draw(name, results, Options(label="edema")).figure.get_axes()[0].get_legend()
        assert legend is not None and legend.get_title().get_text() == title
