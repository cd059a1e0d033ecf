"""Configuration of a pretraining run. Torch-free: a login node imports this to check a command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cxrdist.core.augment_config import AugmentConfig, check_augment
from cxrdist.core.configs import from_dict as from_dict  # a run's config.toml -> PretrainConfig
from cxrdist.core.initialisation import KMEANS_PATCHES
from cxrdist.errors import InputError
from cxrdist.pretrain.methods import MethodConfig, foreign_settings
from results.tracking.backends import names as check_trackers
from shards.ranges import SEEDS, out_of_range


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and learning-rate schedule."""

    name: Literal["lars", "adamw", "sgd"] = "lars"
    """lars: You et al. 2017, as SimCLR uses it; adamw; sgd with Nesterov momentum."""
    lr: Annotated[float | None, "(0, inf)"] = None
    """Learning rate for a global batch of 256. None: 0.3 (lars), 0.0005 (adamw), 0.06 (sgd)."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the rate grows with global_batch / 256."""
    weight_decay: Annotated[float | None, "[0, inf)"] = None
    """Weight decay; never on biases and normalisation. None: 1e-6 (lars), 0.05 (adamw), 1e-4 (sgd)."""
    momentum: Annotated[float, "[0, 1)"] = 0.9
    """Momentum of lars and sgd; adamw uses betas (0.9, 0.999)."""
    warmup_epochs: Annotated[float, "[0, inf)"] = 1.0
    """Epochs of linear warm-up from 0; at most a tenth of the run is used."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    final_lr: Annotated[float, "[0, 1]"] = 0.0
    """Share of the peak rate that the cosine ends at."""
    clip_norm: Annotated[float | None, "(0, inf)"] = None
    """Largest norm of the whole gradient; None: no clipping."""
    micro_batch: Annotated[int | None, "[2, inf)"] = None
    """At most so many views per forward pass and rank; None: all at once. Smaller saves memory at the price of a second
    forward pass. Loss, gradient and BatchNorm's running statistics are those of the whole batch; what BatchNorm
    normalises with are the statistics of a part."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """SimCLR's projection head between the features and the loss; thrown away after pretraining."""

    kind: Literal["simclr2", "simclr3", "dropout"] = "simclr2"
    """simclr2, simclr3: SimCLR's heads of 2 and 3 layers; dropout: Linear, BatchNorm, ReLU, Dropout, Linear."""
    hidden: Annotated[int | None, "[1, 65536]"] = None
    """Width of the hidden layers; None: the width of the features."""
    dim: Annotated[int, "[1, 65536]"] = 128
    """Width of the embedding that the loss compares."""
    dropout: Annotated[float, "[0, 1)"] = 0.3
    """Dropout probability of the `dropout` head."""
    norm: bool = True
    """BatchNorm in the head; false leaves it out."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Which samples of the train split are learnt from."""

    keep: Annotated[dict[str, float], "[0, 1]"] = field(default_factory=dict)
    """Share of the samples to keep per label, e.g. {no_finding: 1.0, pneumonia: 0.2}; "!pneumonia" means its negatives.
    A sample under several rules follows the largest share. Empty: keep all."""
    other: Annotated[float, "[0, 1]"] = 0.0
    """Share to keep of the samples under no rule (when there are rules)."""
    holdout: Annotated[float | None, "[0, 1)"] = None
    """Share of the pool set aside, by patient, for the validation loss; 0: no validation. None: the shard set's
    val split where there is one, else a tenth of the pool."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is measured while the run goes on."""

    every_epochs: Annotated[float, "[0, inf)"] = 1.0
    """Epochs between evaluations; 0: never (then no validation loss, no best checkpoint, no early stop)."""
    samples: Annotated[int, "[1, inf)"] = 2048
    """At most this many train and val samples are used per evaluation."""
    knn: Annotated[int, "[0, inf)"] = 20
    """Neighbours of the online kNN classifier on labelled shards; 0: off."""
    patience: Annotated[int | None, "[1, inf)"] = None
    """Stop after this many evaluations without a lower validation loss. None: never."""
    min_rank: Annotated[float, "[0, inf)"] = 2.0
    """Effective rank of the embeddings under which a collapse is reported."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved. None of this changes the result."""

    every_steps: Annotated[int | None, "[1, inf)"] = None
    """Steps between checkpoints; None: one epoch."""
    every_minutes: Annotated[float, "(0, inf)"] = 10.0
    """Longest time between checkpoints, minutes."""
    keep: Annotated[int, "[1, inf)"] = 2
    """How many of the latest checkpoints stay (the best one stays besides)."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(MethodConfig):
    """Self-supervised pretraining of a backbone on a shard set."""

    shards: list[str] | str
    """Folder or URL of the shard set; several, as a list or separated by commas, are learnt from together."""
    shard_weights: Annotated[list[float] | None, "(0, inf)"] = None
    """With several shard sets: how often images are drawn from each, relative to the others, in their order. None: by
    their numbers of images, so that an epoch is one pass over all."""
    normalise: Literal["union", "set"] = "union"
    """With several shard sets: by which mean and deviation their pixels are normalised. union: those of all train
    images together; set: each image by those of its own set."""
    out: str
    """Folder of the run; the same request again resumes or returns it."""
    arch: str = "resnet18"
    """timm backbone: resnet18/34/50/101, densenet121, convnext_tiny, vit_small_patch16_224, ..."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers of a resnet. small: 3x3 convolution for small images; auto: small up to 64 pixels unless init
    brings weights of the standard stem."""
    image_size: Annotated[int, "[16, 4096]"] = 224
    """Side of the views, pixels."""
    load_size: Annotated[int | None, "[16, 4096]"] = None
    """Side at which images are decoded before the augmentation. None: 1.25 image_size, at most the stored size."""
    init: str = "scratch"
    """scratch, imagenet, a weights file (.safetensors, .pth; published ones are recognised), an earlier run's folder,
    hf://owner/name[@revision], or a name of your list of encoders (CXRDIST_INITS)."""
    init_mean: Annotated[float | None, "(-inf, inf)"] = None
    """For an `init` file of which nothing says what pixels its network expects: their mean, of grey values in [0, 1].
    None: the file's metadata, those of ImageNet for imagenet, those of the training set for scratch."""
    init_std: Annotated[float | None, "(0, inf)"] = None
    """The standard deviation that belongs to `init_mean`; 0.5 and 0.00048828125 stand for pixels in [-1024, 1024]."""
    positives: Literal["image", "patient"] = "image"
    """Of what the two views of a pair are. image: one image; patient: two images of one patient where there are two
    (MICLe, Azizi et al. 2021)."""
    negatives: Literal["all", "other_patients"] = "all"
    """What views SimCLR tells a pair from. all: those of all other images of the global batch; other_patients: those of
    other patients' images."""
    global_batch: Annotated[int, "[2, inf)"] = 256
    """Images per step over all ranks (each gives two views)."""
    epochs: Annotated[int, "[1, inf)"] = 100
    """Passes over the training pool."""
    steps: Annotated[int | None, "[1, inf)"] = None
    """Optimiser steps; None: as many as `epochs` need."""
    seed: Annotated[int, SEEDS] = 0
    """Seed of weights, order and augmentations."""
    temperature: Annotated[float, "(0, inf)"] = 0.2
    """Temperature of SimCLR's loss, NT-Xent."""
    precision: Literal["auto", "float32", "tf32", "bf16", "fp16"] = "auto"
    """float32: IEEE's. tf32: float32 whose products GPUs round to 11 bits. bf16: autocast. fp16: autocast with scaled
    gradients, for GPUs without bf16. auto: bf16 where the device computes it faster, fp16 on GPUs without it, else
    float32."""
    comm_hook: Literal["none", "bf16"] = "none"
    """How gradients travel between ranks. none: as they are; bf16: rounded to bfloat16, half the bytes, for slow
    networks. One rank exchanges nothing."""
    sync_bn: bool = False
    """BatchNorm statistics over the global batch instead of each rank's part."""
    deterministic: bool | None = None
    """Only deterministic kernels. None: on the CPU, where they cost nothing."""
    export: Literal["last", "best"] = "last"
    """Which weights become encoder.safetensors: the last, or those of the lowest validation loss."""
    window: Annotated[int | None, "[1, inf)"] = None
    """Shards that are shuffled together; None: all. Smaller needs less of a remote set at a time."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """SimCLR's projection head."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Training pool."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """Evaluations while it runs."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    nproc: Annotated[int, "[1, 1024]"] = 1
    """Ranks on this machine; the global batch is divided among them."""
    max_restarts: Annotated[int, "[0, inf)"] = 0
    """How often torchrun restarts all ranks after one died."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where there is one."""
    workers: Annotated[int | None, "[0, 1024]"] = None
    """Decoding workers per rank; 0: in the process itself; None: fitting the cores."""
    compile: bool = False
    """torch.compile the backbone: pays on GPUs in long runs; the first step then takes a minute."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where shards are copied before reading."""
    log_every: Annotated[int, "[1, inf)"] = 10
    """Steps between log lines."""
    tensorboard: bool = True
    """Write TensorBoard events under tb/."""
    track: str | None = None
    """wandb, mlflow, or both separated by a comma: mirror the run's numbers there; None = nowhere."""


IGNORED_BY_SIGNATURE = (
    "out",
    "nproc",
    "max_restarts",
    "device",
    "workers",
    "compile",
    "stage",
    "log_every",
    "tensorboard",
    "track",
    "checkpoint",
)
"""Fields of PretrainConfig that do not change which experiment a run is."""


def validate(config: PretrainConfig) -> None:
    """Refuse values that no run can use, before anything is started.

    Raises:
        InputError: naming the field, its value and what is allowed.
    """
    if wrong := out_of_range(config):
        raise InputError(wrong)
    check_trackers(config.track)

    def need(good: bool, what: str) -> None:
        if not good:
            raise InputError(what)

    need(
        config.global_batch % config.nproc == 0,
        f"global_batch {config.global_batch} does not divide evenly among {config.nproc} ranks; "
        f"use a multiple of {config.nproc}",
    )
    need(
        config.init != KMEANS_PATCHES,
        f"init {KMEANS_PATCHES} has no layers to pretrain; give it to finetune or a sweep (mode linear)",
    )
    _check_sets(config)
    check_augment(config.augment)
    _check_method(config)
    watching = config.watch.every_epochs > 0
    need(watching or config.watch.patience is None, "watch.patience needs watch.every_epochs > 0")
    need(watching or config.export == "last", "export best needs watch.every_epochs > 0")


def places_of(config: PretrainConfig) -> list[str]:
    """The shard sets of a configuration, in order."""
    return split_places(config.shards)


def split_places(parts: list[str] | str) -> list[str]:
    """Shard sets given as a list or separated by commas; a folder whose name has a comma is one."""
    if isinstance(parts, str):
        parts = [parts] if os.path.isdir(os.path.expanduser(parts)) else parts.split(",")
    return [part.strip().rstrip("/") or part.strip() for part in parts if part.strip()]


def _check_sets(config: PretrainConfig) -> None:
    """Refuse no shard set, one named twice, and weights that do not belong to the sets."""
    sets = places_of(config)
    if not sets:
        raise InputError("shards names no shard set")
    if len(set(sets)) < len(sets):
        raise InputError(f"shards names a set twice: {', '.join(sets)}; give it more weight by shard_weights")
    if config.normalise == "set" and len(sets) == 1:
        raise InputError(
            "normalise set is for several shard sets: one set's pixels are normalised by its own; leave it out"
        )
    if config.shard_weights is None:
        return
    if len(config.shard_weights) != len(sets) or len(sets) == 1:
        raise InputError(
            f"shard_weights has {len(config.shard_weights)} numbers, shards {len(sets)}: one for each of several"
        )
    if config.window is not None:
        raise InputError("shard_weights and window exclude each other: a window goes through each set once an epoch")


def _check_method(config: PretrainConfig) -> None:
    """Refuse settings that the method would not read."""
    blank = PretrainConfig(shards=config.shards, out=config.out)
    for name, other in foreign_settings(config.method).items():
        if getattr(config, name) != getattr(blank, name):
            raise InputError(f"{name} is a setting of --method {other}, this run's is {config.method}; leave it out")
    if not config.vicreg.expander:
        raise InputError("vicreg.expander is empty; give the width of at least one layer, e.g. [2048, 2048, 2048]")


def check_batch(config: PretrainConfig, sizes: Sequence[int]) -> None:
    """Refuse a global batch that would hold an image twice: its own views would be its negatives, or count twice.

    Args:
        config: of the run.
        sizes: number of images that are learnt from of each of its shard sets.

    Raises:
        InputError: the batch is larger than the pool, or a set's share of it by weight larger than the set.
    """
    batch, n, places = config.global_batch, sum(sizes), places_of(config)
    if batch > n:
        raise InputError(
            f"global_batch is {batch}, but {', '.join(places)} has {n} images to learn from: a batch would hold an "
            f"image twice, as if it were two; take --global_batch {n} or less"
        )
    weights = config.shard_weights or []
    for place, size, weight in zip(places, sizes, weights, strict=False):  # without weights: none
        share = batch * weight / sum(weights)
        if share > size:
            raise InputError(
                f"{place} has {size} images to learn from, but by shard_weights gives {share:.0f} of the {batch} of a "
                f"global batch, which would hold images twice, as if they were two; lower its weight or --global_batch"
            )


def check_pool(config: PoolConfig, card: Any, shards: str) -> None:
    """Refuse a shard set, by its card, without a train split, or without a label that the pool's rules name.

    Raises:
        InputError: naming the set, the rule and what there is.
    """
    if "train" not in card.splits:
        raise InputError(f"{shards} has no train split; it has {', '.join(card.splits) or 'none'}")
    for rule in config.keep:
        label = rule.removeprefix("!")
        if label not in card.labels:
            raise InputError(f"pool.keep names {label!r}; {shards} has the labels {', '.join(card.labels)}")
