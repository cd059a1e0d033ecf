"""A finished fine-tuning tested on further shard sets, or again: the numbers are added to its result files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrdist.core.device import pick_device, resolve_precision, set_threads
from cxrdist.core.shard_sets import absolute
from cxrdist.errors import InputError
from cxrdist.finetune import classifier
from cxrdist.finetune.features import Network
from cxrdist.finetune.identity import kept_context
from cxrdist.finetune.input_checks import check_policy
from cxrdist.finetune.parse import from_plain
from cxrdist.finetune.studies import with_studies
from cxrdist.finetune.tester import Tester, free_name, test_set
from results import levels, schema
from results.run import Run
from results.used_datasets import Facts, facts_of, note
from shards import ShardSet
from shards.locks import locked


def evaluate(
    path: str | Path,
    shards: Sequence[str],
    *,
    uncertain: Any = None,
    blanks: str | None = None,
    level: Literal["image", "study", "study_max"] | None = None,
    device: str = "auto",
    stage: Literal["none", "ram", "disk"] = "none",
) -> list[dict[str, Any]]:
    """Test a finished fine-tuning on shard sets and add the numbers to its result files.

    Testing on the same set again, whatever its place, replaces its rows, and makes those of other levels again; on the
    run's own set, with the run's label policy, they come out as they were. Nothing that describes the training is read
    again: not the initialisation, not the training set (but for its studies, where older predictions lack them).

    Args:
        path: the run; it may have been renamed or moved.
        shards: folders or URLs of shard sets with a test split.
        uncertain: label policy in place of the run's; None = the run's.
        blanks: the same for labels not mentioned.
        level: what is scored (see `FinetuneConfig.level`); None = the run's.
        device: auto, cpu or cuda.
        stage: where the shard sets are copied before reading (see `FinetuneConfig.stage`).

    Returns:
        The new rows of metrics.parquet.

    Raises:
        InputError: not a finished fine-tuning; no label in common; at a place that the run knows lies another set; to
            be scored by study and no studies known.
    """
    run = Run.open(path)
    if not run.is_done or not run.model.is_file():
        raise InputError(f"{run.path} is not a finished fine-tuning run; finish it, then evaluate")
    config = dataclasses.replace(from_plain(run.read_config(), str(run.config)), device=device, cache=None)
    config = dataclasses.replace(config, stage=stage, level=level or config.level)
    if uncertain is not None or blanks is not None:
        config = dataclasses.replace(config, uncertain=uncertain or config.uncertain, blanks=blanks or config.blanks)
    set_threads(1, config.threads)
    model = classifier.load(run.model)
    check_policy(uncertain or {}, model.facts["labels"])
    where = pick_device(device)
    model.to(where)
    layers = config.mode != "linear"
    network = Network(
        config, model, resolve_precision(config.precision, where, model.facts["image_size"], scaled=layers)
    )
    with locked(run.path / ".results.lock"):
        kept, rows = schema.read_predictions(run.predictions), schema.read_metrics(run.metrics)
        described = kept_context(run, config, rows)
        own, field = described["train_dataset"], pc.field
        if config.level != levels.IMAGE:
            content = described["train_dataset_hash"]
            places = [*(map(absolute, shards) if content else ()), config.shards]
            kept = with_studies(run, kept, own=own, content=content, places=places, stage=stage)
        val = _renamed(kept.filter((field("split") == "val") & (field("dataset") == own)), run)
        unlearnt = run.read_done().get("unlearnt", [])
        tester = Tester(run, config, network, described, unlearnt, val if len(val) else None)
        added: list[dict[str, Any]] = []
        used: dict[str, Facts] = {}
        for place in map(absolute, shards):
            tests = test_set(run, place, stage)
            name = _name(tests, rows, kept, described)
            others = set(rows.filter(field("test_dataset") == name)["level"].to_pylist())
            tested = tester.test(tests, name, sorted(others))
            gone = (field("dataset") == tested.name) & (field("split") == "test")
            kept = pa.concat_tables([kept.filter(~gone), tested.predictions])
            rows = rows.filter(field("test_dataset") != tested.name)
            rows = pa.concat_tables([rows, schema.metrics_table(tested.rows)])
            added = [row for row in added if row["test_dataset"] != tested.name] + tested.rows
            used[tests.card.sha256] = facts_of(tests.card)
        schema.write_predictions(run.predictions, _renamed(kept, run))
        schema.write_metrics(run.metrics, _renamed(rows, run))
        note(run, used)
    return added


def _renamed(table: pa.Table, run: Run) -> pa.Table:
    """Rows of a run whose folder may have got another name since."""
    return table.set_column(
        table.column_names.index("run"), "run", pa.array(np.full(len(table), run.path.name, dtype=object), pa.string())
    )


def _name(tests: ShardSet, rows: pa.Table, kept: pa.Table, described: Mapping[str, Any]) -> str:
    """The name that a test set has in a run's results, by content; a free one where the run does not have it yet."""
    card = tests.card
    if card.sha256 == described["train_dataset_hash"]:
        return str(described["train_dataset"])
    pairs = rows.group_by(["test_dataset", "test_dataset_hash"]).aggregate([]).to_pylist()
    known = {row["test_dataset"]: row["test_dataset_hash"] for row in pairs}
    for name, content in known.items():
        if content == card.sha256 or (content is None and name == card.name and _same_images(tests, kept, name)):
            return name
    return free_name(card, {*known, str(described["train_dataset"])})


def _same_images(tests: ShardSet, kept: pa.Table, name: str) -> bool:
    """Whether results that recorded no hash are of these images."""
    field = pc.field
    held = kept.filter((field("dataset") == name) & (field("split") == "test"))["key"]
    return set(held.to_pylist()) == set(tests.index.keys(tests.rows).tolist())
