"""What a trial was made with: frozen by content in its folder, compared when it is opened, named in its results.

The training writes what describes a model once; later tests copy it from the run and read nothing again. Free of torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cxrdist.core import named_inits, pixel_scale
from cxrdist.core.configs import METHOD
from cxrdist.core.initialisation import (
    KMEANS_PATCHES,
    PATCH_FEATURES,
    check_init,
    check_start,
    describe,
    located,
)
from cxrdist.core.shard_sets import absolute, card, datasets, recorded
from cxrdist.finetune import input_checks
from cxrdist.finetune.config import IGNORED_BY_SIGNATURE, FinetuneConfig, check_head, run_settings, weight_decay, words
from results.configs import config_text, of_run
from results.identity import signature
from results.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

OF_THE_RUN = (
    "signature", "arch", "init", "init_signature", "init_hash", "mode", "method", "pretrain_dataset",
    "pretrain_dataset_hash", "train_dataset", "train_dataset_hash", "label_fraction", "n_labelled", "fraction_hash",
    "n_val", "val_fraction", "threshold_rule", "seed", "variant", "config", "n_parameters", "wall_seconds",
    "gpu_seconds",
)  # fmt: skip
"""Columns of METRICS that describe how a model came to be: the training writes them, every later test copies them."""

DEFAULT_ARCH = "resnet18"


def resolve(config: FinetuneConfig) -> FinetuneConfig:
    """Fill in what follows from the encoder and the shard set: arch, image_size, paths made absolute.

    Raises:
        InputError: the mode cannot train the head; the encoder is of another architecture or image size than the
            configuration asks for, or the shard sets do not have the splits and labels (see `input_checks`).
    """
    check_head(config)
    config = named_inits.expanded(config)
    check_init(config.init, None)
    input_checks.check_sets(config)
    start = describe(config.init)
    check_start(config, start)
    more = words(config.eval_shards)
    return replace(
        config,
        arch=PATCH_FEATURES if config.init == KMEANS_PATCHES else config.arch or start.arch or DEFAULT_ARCH,
        image_size=config.image_size or start.image_size or card(config.shards).image_size,
        init=located(config.init),
        shards=absolute(config.shards),
        eval_shards=[absolute(path) for path in more] if more else None,
        backbones=None if config.backbones is None else os.path.abspath(config.backbones),
        labels=_default_labels(config.shards) if config.labels is None else words(config.labels),
        optim=replace(config.optim, weight_decay=weight_decay(config.optim)),
    )


def _default_labels(place: str) -> list[str] | None:
    """The labels to train where the set has some that are trained only when asked for; None = all of the set.

    They are written down, so that a run from before there was a difference is not taken for this one.
    """
    held = card(place).labels
    kept = input_checks.default_labels(held)
    return kept if len(kept) < len(held) else None


def trial_signature(config: FinetuneConfig) -> str:
    """Identity of a resolved trial: its options, with shard sets and the encoder by content instead of by path."""
    values = run_settings(config)
    values["shards"] = card(config.shards).sha256
    values["eval_shards"] = sorted(card(path).sha256 for path in words(config.eval_shards) or [])
    start = describe(config.init)
    values["init"] = start.sha256 or config.init
    values["init_pixels"] = start.pixels_that_count(config.init_mean)
    values |= pixel_scale.that_count(config.init, config.arch)
    if config.mode != "linear":
        values["method"] = METHOD
    if config.level == "image":
        del values["level"]  # runs from before there was a choice keep their signature
    return signature(values, IGNORED_BY_SIGNATURE)


def trial_shards(config: FinetuneConfig) -> dict[str, str]:
    """Shard set path -> hash, of all that a trial reads."""
    paths = [config.shards, *(words(config.eval_shards) or [])]
    return {path: card(path).sha256 for path in paths}


def make_run(config: FinetuneConfig, command: list[str] | None = None) -> Run:
    """Freeze a resolved trial in its folder, with the content of all that it reads.

    Raises:
        InputError: the folder holds another run or other files.
    """
    shards, start = trial_shards(config), describe(config.init)
    return Run.create(
        config.out,
        job="finetune",
        config=run_settings(config),
        signature=trial_signature(config),
        shards=shards,
        init=start.facts(),
        datasets=datasets(shards, start.file),
        command=command,
        ignore=IGNORED_BY_SIGNATURE,
    )


def trained_context(run: Run, config: FinetuneConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `OF_THE_RUN` of a trial that has just been trained.

    Args:
        run: the run folder; what it starts from is as recorded there.
        config: resolved.
        facts: n_labelled, fraction_hash, n_val, train_dataset, train_dataset_hash, n_parameters, wall_seconds,
            gpu_seconds.
    """
    info = run.read_info()
    start = info.get("init") or describe(config.init).facts()
    return {
        "signature": info["signature"],
        "arch": config.arch,
        "init": start.get("name"),
        "init_signature": start.get("signature"),
        "init_hash": start.get("sha256"),
        "mode": config.mode,
        "method": start.get("method") or ("simclr" if start.get("dataset") else None),  # earlier runs do not say
        "pretrain_dataset": start.get("dataset"),
        "pretrain_dataset_hash": start.get("dataset_hash"),
        "label_fraction": config.label_fraction,
        "val_fraction": None if not facts["n_val"] else config.label_fraction if config.val_fraction_too else 1.0,
        "threshold_rule": config.threshold,
        "seed": config.seed,
        "variant": config.variant,
        "config": config_text(
            run_settings(config),
            ignore=IGNORED_BY_SIGNATURE,
            content={
                "shards": facts["train_dataset_hash"],
                "init": start.get("sha256") or config.init,
                "eval_shards": None,
            },
        ),
        **facts,
    }


def kept_context(run: Run, config: FinetuneConfig, rows: pa.Table) -> dict[str, Any]:
    """The columns `OF_THE_RUN` as the training left them in a run's results; later tests change none of them."""
    first = rows.slice(0, 1).to_pylist()[0]
    described = {name: first[name] for name in OF_THE_RUN}
    described["train_dataset_hash"] = described["train_dataset_hash"] or recorded(run, config.shards)
    described["threshold_rule"] = described["threshold_rule"] or config.threshold
    described["config"] = described["config"] or of_run(run)
    return described
