"""What is bold: a cell that is significantly better than every other, tested on the same images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from results.cells.options import Options
from results.collect import predictions_beside
from results.tables.registry import build
from results.tables.render import render
from tests.results.grids import THRICE, grid, lines


def test_clear_winner_is_bold_and_equals_are_not(tmp_path: Path) -> None:
    good, bad = {"edema": 0.95, "mass": 0.95}, {"edema": 0.6, "mass": 0.6}
    clear = build(
        "label-efficiency",
        grid(tmp_path / "a", winner=THRICE | {"labels": good}, loser=THRICE | {"labels": bad}),
        Options(),
    )
    (row,) = lines(clear).values()
    assert row["winner"].best and not row["loser"].best
    assert any(note.startswith("Bold: significantly better than every other cell") for note in clear.notes)
    even = build(
        "label-efficiency", grid(tmp_path / "b", one=THRICE | {"labels": bad}, two=THRICE | {"labels": bad}), Options()
    )
    assert not any(cell.best for cell in lines(even).popitem()[1].values())
    assert any(note.startswith("Nothing is bold") for note in even.notes)
    assert "**" not in render(even, "markdown").split("\n", 1)[1]


def test_winner_must_beat_every_other_and_not_only_the_worst(tmp_path: Path) -> None:
    good, bad = {"edema": 0.9}, {"edema": 0.55}
    table = build(
        "label-efficiency",
        grid(tmp_path, **{name: THRICE | {"labels": held} for name, held in (("a", good), ("b", good), ("c", bad))}),
        Options(),
    )
    assert not any(cell.best for cell in lines(table).popitem()[1].values())


def test_without_predictions_nothing_is_bold_and_the_note_says_why(tmp_path: Path) -> None:
    results = grid(tmp_path, winner={"labels": {"edema": 0.95}}, loser={"labels": {"edema": 0.6}})
    for source in set(results["source"].to_pylist()):
        path = predictions_beside(source)
        assert path is not None
        path.unlink()
    table = build("label-efficiency", results, Options())
    assert not any(cell.best for cell in lines(table).popitem()[1].values())
    assert any("predictions not found" in note for note in table.notes)


def test_runs_tested_on_different_images_are_not_compared(tmp_path: Path) -> None:
    first = grid(tmp_path / "a", winner={"labels": {"edema": 0.95}})
    second = grid(tmp_path / "b", loser={"labels": {"edema": 0.6}, "n": {"val": 120, "test": 150}})
    table = build("label-efficiency", pa.concat_tables([first, second]), Options())
    assert not any(cell.best for cell in lines(table).popitem()[1].values())
    assert any("different images" in note for note in table.notes)


def test_many_tests_are_corrected(tmp_path: Path) -> None:
    labels = {"edema": 0.9, "mass": 0.9, "nodule": 0.9}
    worse = {name: 0.6 for name in labels}
    table = build(
        "per-class", grid(tmp_path, good=THRICE | {"labels": labels}, bad=THRICE | {"labels": worse}), Options()
    )
    (note,) = [note for note in table.notes if note.startswith("Bold")]
    assert "paired t test by patient and seed" in note and "Holm-corrected over 4 comparisons" in note
    assert [names[0] for names in table.row_names] == ["Edema", "Mass", "Nodule", "Macro mean"]
    assert table.row_titles == ("Pathology", "Positives")


def test_one_seed_is_never_bold_and_the_note_says_why(tmp_path: Path) -> None:
    good, bad = {"edema": 0.97}, {"edema": 0.6}
    for folder, seeds in (("a", (0,)), ("b", (0, 1, 2))):  # one seed on either side is enough
        grid(tmp_path / folder, loser={"labels": bad, "seeds": seeds})
        table = build("label-efficiency", grid(tmp_path / folder, winner={"labels": good}), Options())
        assert not any(cell.best for cell in lines(table).popitem()[1].values())
        assert "Nothing is bold. Cells of one seed are not tested" in " ".join(table.notes)
    grid(tmp_path / "c", scratch={"labels": bad})
    results = grid(tmp_path / "c", other={"labels": good})
    table = build("ablation", results, Options(rows=("init",), reference="scratch"))
    assert lines(table)[("other",)]["p"].text == "< 0.001" and not lines(table)[("other",)]["Difference"].best
    assert any("two trained models" in note for note in table.notes)
