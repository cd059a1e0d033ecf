"""Figures: the curves are right, every figure is drawn in every format, and bad requests are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from results import curves, thresholds
from results.collect import collect, predictions_beside
from results.errors import InputError
from results.figures import NAMES, draw
from results.options import Options
from results.scores import Scores
from results.style import COLOURS, encode, save
from tests.results import simulate


def sample(seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < 0.3
    return truth, np.round(np.clip(0.3 * truth + 0.7 * generator.random(n), 0, 1), 2)


def test_roc_curve_equals_scikit_learn() -> None:
    truth, score = sample()
    fpr, tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    (found,) = curves.roc_curve(truth, score, np.ones((1, len(truth)), np.int32))
    inner = (curves.GRID > 0.01) & (curves.GRID < 0.99)
    assert found[inner] == pytest.approx(np.interp(curves.GRID, fpr, tpr)[inner], abs=1e-9)
    assert np.trapezoid(found, curves.GRID) == pytest.approx(sk.roc_auc_score(truth, score), abs=0.005)


def test_weighted_curves_equal_curves_of_repeated_images() -> None:
    truth, score = sample(1, 60)
    weights = np.random.default_rng(0).integers(0, 3, (4, 60)).astype(np.int32)
    for curve in (curves.roc_curve, curves.precision_recall_curve):
        found = curve(truth, score, weights)
        for row, weight in zip(found, weights, strict=True):
            chosen = np.repeat(np.arange(60), weight)
            (expected,) = curve(truth[chosen], score[chosen], np.ones((1, len(chosen)), np.int32))
            assert row == pytest.approx(expected, abs=1e-9)


def test_precision_at_a_recall_is_that_of_the_highest_threshold_which_reaches_it() -> None:
    truth, score = sample(2)
    (found,) = curves.precision_recall_curve(truth, score, np.ones((1, len(truth)), np.int32))
    for place in (10, 50, 90):
        cut = max(s for s in score if (score[truth] >= s).mean() >= curves.GRID[place] - 1e-12)
        assert found[place] == pytest.approx(truth[score >= cut].mean())


def test_sweep_equals_counts_at_each_threshold() -> None:
    truth, score = sample(3)
    lines = thresholds.sweep(truth, score)
    for place in (0, 30, 55, 70):
        called = score >= curves.GRID[place]
        expected = [
            sk.recall_score(truth, called),
            sk.recall_score(~truth, ~called),
            truth[called].mean(),
            sk.f1_score(truth, called),
        ]
        assert lines[:, place] == pytest.approx(expected)


def test_reliability_equals_scikit_learns_calibration_curve() -> None:
    from sklearn.calibration import calibration_curve

    truth, score = sample(4)
    score = np.clip(score - 1e-6, 0, 1)  # the two put a score on an edge into different bins
    run = Scores(truth=truth, score=score, patients=np.arange(len(truth)), threshold=None)
    bins = thresholds.reliability([run])
    share, mean = calibration_curve(truth, score, n_bins=10)
    assert bins.score == pytest.approx(mean) and bins.share == pytest.approx(share)
    assert (bins.low <= bins.share).all() and (bins.high >= bins.share).all()
    assert bins.images == pytest.approx(np.histogram(score, np.linspace(0, 1, 11))[0][bins.place])


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_with_a_caption_that_names_its_data(name: str, results: pa.Table, tmp_path: Path) -> None:
    drawing = draw(name, results, Options(where=("label_fraction=1",) if name == "per-class" else ()))
    if name != "history":
        assert "phantom (split official, label policy ones/zeros)" in drawing.caption
    panels = drawing.figure.get_axes()
    assert panels and all(axis.has_data() for axis in panels)
    save(drawing.figure, tmp_path / f"{name}.png")
    image = (tmp_path / f"{name}.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_equal_figures_give_equal_bytes(form: str, start: bytes, results: pa.Table) -> None:
    first, second = (encode(draw("label-efficiency", results).figure, form) for _ in range(2))
    assert first == second and first.startswith(start)


def test_text_in_svg_and_pdf_stays_text(results: pa.Table) -> None:
    svg = encode(draw("label-efficiency", results).figure, "svg").decode()
    assert ">ImageNet<" in svg and ">10 %<" in svg


def test_lines_are_told_apart_by_colour_mark_and_dash(results: pa.Table) -> None:
    (axis,) = draw("label-efficiency", results).figure.get_axes()
    lines = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    assert len(lines) == 3
    for trait in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, trait)() for line in lines}) == 3


def test_colours_differ_in_grey_or_for_red_green_blindness() -> None:
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    deuteranopia = np.array([[0.625, 0.375, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]])
    seen = rgb @ deuteranopia.T
    gaps = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.1


def test_points_of_the_label_efficiency_figure_are_the_tables_values(results: pa.Table) -> None:
    from results.tables import build

    (axis,) = draw("label-efficiency", results).figure.get_axes()
    table = build("label-efficiency", results, Options(test=False))
    for column, name in enumerate(table.column_names):
        (line,) = [line for line in axis.get_lines() if line.get_label() == name]
        cells = [row[column] for row in table.cells]
        assert list(line.get_ydata()) == pytest.approx([cell.value for cell in cells if cell])  # type: ignore[arg-type]


def test_score_figures_want_predictions_and_one_test_set(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, train_dataset="nih", test_datasets=("nih", "chexpert"), n_boot=0)
    table, _ = collect(tmp_path)
    with pytest.raises(InputError, match="choose with --where test_dataset=chexpert"):
        draw("roc", table)
    assert draw("roc", table, Options(where=("test_dataset=nih",))).figure.get_axes()
    path = predictions_beside(table["source"][0].as_py())
    assert path is not None
    path.unlink()
    with pytest.raises(InputError, match="predictions not found"):
        draw("roc", table, Options(where=("test_dataset=nih",)))


def test_unknown_figures_and_formats_are_refused(results: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label-efficiency, data-scaling"):
        draw("pie", results)
    with pytest.raises(InputError, match="png, pdf, svg"):
        save(draw("confusion", results).figure, tmp_path / "figure.gif")
