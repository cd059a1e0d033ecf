from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shards.convert.splits import cut_by_patient, draw_groups, draw_stratified

patients_of_samples = st.lists(st.integers(0, 40).map(lambda n: f"p{n}"), min_size=2, max_size=200)


@given(patients_of_samples, st.floats(0.01, 0.5), st.floats(0.01, 0.4), st.integers(0, 5))
def test_no_patient_is_ever_in_two_splits(patients: list[str], val: float, test: float, seed: int) -> None:
    cut = cut_by_patient(patients, seed, val_fraction=val, test_fraction=test)
    homes: dict[str, set[str]] = {}
    for patient, split in zip(patients, cut, strict=True):
        homes.setdefault(patient, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())


@given(patients_of_samples, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_draw_takes_some_and_never_all_patients(patients: list[str], fraction: float, seed: int) -> None:
    drawn = draw_groups(patients, fraction, seed)
    if len(set(patients)) > 1:
        assert 0 < len(drawn) < len(set(patients))
    assert drawn == draw_groups(patients[::-1], fraction, seed)


def test_a_large_draw_comes_close_to_the_fraction() -> None:
    patients = [f"p{n // 3}" for n in range(9000)]
    cut = Counter(cut_by_patient(patients, 0, val_fraction=0.1, test_fraction=0.2))
    assert abs(cut["test"] - 1800) <= 3 and abs(cut["val"] - 900) <= 3


def test_another_seed_draws_other_patients() -> None:
    patients = [f"p{n}" for n in range(100)]
    assert draw_groups(patients, 0.2, 0) != draw_groups(patients, 0.2, 1)


def test_stratified_draw_takes_the_floor_of_each_class() -> None:
    classes = {f"n{i}": "NORMAL" for i in range(1349)} | {f"p{i}": "PNEUMONIA" for i in range(3883)}
    drawn = draw_stratified(classes, 0.2, 0)
    assert Counter(classes[name] for name in drawn) == {"NORMAL": 269, "PNEUMONIA": 776}
    assert len(classes) - len(drawn) == 4187 and len(drawn) == 1045
