"""Figures: the curves are right, every figure is drawn in every format, and bad requests are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from results.cells.display import FEW_MARK
from results.cells.options import Options
from results.collect import collect, predictions_beside
from results.errors import InputError
from results.figures import bands, calibration, precision_recall, roc, threshold_sweep
from results.figures.registry import FIGURES, draw
from results.figures.scores import GRID, Scores
from results.figures.style import COLOURS, encode, save
from results.stats.effects import TOO_FEW
from results.tables.registry import build
from tests.results import simulate


def sample(seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < 0.3
    return truth, np.round(np.clip(0.3 * truth + 0.7 * generator.random(n), 0, 1), 2)


def test_roc_curve_equals_scikit_learn() -> None:
    truth, score = sample()
    fpr, tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    (found,) = roc.roc_curve(truth, score, np.ones((1, len(truth)), np.int32))
    inner = (GRID > 0.01) & (GRID < 0.99)
    assert found[inner] == pytest.approx(np.interp(GRID, fpr, tpr)[inner], abs=1e-9)
    assert np.trapezoid(found, GRID) == pytest.approx(sk.roc_auc_score(truth, score), abs=0.005)


def test_weighted_curves_equal_curves_of_repeated_images() -> None:
    truth, score = sample(1, 60)
    weights = np.random.default_rng(0).integers(0, 3, (4, 60)).astype(np.int32)
    for curve in (roc.roc_curve, precision_recall.precision_recall_curve):
        found = curve(truth, score, weights)
        for row, weight in zip(found, weights, strict=True):
            chosen = np.repeat(np.arange(60), weight)
            (expected,) = curve(truth[chosen], score[chosen], np.ones((1, len(chosen)), np.int32))
            assert row == pytest.approx(expected, abs=1e-9)


def test_precision_at_a_recall_is_that_of_the_highest_threshold_which_reaches_it() -> None:
    truth, score = sample(2)
    (found,) = precision_recall.precision_recall_curve(truth, score, np.ones((1, len(truth)), np.int32))
    for place in (10, 50, 90):
        cut = max(s for s in score if (score[truth] >= s).mean() >= GRID[place] - 1e-12)
        assert found[place] == pytest.approx(truth[score >= cut].mean())


def test_sweep_equals_counts_at_each_threshold() -> None:
    truth, score = sample(3)
    lines = threshold_sweep.sweep(truth, score)
    for place in (0, 30, 55, 70):
        called = score >= GRID[place]
        expected = [
            sk.recall_score(truth, called),
            sk.recall_score(~truth, ~called),
            sk.balanced_accuracy_score(truth, called),
            truth[called].mean(),
            sk.f1_score(truth, called),
        ]
        assert lines[:, place] == pytest.approx(expected)


def test_reliability_equals_scikit_learns_calibration_curve() -> None:
    from sklearn.calibration import calibration_curve

    truth, score = sample(4)
    score = np.clip(score - 1e-6, 0, 1)  # the two put a score on an edge into different bins
    run = Scores(truth=truth, score=score, patients=np.arange(len(truth)), threshold=None)
    bins = calibration.reliability([run])
    share, mean = calibration_curve(truth, score, n_bins=10)
    assert bins.score == pytest.approx(mean) and bins.share == pytest.approx(share)
    assert (bins.low <= bins.share).all() and (bins.high >= bins.share).all()
    assert bins.images == pytest.approx(np.histogram(score, np.linspace(0, 1, 11))[0][bins.place])


@pytest.mark.parametrize("name", FIGURES)
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
    from results.tables.registry import build

    (axis,) = draw("label-efficiency", results).figure.get_axes()
    table = build("label-efficiency", results, Options(test=False))
    for column, name in enumerate(table.column_names):
        (line,) = [line for line in axis.get_lines() if line.get_label() == name]
        cells = [row[column] for row in table.cells]
        assert list(line.get_ydata()) == pytest.approx([cell.value for cell in cells if cell])  # type: ignore[arg-type]


def test_every_interval_lies_inside_the_axes(results: pa.Table, tmp_path: Path) -> None:
    simulate.finetune(tmp_path, labels={"edema": 0.7}, n={"val": 60, "test": 40}, history=False)
    for table in (results, collect(tmp_path)[0]):
        cells = [cell for line in build("label-efficiency", table, Options(test=False)).cells for cell in line if cell]
        for axis in draw("label-efficiency", table).figure.get_axes():
            bottom, top = axis.get_ylim()
            assert all(cell.low is not None and cell.high is not None for cell in cells)
            assert bottom <= min(cell.low or 0 for cell in cells) and top >= max(cell.high or 1 for cell in cells)


def test_one_seed_looks_less_certain_than_several(results: pa.Table, tmp_path: Path) -> None:
    for fraction in (0.1, 1.0):
        simulate.finetune(tmp_path, label_fraction=fraction, history=False)
    (axis,) = (drawing := draw("label-efficiency", collect(tmp_path)[0])).figure.get_axes()
    (line,) = [line for line in axis.get_lines() if line.get_label() == "Scratch"]
    assert line.get_markerfacecolor() == "white" and (line.get_alpha() or 1) < 1
    assert not [area for area in axis.collections if "Fill" in type(area).__name__]
    assert "Hollow, with dotted bars: one trained model" in drawing.caption
    several = draw("label-efficiency", results)
    assert any("Fill" in type(area).__name__ for area in several.figure.get_axes()[0].collections)
    assert "Hollow" not in several.caption


def test_the_axis_says_when_values_are_means_over_labels(results: pa.Table) -> None:
    for options, title in (
        (Options(), "Macro AUROC"),
        (Options(label="edema"), "AUROC"),
        (Options(labels=("edema",)), "AUROC of edema"),
        (Options(metric="balanced_accuracy"), "Macro balanced accuracy"),
    ):
        assert draw("label-efficiency", results, options).figure.get_axes()[0].get_ylabel() == title


def test_legends_of_curves_carry_the_value_and_interval_of_the_table(results: pa.Table) -> None:
    cells = build("per-class", results, Options(where=("label_fraction=1", "label=edema"), test=False)).cells[0]
    (axis,) = draw("roc", results, Options(label="edema")).figure.get_axes()
    legend = axis.get_legend()
    assert legend is not None
    held = [text.get_text() for text in legend.get_texts()]
    wanted = [f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]" for cell in cells if cell]
    assert held == [f"{name} {text}" for name, text in zip(("Scratch", "ImageNet", "simclr:nih"), wanted, strict=True)]


def few(positives: int, *, hit: bool = True, negatives: int = 40) -> Scores:
    """A test set of this many positives, each a patient, all of them above (or among) the negatives."""
    truth = np.arange(positives + negatives) < positives
    score = np.linspace(0.1, 0.6, len(truth))
    score[truth] = np.linspace(0.9, 0.95, positives) if hit else np.linspace(0.15, 0.55, positives)
    return Scores(truth=truth, score=score, patients=np.arange(len(truth)), threshold=None)


CURVES = {
    "roc": (roc.roc_curve, roc._positives),
    "precision-recall": (precision_recall.precision_recall_curve, precision_recall._called),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_of_too_few_patients_have_no_band(name: str) -> None:
    for run, banded in ((few(2), False), (few(3, negatives=6), False), (few(40, negatives=2), False), (few(3), True)):
        found = bands.band([run], *CURVES[name])
        assert np.isfinite(found.value).all()
        assert np.isfinite(found.low[-20:]).all() == np.isfinite(found.high[-20:]).any() == banded


def test_three_positives_that_are_all_found_leave_a_band_as_wide_as_wilsons_interval() -> None:
    from scipy.stats import binomtest

    found = bands.band([few(3)], *CURVES["roc"])
    expected = binomtest(3, 3).proportion_ci(method="wilson")
    assert found.value == pytest.approx(1) and found.high == pytest.approx(1)
    assert found.low[1:-1] == pytest.approx(expected.low, abs=1e-6), "resamples are all alike and say nothing"
    assert found.low[-1] == pytest.approx(1), "at a false positive rate of 1 every curve ends"
    found = bands.band([few(3)], *CURVES["precision-recall"])
    assert found.low[67:] == pytest.approx(expected.low, abs=1e-6)
    assert np.isnan(found.low[:67]).all(), "one and two found positives say too little"


def test_bands_grow_with_the_spread_over_seeds_and_count_patients_not_images() -> None:
    truth, _ = sample(5)
    noise = np.random.default_rng(6).normal(size=(4, len(truth)))

    def width(strengths: tuple[float, ...], images: int = 1, patients: int = 1) -> float:
        """Mean width where every image is there so often, as images of one patient or of several."""
        runs = [
            Scores(
                truth=np.repeat(truth, images),
                score=np.repeat(1 / (1 + np.exp(-(noise[0] + 0.1 * noise[i + 1] + s * truth))), images),
                patients=np.arange(len(truth) * images) // (images // patients),
                threshold=None,
            )
            for i, s in enumerate(strengths)
        ]
        found = bands.band(runs, *CURVES["roc"])
        assert (found.low <= found.value + 1e-12).all() and (found.value <= found.high + 1e-12).all()
        return float((found.high - found.low)[10:60].mean())

    alone = width((1.0,))
    assert width((1.0, 1.0, 1.0)) == pytest.approx(alone, rel=0.15), "seeds that answer alike are one trained model"
    assert width((0.2, 1.0, 1.8)) > 1.5 * alone
    assert width((1.0,), images=4) == pytest.approx(alone, rel=0.15), "the same picture four times says no more"
    assert width((1.0,), images=4, patients=4) < 0.7 * alone


def test_a_label_of_too_few_positives_is_marked_and_has_no_band(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        simulate.finetune(tmp_path, seed=seed, labels={"edema": 0.8}, n={"val": 60, "test": 9}, history=False)
    for name in CURVES:
        drawing = draw(name, collect(tmp_path)[0])
        (axis,) = drawing.figure.get_axes()
        legend = axis.get_legend()
        assert legend is not None and FEW_MARK in legend.get_texts()[0].get_text()
        assert "[" not in legend.get_texts()[0].get_text()
        assert f"{FEW_MARK} No band and no interval: {TOO_FEW}" in drawing.caption
        assert not any(np.isfinite(path.vertices).any() for area in axis.collections for path in area.get_paths())


def test_an_ece_has_no_interval_in_any_table_or_figure(results: pa.Table) -> None:
    place = results.column_names.index("ci_low")
    forged = results.set_column(
        place, "ci_low", pa.array([0.0] * len(results), pa.float64())
    )  # as earlier versions did
    forged = forged.set_column(place + 1, "ci_high", pa.array([1.0] * len(results), pa.float64()))
    for name in ("label-efficiency", "per-class"):
        where = ("label_fraction=1",) if name == "per-class" else ()
        for table in (results, forged):
            made = build(name, table, Options(metric="ece", where=where))
            cells = [cell for line in made.cells for cell in line if cell]
            assert cells and all(cell.value is not None and cell.low is None and not cell.best for cell in cells)
            assert any("ECE has no interval and no test" in note for note in made.notes)
            drawing = draw(name, table, Options(metric="ece", where=where))
            assert not any(axis.collections for axis in drawing.figure.get_axes()), "no band, no bar"
            assert "no interval" in drawing.caption
    drawing = draw("calibration", results)
    (legend,) = drawing.figure.legends
    assert all("ECE 0." in text.get_text() and "[" not in text.get_text() for text in legend.get_texts())
    assert "ECE over 15 bins, mean over labels and seeds, has no interval" in drawing.caption


def test_calibration_bins_have_intervals_at_zero_and_one_and_count_their_images() -> None:
    score = np.repeat([0.05, 0.55, 0.95], [40, 40, 40])
    truth = np.repeat([False, True, True], [40, 40, 40])
    truth[40:60] = False
    alone = calibration.reliability([Scores(truth=truth, score=score, patients=np.arange(120), threshold=None)])
    assert alone.images.tolist() == [40, 40, 40] and alone.place.tolist() == [0, 5, 9]
    assert alone.share == pytest.approx([0, 0.5, 1])
    # Wilson by hand: n / (n + z^2) is the lower end of 1, and 0.5 -+ z sqrt(n / 4 + z^2 / 4) / (n + z^2)
    z2 = 1.959963984540054**2
    assert alone.low[2] == pytest.approx(40 / (40 + z2)) and alone.high[0] == pytest.approx(z2 / (40 + z2))
    few = calibration.reliability([Scores(truth=truth, score=score, patients=np.arange(120) // 10, threshold=None)])
    assert few.low[2] == pytest.approx(4 / (4 + z2)), "four patients, not forty images"
    twice = calibration.reliability([Scores(truth=truth, score=score, patients=np.arange(120), threshold=None)] * 2)
    assert twice.low == pytest.approx(alone.low, abs=1e-3), "another seed on the same patients adds no patients"


def test_score_figures_want_predictions_and_one_test_set(tmp_path: Path) -> None:
    simulate.finetune(tmp_path, train_dataset="nih", test_datasets=("nih", "chexpert"), intervals=False)
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
