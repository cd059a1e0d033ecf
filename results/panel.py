"""Predictions of one run on one split of one data set as matrices: N images (rows, by key) x L labels (columns)."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import dataset_names
from results.collect import predictions_beside
from results.errors import InputError
from results.schema import read_predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """Scores and truths, ready for statistics."""

    dataset: str
    """Name of the shard set."""
    split: str
    """train, val or test."""
    keys: np.ndarray
    """Sample keys, sorted, (N,) of str."""
    patients: np.ndarray
    """Patient of each sample, int64 codes (N,), numbered by sorted patient name."""
    labels: tuple[str, ...]
    """Names of the L columns."""
    truth: np.ndarray
    """int8 (N, L): 1, 0, or -1 where the label policy leaves the sample out."""
    score: np.ndarray
    """float64 (N, L), probabilities."""

    def column(self, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth as bool, score and patients of the samples that count for `label`.

        Raises:
            InputError: there is no such label.
        """
        if label not in self.labels:
            raise InputError(f"no predictions for label {label!r}; there are: {', '.join(self.labels)}")
        j = self.labels.index(label)
        kept = self.truth[:, j] >= 0
        return self.truth[kept, j] == 1, self.score[kept, j], self.patients[kept]

    def only(self, labels: Sequence[str]) -> Panel:
        """The same samples with some of the labels, in the order given."""
        columns = [self.labels.index(label) for label in labels]
        return dataclasses.replace(
            self, labels=tuple(labels), truth=self.truth[:, columns], score=self.score[:, columns]
        )


def load_panel(source: str, dataset: str, content: str | None = None) -> Panel | str:
    """The test predictions beside a metrics file, or why there are none.

    Args:
        source: the metrics file, as a collected table names it.
        dataset: the test set's name there.
        content: its hash there, `test_dataset_hash`.
    """
    path = predictions_beside(source)
    if path is None:
        return "predictions not found"
    try:
        held = panels(read_predictions(path), "test")
        name = dataset_names.in_run(dataset, content, (name for name, _ in held))
        return "predictions not found" if name is None else held[name, "test"]
    except InputError:
        return "predictions not readable"


def panels(predictions: pa.Table, split: str | None = None) -> dict[tuple[str, str], Panel]:
    """The panel of every (dataset, split) in a predictions table of one run, sorted by name.

    Args:
        predictions: a table of `schema.PREDICTIONS`.
        split: only this split; None takes all.

    Raises:
        InputError: several runs in one table, or a sample that is scored twice for one label.
    """
    runs = pc.unique(predictions["run"])
    if len(runs) > 1:
        raise InputError(f"predictions of {len(runs)} runs in one table ({runs[0]}, {runs[1]} ...); give one at a time")
    if split is not None:
        predictions = predictions.filter(pc.equal(predictions["split"], split))
    pairs = sorted(
        (row["dataset"], row["split"]) for row in predictions.group_by(["dataset", "split"]).aggregate([]).to_pylist()
    )
    if len(pairs) == 1:
        return {pairs[0]: _panel(predictions, *pairs[0])}
    out = {}
    for dataset, part in pairs:
        mask = pc.and_(pc.equal(predictions["dataset"], dataset), pc.equal(predictions["split"], part))
        out[dataset, part] = _panel(predictions.filter(mask), dataset, part)
    return out


def _panel(rows: pa.Table, dataset: str, split: str) -> Panel:
    where = f"predictions on {dataset} {split}"
    keys, key_codes = _codes(rows["key"], f"{where}: key")
    labels, label_codes = _codes(rows["label"], f"{where}: label")
    cells = key_codes * len(labels) + label_codes
    if len(cells) and np.bincount(cells).max() > 1:
        twice = np.sort(cells)[np.flatnonzero(np.diff(np.sort(cells)) == 0)[0]]
        raise InputError(f"{where}: key {keys[twice // len(labels)]} is scored more than once")
    truth = np.full(len(keys) * len(labels), -1, np.int8)
    score = np.full(len(keys) * len(labels), 0.0)
    truth[cells] = pc.fill_null(rows["y_true"], pa.scalar(-1, pa.int8())).to_numpy()
    score[cells] = rows["y_score"].to_numpy()
    names, patient_codes = _codes(rows["patient_id"], f"{where}: patient_id")
    patients = np.full(len(keys), -1)
    patients[key_codes] = patient_codes
    if (patients[key_codes] != patient_codes).any():
        raise InputError(f"{where}: one key belongs to two patients")
    shape = (len(keys), len(labels))
    return Panel(
        dataset=dataset,
        split=split,
        keys=keys,
        patients=patients,
        labels=tuple(labels.tolist()),
        truth=truth.reshape(shape),
        score=score.reshape(shape),
    )


def _codes(column: pa.ChunkedArray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values, and each row's place among them (int64)."""
    encoded = column.combine_chunks().dictionary_encode()
    if encoded.null_count:
        raise InputError(f"{where} is null in {encoded.null_count} rows")
    names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(str)
    order = np.argsort(names, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return names[order], place[encoded.indices.to_numpy(zero_copy_only=False)]
