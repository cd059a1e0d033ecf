"""Predictions by group of patients or images."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.schema import read_predictions
from results.stats.groups import Grouped, band_names, grouped
from tests.results import simulate


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A result row of a run whose patients have a sex and an age."""
    run = simulate.finetune(tmp_path_factory.mktemp("people"), people=True, history=False)
    return {"source": str(run.metrics), "test_dataset": "phantom", "test_dataset_hash": None, "level": "image"}


def table(row: dict) -> list[dict]:
    rows = read_predictions(Path(row["source"]).with_name("predictions.parquet")).to_pylist()
    return [one for one in rows if one["split"] == "test" and one["label"] == "edema"]


def test_a_group_holds_its_images_and_patients_keep_their_codes(row: dict) -> None:
    found = grouped(row, "view")
    assert isinstance(found, Grouped) and list(found.groups) == ["AP", "PA"]
    names = sorted({one["patient_id"] for one in table(row)})
    assert found.n_patients == len(names)
    for view, matrix in found.groups.items():
        wanted = {one["key"]: one for one in table(row) if one["view"] == view}
        assert set(matrix.keys) == set(wanted)
        assert [names[code] for code in matrix.patients] == [wanted[key]["patient_id"] for key in matrix.keys]
        column = matrix.labels.index("edema")
        assert matrix.score[:, column] == pytest.approx([wanted[key]["y_score"] for key in matrix.keys])


def test_age_bands_hold_the_ages_from_their_beginning(row: dict) -> None:
    found = grouped(row, "age", (40.0, 65.0))
    assert isinstance(found, Grouped) and list(found.groups) == ["below 40", "40 to 64", "65 and above"]
    ages = {one["key"]: one["age"] for one in table(row)}
    for name, low, high in (("below 40", 0, 40), ("40 to 64", 40, 65), ("65 and above", 65, 200)):
        held = [ages[key] for key in found.groups[name].keys]
        assert held and all(low <= age < high for age in held)
    assert found.unknown == sum(age is None for age in ages.values()) > 0


def test_predictions_that_do_not_say_it_are_told_as_that(tmp_path: Path) -> None:
    run = simulate.finetune(tmp_path, history=False)
    row = {"source": str(run.metrics), "test_dataset": "phantom", "test_dataset_hash": None}
    assert grouped(row, "sex") == "the predictions do not say sex"
    run.predictions.unlink()
    assert grouped(row, "sex") == "predictions not found"


def test_the_names_of_bands_say_whole_years() -> None:
    assert band_names((20, 40, 60, 80)) == ["below 20", "20 to 39", "40 to 59", "60 to 79", "80 and above"]
    assert band_names((18,)) == ["below 18", "18 and above"]
