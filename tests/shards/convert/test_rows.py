"""Rows as columns say what the same rows say as Python objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shards.convert.rows
from shards.convert.opener import FileOpener
from shards.convert.plan import build, leaves, shared_patients
from shards.convert.rows import among, first_of_each, gather, place, strings, without_repeats
from shards.convert.sample import Sample
from shards.convert.splits import cut_by_patient, cut_rows, draw_groups, draw_rows
from shards.errors import InputError

NAMES = st.lists(st.text(max_size=3), max_size=60)


@given(names=NAMES)
def test_first_of_each_is_true_where_a_set_would_grow(names: list[str]) -> None:
    seen: set[str] = set()
    wanted = [not (name in seen or seen.add(name)) for name in names]
    assert first_of_each(pa.array(names, pa.string())).tolist() == wanted
    assert first_of_each(pa.chunked_array([names[:7], names[7:]], pa.string())).tolist() == wanted


def test_equal_hashes_of_different_names_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.hash", lambda name: 7)
    found = first_of_each(pa.array(["a", "b", "a", "c"]))
    monkeypatch.undo()
    assert found.tolist() == [True, True, False, True]


@pytest.mark.parametrize("few", [1 << 16, 7, 1])  # batches of so many; with fewer others arrow's own way is taken
@given(names=NAMES, others=NAMES)
def test_among_and_place_say_what_python_says(few: int, names: list[str], others: list[str]) -> None:
    left, right = pa.chunked_array([names[:5], names[5:]], pa.string()), pa.array(others, pa.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.convert.rows, "_FEW", few)
        assert among(left, right).tolist() == [name in others for name in names]
        assert place(left, right).to_pylist() == [others.index(name) if name in others else None for name in names]


def test_names_of_one_hash_are_placed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.convert.rows, "_FEW", 1)
    monkeypatch.setattr(
        shards.convert.rows, "_hashes", lambda names: np.array([len(name) for name in names.to_pylist()])
    )
    assert place(pa.array(["b", "x", "aa"]), pa.array(["a", "b", "cc"])).to_pylist() == [1, None, None]
    assert place(pa.array(["a", "xyz"]), pa.array(["a", "b", "cc"])).to_pylist() == [0, None]


@settings(deadline=None)
@given(
    patients=st.lists(st.sampled_from("abcdefghijklmnop"), max_size=80),
    fraction=st.floats(0, 0.99),
    test=st.floats(0, 0.99),
    seed=st.integers(0, 9),
)
def test_splits_of_columns_are_the_splits_of_lists(
    patients: list[str], fraction: float, test: float, seed: int
) -> None:
    column = pa.array(patients, pa.string())
    drawn = draw_groups(patients, fraction, seed)
    assert draw_rows(column, fraction, seed).tolist() == [name in drawn for name in patients]
    cut = cut_by_patient(patients, seed, val_fraction=fraction, test_fraction=test)
    assert cut_rows(column, seed, val_fraction=fraction, test_fraction=test).to_pylist() == cut


def test_many_batches_gather_in_order_and_repeats_are_given_back() -> None:
    samples = [
        Sample(source=f"{n % 9000}.png", key=str(n), split="train", labels={"mass": n % 2}) for n in range(10_000)
    ]
    table = gather(samples, ["mass", "edema"])
    assert table["key"].to_pylist() == [str(n) for n in range(10_000)]
    assert table["label_edema"].null_count == 10_000 and table["label_mass"].to_pylist()[:3] == [0, 1, 0]
    kept, repeats = without_repeats(table, "source")
    assert kept["key"].to_pylist() == [str(n) for n in range(9000)]
    assert repeats["key"].to_pylist() == [str(n) for n in range(9000, 10_000)]
    assert strings(str(n) for n in range(10_000)).to_pylist() == table["key"].to_pylist()


@pytest.mark.parametrize(
    ("path", "out"),
    [("a/b.png", False), ("..a/b.png", False), ("a..b", False), ("../a", True), ("a/../b", True), ("a/..", True)]
    + [("/a", True), ("\\a", True), ("a\\..\\b", True), ("a\0b", True), ("a\n../b", False), ("a/\n/../b", True)],
)
def test_paths_that_lead_out_are_known(path: str, out: bool) -> None:
    assert leaves(pa.array(["x", path])).tolist() == [False, out]


def test_values_outside_the_allowed_ones_are_told_with_their_source() -> None:
    good: dict[str, Any] = {"split": "train", "view": "PA", "sex": "F"}
    for column, value in (("split", "dev"), ("view", "OBLIQUE"), ("sex", "X")):
        bad: dict[str, Any] = good | {column: value}
        samples = [Sample(source="a.png", key="a", **good), Sample(source="b.png", key="b", **bad)]
        with pytest.raises(InputError, match=f"b.png: {column} '{value}'"):
            build(samples, name="x", labels=["mass"], split_scheme="list", opener=FileOpener("/nowhere"))


def test_patients_in_two_splits_are_counted_per_pair() -> None:
    table = pa.table({"split": ["train", "train", "val", "test", "test"], "patient_id": ["a", "b", "b", "b", "a"]})
    assert shared_patients(table) == {"train/val": 1, "train/test": 2, "val/test": 1}
    assert np.array_equal(first_of_each(table["patient_id"]), [True, True, False, False, False])
