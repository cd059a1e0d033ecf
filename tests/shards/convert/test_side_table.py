"""Tables beside the one of images are joined by their keys as Python would, and contradictions in them are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from shards import InputError
from shards.convert import rows, spill
from shards.convert.boxes import gather_boxes, of_samples
from shards.convert.readings import READER, by_reader, unite
from shards.convert.rows import gather, split_off
from shards.convert.sample import Sample
from shards.convert.side_table import Entry, SideTable, labels_schema, side_table

PATH = Path("labels.csv")


def labels_of(entries: Sequence[Entry]) -> SideTable:
    return side_table(PATH, entries, labels_schema(["edema", "mass"]), named="study", other="other labels")


def images(count: int) -> pa.Table:
    """Two images a study."""
    samples = (Sample(source=f"{n}.png", key=str(n), split="train", study_id=f"s{n // 2}") for n in range(count))
    return gather(samples, ["edema", "mass"])


@pytest.mark.parametrize("in_files", [False, True])
def test_labels_of_studies_come_to_their_images(
    in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "KEPT", 50)
    monkeypatch.setattr(spill, "BATCH", 40)
    monkeypatch.setattr(rows, "_FEW", 64)
    values: dict[str, tuple[int | None, ...]] = {f"s{n}": ((0, 1, -1, None)[n % 4], n % 2) for n in range(0, 600, 3)}
    entries = [(line, key, value) for line, (key, value) in enumerate(reversed(values.items()), start=2)]
    with spill.spilling(tmp_path if in_files else None):
        joined, known = labels_of(entries).joined(images(1000), "study_id")
        found = joined.select(["study_id", "label_edema", "label_mass"]).to_pydict()
    studies = [f"s{n // 2}" for n in range(1000)]
    assert found["study_id"] == studies and known.tolist() == [study in values for study in studies]
    assert found["label_edema"] == [values.get(study, (None, None))[0] for study in studies]
    assert found["label_mass"] == [values.get(study, (None, None))[1] for study in studies]


def test_a_row_that_repeats_another_is_no_matter_and_one_that_contradicts_is_named_with_its_line() -> None:
    entries: list[Entry] = [(2, "a", (1, None)), (3, "b", (0, 0)), (4, "a", (1, None))]
    assert labels_of(entries).keys.to_pylist() == ["a", "b"]
    for other in ((0, None), (1, 0), (None, None)):
        with pytest.raises(InputError, match=r"^labels.csv, line 5: study a has another row with other labels$"):
            labels_of([*entries, (5, "a", other)])


def test_keys_that_no_image_has_are_told() -> None:
    found = labels_of([(2, "s1", (1, 1)), (3, "s9", (0, 0)), (4, "s0", (0, 1))])
    assert found.unused(images(4), "study_id").to_pylist() == ["s9"]


def test_rows_of_one_reader_are_one_and_readers_may_differ() -> None:
    samples = [
        Sample(source="a.png", key="a", split="train", labels={"mass": value}, beside={READER: reader})
        for reader, value in (("R1", 0), ("R2", 1), ("R1", 1))
    ]
    table = gather(samples, ["mass"], [READER])
    each = unite(table, by=by_reader(table), where="t.csv", findings=True)
    assert each.select([READER, "label_mass"]).to_pylist() == [
        {READER: "R1", "label_mass": 1}, {READER: "R2", "label_mass": 1},
    ]  # fmt: skip
    assert unite(each, where="t.csv", readers="all")["label_mass"].to_pylist() == [1]


def test_a_reason_in_any_row_of_an_image_leaves_it_out() -> None:
    samples = [
        Sample(source=name, key=name, split="", beside={"why": why})
        for name, why in (("a", None), ("b", None), ("a", "no labels"), ("c", "lateral"))
    ]
    kept, others = split_off(unite(gather(samples, [], ["why"]), where="t.csv"), "why")
    assert kept["source"].to_pylist() == ["b"]
    assert others.to_pydict() == {"source": ["a", "c"], "reason": ["no labels", "lateral"]}


def test_boxes_of_kept_images_are_under_their_keys_in_order() -> None:
    boxes = [
        ("b", "mass", 5, 1, 2, 2),
        ("x", "mass", 0, 0, 1, 1),
        ("a", "nodule", 1, 1, 1, 1),
        ("b", "mass", 4, 9, 2, 2),
    ]
    table = pa.table({"source": ["b", "a"], "key": ["k1", "k2"]})
    assert [tuple(row.values()) for row in of_samples(gather_boxes(boxes), table).to_pylist()] == [
        ("k1", "mass", 4, 9, 2, 2), ("k1", "mass", 5, 1, 2, 2), ("k2", "nodule", 1, 1, 1, 1),
    ]  # fmt: skip
