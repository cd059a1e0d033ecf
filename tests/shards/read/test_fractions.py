"""Label fractions: whole patients, nested, with every label's prevalence, and hashed."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import InputError
from shards.read.fractions import fraction_manifest, read_manifest
from shards.read.index import Index

FRACTIONS = (0.01, 0.1, 0.25, 0.5, 1.0)


def population(path: Path, patients: np.ndarray, labels: dict[str, np.ndarray], n_test: int = 0) -> Index:
    """An index of samples with the given patients and labels; the last `n_test` are the test split."""
    n = len(patients)
    columns = {
        "key": [f"k{i:06d}" for i in range(n)],
        "split": ["train"] * (n - n_test) + ["val"] * n_test,
        "patient_id": [f"p{patient}" for patient in patients],
        "shard": ["train-000000.tar"] * n,
        "offset": np.arange(n),
        "size": np.ones(n, np.int32),
    }
    columns |= {f"label_{name}": np.asarray(values, np.int8) for name, values in labels.items()}
    pq.write_table(pa.table(columns), path)
    return Index.open(path)


def long_tailed(path: Path, n: int, persons: int) -> Index:
    """Samples of patients with long-tailed image counts and labels that run in patients; a tenth is the test split."""
    rng = np.random.default_rng(0)
    images = np.minimum(rng.geometric(0.3, persons), 60)
    patients = np.repeat(np.arange(persons), images)[:n]
    ill = rng.random(persons)
    labels = {}
    for name, share in {"common": 0.3, "middling": 0.05, "rare": 0.01}.items():
        liable = rng.random(persons) < share * (0.5 + ill)
        labels[name] = np.where(liable[patients], rng.choice([1, 1, 0, -1], len(patients)), 0)
    return population(path, patients, labels, n_test=n // 10)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """8,000 samples of about 2,400 patients."""
    return long_tailed(tmp_path_factory.mktemp("drawn") / "index.parquet", 8000, 2400)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """2,000 samples of about 600 patients, for what is drawn from very often."""
    return long_tailed(tmp_path_factory.mktemp("few") / "index.parquet", 2000, 600)


@settings(max_examples=15, deadline=None)
@given(
    fractions=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_fractions_of_one_seed_are_nested_hold_whole_patients_and_the_asked_share(
    few: Index, fractions: list[float], seed: int
) -> None:
    rows = few.rows("train")
    patient = few.patient[rows]
    smaller: set[int] = set()
    for fraction in sorted(fractions):
        manifest = fraction_manifest(few, rows, fraction, seed)
        chosen = set(manifest.rows.tolist())
        assert smaller <= chosen <= set(rows.tolist())
        assert np.array_equal(manifest.rows, np.sort(manifest.rows)) and len(chosen) == len(manifest.keys)
        assert np.isin(patient, few.patient[manifest.rows]).sum() == len(chosen)
        most = np.bincount(patient).max()
        assert abs(len(chosen) - fraction * len(rows)) <= max(most / 2, most - fraction * len(rows))
        smaller = chosen


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    fraction=st.floats(0.001, 1.0),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_any_small_population_can_be_drawn_from(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], fraction: float, seed: int, data
) -> None:
    patients = np.repeat(np.arange(len(sizes)), sizes)
    values = data.draw(st.lists(st.sampled_from([1, 0, -1]), min_size=len(patients), max_size=len(patients)))
    path = tmp_path_factory.mktemp("small") / "index.parquet"
    index = population(path, patients, {"one": np.array(values)})
    manifest = fraction_manifest(index, index.rows("train"), fraction, seed)
    assert 1 <= manifest.n_patients <= len(sizes)
    assert np.isin(patients, patients[manifest.rows]).sum() == len(manifest.rows)


def test_everything_is_the_whole_split(drawn: Index) -> None:
    manifest = fraction_manifest(drawn, drawn.rows("train"), 1.0, 3)
    assert np.array_equal(manifest.rows, drawn.rows("train"))
    assert manifest.n_patients == len(np.unique(drawn.patient[drawn.rows("train")]))


def prevalence_errors(index: Index, fraction: float, seeds: range) -> np.ndarray:
    """Positives drawn minus positives expected, in units of the spread of a plain draw of single samples."""
    rows = index.rows("train")
    all_positive = (index.labels_matrix(None, rows) == 1).sum(axis=0)
    out = []
    for seed in seeds:
        chosen = fraction_manifest(index, rows, fraction, seed).rows
        found = (index.labels_matrix(None, chosen) == 1).sum(axis=0)
        spread = np.sqrt(all_positive * fraction * (1 - fraction))
        out.append((found - all_positive * fraction) / spread)
    return np.array(out)


def test_each_label_keeps_its_prevalence_far_better_than_by_chance(drawn: Index) -> None:
    """A plain draw of patients would spread by more than 1, as they bring several positives each."""
    for fraction, most in ((0.01, 0.6), (0.1, 0.6), (0.25, 0.6), (0.5, 0.6)):
        errors = prevalence_errors(drawn, fraction, range(6))
        assert np.sqrt((errors**2).mean()) < most, fraction


def test_patients_are_drawn_about_equally_often(drawn: Index) -> None:
    rows = drawn.rows("train")
    often = np.zeros(len(drawn), int)
    for seed in range(60):
        often[fraction_manifest(drawn, rows, 0.25, seed).rows] += 1
    first = rows[np.unique(drawn.patient[rows], return_index=True)[1]]
    spread = often[first]
    assert abs(spread.mean() - 15) < 0.5
    assert spread.std() < 1.2 * np.sqrt(60 * 0.25 * 0.75)


def test_seeds_differ_and_a_seed_repeats(drawn: Index) -> None:
    rows = drawn.rows("train")
    first, again, other = (fraction_manifest(drawn, rows, 0.1, seed) for seed in (5, 5, 6))
    assert first.sha256 == again.sha256 and first.keys == again.keys
    assert len(set(first.keys) & set(other.keys)) < 0.5 * len(first.keys)


def test_the_hash_is_that_of_the_sorted_keys(drawn: Index) -> None:
    manifest = fraction_manifest(drawn, drawn.rows("train"), 0.01, 0)
    text = "".join(f"{key}\n" for key in sorted(drawn.keys(manifest.rows)))
    assert manifest.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_comes_back_from_its_file(drawn: Index, tmp_path: Path) -> None:
    manifest = fraction_manifest(drawn, drawn.rows("train"), 0.01, 0)
    manifest.write(tmp_path / "manifest.json")
    back = read_manifest(tmp_path / "manifest.json", drawn)
    assert back.keys == manifest.keys and np.array_equal(back.rows, manifest.rows)
    assert (back.sha256, back.fraction, back.seed, back.n_patients) == (
        manifest.sha256,
        manifest.fraction,
        manifest.seed,
        manifest.n_patients,
    )


def test_a_manifest_that_was_edited_or_is_of_another_set_is_refused(drawn: Index, small_set, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifest = fraction_manifest(drawn, drawn.rows("train"), 0.01, 0)
    manifest.write(path)
    with pytest.raises(InputError, match="no sample"):
        read_manifest(path, Index.open(small_set[0]))
    path.write_text(path.read_text().replace(manifest.keys[0], "k007999"))
    with pytest.raises(InputError, match="do not match the recorded sha256"):
        read_manifest(path, drawn)
    path.write_text("{}")
    with pytest.raises(InputError, match="not a readable fraction manifest"):
        read_manifest(path, drawn)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(drawn: Index, fraction: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        fraction_manifest(drawn, drawn.rows("train"), fraction, 0)


def test_an_unknown_label_and_an_empty_split_are_refused(drawn: Index) -> None:
    with pytest.raises(InputError, match="no label 'gout'"):
        fraction_manifest(drawn, drawn.rows("train"), 0.1, 0, ["gout"])
    with pytest.raises(InputError, match="no samples"):
        fraction_manifest(drawn, np.empty(0, np.int64), 0.1, 0)


def test_one_percent_of_the_real_nih_labels_has_all_fourteen_at_their_prevalence(
    shared_data: Path, tmp_path: Path
) -> None:
    with open(shared_data / "nih" / "Data_Entry_2017_v2020.csv", newline="") as file:
        rows = [(row["Patient ID"], set(row["Finding Labels"].split("|"))) for row in csv.DictReader(file)]
    names = sorted(set.union(*(found for _, found in rows)) - {"No Finding"})
    labels = {name.lower(): np.array([name in found for _, found in rows]) for name in names}
    assert len(rows) == 112_120 and len(labels) == 14
    index = population(tmp_path / "index.parquet", np.array([int(patient) for patient, _ in rows]), labels)
    for fraction in FRACTIONS[:-1]:
        manifest = fraction_manifest(index, index.rows("train"), fraction, 0)
        assert abs(len(manifest.rows) / 112_120 / fraction - 1) < 0.02
        found = (index.labels_matrix(None, manifest.rows) == 1).sum(axis=0)
        expected = (index.labels_matrix() == 1).sum(axis=0) * fraction
        assert (np.abs(found - expected) < np.maximum(3, 0.02 * expected)).all()  # 2 hernias at 1 %, 9947 at most
