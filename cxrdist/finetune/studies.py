"""Scoring by study: which sets can be, and where the studies of samples come from."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrdist.errors import InputError
from cxrdist.finetune import input_checks, labelled_data
from cxrdist.finetune.labelled_data import Split
from results import levels, schema
from results.run import Run
from shards import ShardSet

log = logging.getLogger("cxrdist.finetune")


def check_studies(split: Split, wanted: Collection[str]) -> None:
    """Refuse to score by study where no image says one; say where images lack one, or those of a study disagree.

    Args:
        split: the test samples.
        wanted: levels that are to be scored.

    Raises:
        InputError: studies are wanted, and no image of the split has one.
    """
    by_study = [level for level in wanted if level != levels.IMAGE]
    if not by_study:
        return
    names, where = split.described["study_id"], split.shards.path
    known = np.array([name is not None for name in names], bool)
    input_checks.need_studies(by_study[0], bool(known.any()), where)
    if not known.all():
        log.warning("%s: %d images without a study are studies of their own", where, (~known).sum())
    of_unit = split.studies
    differing = levels.contradictions(of_unit, split.truth)
    if len(differing):
        first = names[np.flatnonzero(of_unit == differing[0])[0]]
        told = (
            "%s: the images of %d studies carry different labels (first: %s); a study is positive if an image of it is"
        )
        log.warning(told, where, len(differing), first)


def with_studies(
    run: Run, kept: pa.Table, *, own: str, content: str | None, places: Sequence[str], stage: str
) -> pa.Table:
    """The predictions of a run with the studies, views, sexes and ages of its val samples, if older ones lack them.

    Thresholds for studies must be chosen on studies, so they are looked up in the training set where no val sample has
    one.

    Args:
        run: the run.
        kept: its predictions.
        own: name of the training set in them.
        content: its hash; None = not recorded.
        places: where it may be.
        stage: see `FinetuneConfig.stage`.

    Raises:
        InputError: the training set is at none of the places.
    """
    is_val = (pc.field("split") == "val") & (pc.field("dataset") == own)
    val = kept.filter(is_val)
    if not len(val) or val["study_id"].null_count < len(val):
        return kept
    shards = _val_of(run, content, places, stage)
    if not shards.card.studies:
        log.warning("%s has no studies: for the thresholds each of its val images is one of its own", shards.path)
        return kept
    keys, place = np.unique(np.array(val["key"].to_pylist(), dtype=str), return_inverse=True)
    positions = np.searchsorted(shards.rows, shards.index.find(keys.tolist()))
    found = Split(shards, positions, np.empty((len(keys), 0)), np.empty((len(keys), 0), bool)).described
    for name, values in found.items():
        column = pa.array(values[place], schema.PREDICTIONS.field(name).type, from_pandas=True)
        val = val.set_column(val.column_names.index(name), name, column)
    return pa.concat_tables([kept.filter(~is_val), val])


def _val_of(run: Run, content: str | None, places: Sequence[str], stage: str) -> ShardSet:
    """The val split of a run's training set, at the first of the places where it is."""
    reason = ""
    for place in places:
        try:
            return labelled_data.opened(place, "val", stage, content)
        except ValueError as error:
            reason = str(error)
    raise InputError(
        f"{run.path}: its val predictions do not say which study an image is of, and its training set, which may say"
        f" it, cannot be opened ({reason}); put it back, or use --level image"
    )
