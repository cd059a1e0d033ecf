"""Predictions of one run on one split of one dataset as matrices: N images (rows, by key) x L labels (columns).

The one place where scores of images become scores of studies (`results.levels`): rows are studies then, and whoever
works with a matrix need not know.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results import dataset_names, levels
from results.collect import predictions_beside
from results.errors import InputError
from results.schema import read_predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreMatrix:
    """Scores and truths, ready for statistics."""

    dataset: str
    """Name of the shard set."""
    split: str
    """train, val or test."""
    keys: np.ndarray
    """Sample keys, sorted, (N,) of str; of studies: their ids, by patient."""
    patients: np.ndarray
    """Patient of each sample, int64 codes (N,), numbered by sorted patient name."""
    labels: tuple[str, ...]
    """Names of the L columns."""
    truth: np.ndarray
    """int8 (N, L): 1, 0, or -1 where the label policy leaves the sample out."""
    score: np.ndarray
    """float64 (N, L), probabilities."""
    level: str = levels.IMAGE
    """What a row is: an image or a study."""

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

    def only(self, labels: Sequence[str]) -> ScoreMatrix:
        """The same samples with some of the labels, in the order given."""
        columns = [self.labels.index(label) for label in labels]
        return dataclasses.replace(
            self, labels=tuple(labels), truth=self.truth[:, columns], score=self.score[:, columns]
        )


def load_scores(source: str, dataset: str, content: str | None = None, level: str = levels.IMAGE) -> ScoreMatrix | str:
    """The test predictions beside a metrics file, or why there are none.

    Args:
        source: the metrics file, as a collected table names it.
        dataset: the test set's name there.
        content: its hash there, `test_dataset_hash`.
        level: what its rows are to be, one of `levels.LEVELS`.
    """
    path = predictions_beside(source)
    if path is None:
        return "predictions not found"
    try:
        held = score_matrices(read_predictions(path, coded=True), "test", level)
        name = dataset_names.in_run(dataset, content, (name for name, _ in held))
        return "predictions not found" if name is None else held[name, "test"]
    except InputError:
        return "predictions not readable"


def score_matrices(
    predictions: pa.Table, split: str | None = None, level: str = levels.IMAGE
) -> dict[tuple[str, str], ScoreMatrix]:
    """The matrix of every (dataset, split) in a predictions table of one run, sorted by name.

    Args:
        predictions: a table of `schema.PREDICTIONS`; its text may be dictionaries.
        split: only this split; None takes all.
        level: one of `levels.LEVELS`; images that say no study are studies of their own.

    Raises:
        InputError: several runs in one table, a sample that is scored twice for one label, an unknown level.
    """
    if level not in levels.LEVELS:
        raise InputError(f"unknown level {level!r}; there are {', '.join(levels.LEVELS)}")
    runs = pc.unique(predictions["run"])
    if len(runs) > 1:
        raise InputError(f"predictions of {len(runs)} runs in one table ({runs[0]}, {runs[1]} ...); give one at a time")
    if split is not None:
        wanted = pc.equal(predictions["split"], split)
        if not pc.all(pc.fill_null(wanted, False)).as_py():
            predictions = predictions.filter(wanted)
    (datasets, of), (splits, part_of) = (
        _codes(predictions[name], f"predictions: {name}") for name in ("dataset", "split")
    )
    codes = np.unique(of * len(splits) + part_of)
    pairs = [(str(datasets[code // len(splits)]), str(splits[code % len(splits)])) for code in codes]
    if len(pairs) == 1:
        return {pairs[0]: _matrix(predictions, *pairs[0], level)}
    out = {}
    for dataset, part in pairs:
        mask = pc.and_(pc.equal(predictions["dataset"], dataset), pc.equal(predictions["split"], part))
        out[dataset, part] = _matrix(predictions.filter(mask), dataset, part, level)
    return out


def _matrix(rows: pa.Table, dataset: str, split: str, level: str) -> ScoreMatrix:
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
    _, patient_codes = _codes(rows["patient_id"], f"{where}: patient_id")
    shape = (len(keys), len(labels))
    images = ScoreMatrix(
        dataset=dataset,
        split=split,
        keys=keys,
        patients=_of_key(key_codes, patient_codes, len(keys), f"{where}: one key belongs to two patients"),
        labels=tuple(labels.tolist()),
        truth=truth.reshape(shape),
        score=score.reshape(shape),
    )
    if level == levels.IMAGE:
        return images
    scored = np.zeros(len(keys) * len(labels), bool)
    scored[cells] = True
    names, study_codes = _codes(rows["study_id"])
    studies = _of_key(key_codes, study_codes, len(keys), f"{where}: one key belongs to two studies")
    return _by_study(images, level, names, studies, scored.reshape(shape))


def _by_study(
    images: ScoreMatrix, level: str, names: np.ndarray, studies: np.ndarray, scored: np.ndarray
) -> ScoreMatrix:
    """A matrix whose rows are studies; `studies` are places (N,) in `names`, -1 where an image is one by itself."""
    of_unit = levels.units(images.patients, studies)
    _, first = np.unique(of_unit, return_index=True)
    keys = images.keys.astype(object)
    keys[studies >= 0] = names[studies[studies >= 0]]
    return dataclasses.replace(
        images,
        keys=keys[first].astype(str),
        patients=images.patients[first],
        truth=levels.truths(of_unit, images.truth),
        score=levels.scores(level, of_unit, images.score, scored),
        level=level,
    )


def _of_key(key_codes: np.ndarray, codes: np.ndarray, count: int, contradiction: str) -> np.ndarray:
    """The code of each key, from those of its rows, which must agree."""
    out = np.full(count, -1)
    out[key_codes] = codes
    if (out[key_codes] != codes).any():
        raise InputError(contradiction)
    return out


def _codes(column: pa.ChunkedArray, where: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values, and each row's place among them (int64); -1 for null, which `where` refuses."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    if where is not None and encoded.null_count:
        raise InputError(f"{where} is null in {encoded.null_count} rows")
    names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(str)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    used = np.zeros(len(names) + 1, bool)  # a dictionary may hold names of rows that are gone
    used[codes] = True
    distinct, place = np.unique(names[used[:-1]], return_inverse=True)
    places = np.full(len(names) + 1, -1)
    places[:-1][used[:-1]] = place
    return distinct, places[codes]
