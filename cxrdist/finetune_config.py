"""Configuration of one fine-tuning trial: what to train, from what, on which labels. Free of torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from cxrdist.config import AugmentConfig
from cxrdist.errors import InputError

MODES = ("linear", "full", "last_n", "two_stage")
IGNORED_BY_SIGNATURE = ("out", "device", "workers", "threads", "stage", "cache", "backbones", "variant")
IGNORED_BY_SIGNATURE += ("log_every", "checkpoint_seconds")
"""Fields that do not change what is learnt (beyond rounding); shard sets and init count by content."""


@dataclass(frozen=True, kw_only=True)
class ClassifierHeadConfig:
    """The layers that turn features into one logit per label."""

    kind: Literal["linear", "mlp", "dense"] = "linear"
    """linear: one layer. mlp: layer, BatchNorm, ReLU, Dropout, layer. dense: ReLU layers with L2, then one layer."""
    hidden: int = 128
    """Width of the hidden layer of mlp and dense."""
    layers: int = 1
    """Number of hidden layers of dense."""
    dropout: float = 0.3
    """Dropout probability of mlp, in [0, 1)."""
    l2: float = 1e-4
    """L2 penalty of dense: this times the sum of squared weights of its hidden layers is added to the loss."""
    probe_l2: list[float] = field(default_factory=lambda: [1e-3, 1e-2, 1e-1, 1.0])
    """Mode linear with a linear head: ridge penalties tried, the one with the best val AUROC is kept. The penalty is
    this times half the squared weights, beside the mean loss of a sample, on features scaled to unit variance."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig:
    """The optimiser of a fine-tuning."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """adam and adamw as published; sgd has momentum."""
    lr: float = 1e-3
    """Learning rate of the head, at the peak of the schedule."""
    backbone_lr_factor: float = 0.3
    """Rate of backbone layers as a share of `lr`, where the backbone has weights to keep (init is not scratch)."""
    weight_decay: float = 1e-2
    """Weight decay of weights; biases and normalisation are left out."""
    momentum: float = 0.9
    """Momentum of sgd."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the rate after the warm-up: down to zero by a half cosine, or unchanged."""
    clip_norm: float | None = 5.0
    """Gradients are scaled down to this global norm; None = as they are."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One classifier, trained from one initialisation on a fraction of the labels."""

    shards: str
    """Shard set with splits train, val and test: a folder, or the URL of one."""
    out: str
    """Run folder; the same configuration again resumes or returns it."""
    init: str = "scratch"
    """scratch, imagenet, an encoder file (.safetensors or a timm state), or a pretraining run."""
    mode: Literal["linear", "full", "last_n", "two_stage"] = "full"
    """linear: features frozen, only a head is fitted. full: everything. last_n: the last `last_n` stages and the head.
    two_stage: the head alone for `head_epochs`, then everything at `backbone_lr_factor` times the rate."""
    last_n: int = 1
    """Stages (of a ResNet: stem, layer1 .. layer4) that mode last_n trains, counted from the output."""
    head_epochs: int = 3
    """Epochs of the first stage of two_stage."""
    arch: str | None = None
    """timm name or small_cnn; None = that of the encoder, and resnet18 for scratch and imagenet."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers of a resnet or densenet, as in pretraining; auto follows the weights."""
    image_size: int | None = None
    """Side of the square input in pixels; None = that of the encoder, otherwise that of the shard set."""
    label_fraction: float = 1.0
    """Share of the labelled train patients, in (0, 1]; drawn nested and stratified per seed."""
    val_fraction_too: bool = False
    """True: the val split is cut to `label_fraction` as well, so that model choice costs no more labels."""
    seed: int = 0
    """Of the label fraction, the head's first weights, the order, the augmentation and dropout."""
    epochs: int = 20
    """Passes over the labelled images."""
    min_steps: int = 60
    """Optimiser steps at least, so that a small fraction is trained too: passes are added until it is reached."""
    global_batch: int = 64
    """Images a step; a smaller training set gives smaller batches."""
    patience: int | None = 5
    """Early stopping: looks at val (see `eval_steps`) without a better val AUROC; None = train to the end."""
    eval_steps: int | None = None
    """Steps between two looks at val; None = once a pass over the labelled images, but no more than 12 in a trial."""
    labels: list[str] | str | None = None
    """Canonical labels, or one string with commas; None = all labels of the card that have values in train."""
    uncertain: Literal["ones", "zeros", "ignore"] | dict[str, Literal["ones", "zeros", "ignore"]] = "ones"
    """What uncertain (-1) labels become, for all or per label (U-Ones, U-Zeros, U-Ignore of the CheXpert paper)."""
    blanks: Literal["zeros", "ignore"] = "zeros"
    """What labels that a report does not mention become."""
    class_weights: Literal["none", "pos_weight", "balanced"] = "none"
    """pos_weight: positives weigh n_neg/n_pos. balanced: positives n/(2 n_pos), negatives n/(2 n_neg). Per label."""
    weight_factor: float = 1.0
    """In [0, 1]: 0 gives every sample weight 1, 1 the full `class_weights`, between them in a straight line."""
    threshold: str = "balanced_accuracy"
    """Rule of the operating threshold, chosen on val: balanced_accuracy, f1, or sensitivity=0.9."""
    n_boot: int = 1000
    """Patient-clustered bootstrap resamples of the intervals; 0 = no intervals."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bfloat16 where the device gains from it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    workers: int = 0
    """Threads that decode images ahead; 0 = by the number of cores."""
    threads: int | None = None
    """CPU threads of the arithmetic; None = as many as the machine gives (a sweep uses one per trial). Another number
    takes sums in another order: equal numbers give equal bits, others differ by rounding."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where shard sets are copied before reading: ram is /dev/shm, disk the node's own disk; URLs always are."""
    cache: str | None = None
    """Folder of decoded images and features shared by trials, environment variables ($SLURM_TMPDIR) as the node has
    them; None = decode for this trial only."""
    backbones: str | None = None
    """Mode linear: folder where the frozen network is kept, once for all trials that stand on it; model.safetensors
    then holds the head and names the network by its hash. None = model.safetensors holds both."""
    variant: str | None = None
    """What differs from the full recipe, as results name it (a sweep fills it in); None = the recipe."""
    eval_shards: list[str] | str | None = None
    """More shard sets whose test split is scored over the shared labels; one string may hold several with commas."""
    log_every: int = 20
    """Steps between two lines of metrics.jsonl."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints of a trial that trains layers."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """Optimiser."""
    head: ClassifierHeadConfig = field(default_factory=ClassifierHeadConfig)
    """Head."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation on the device; not used in mode linear, whose features are computed once."""


def words(value: list[str] | tuple[str, ...] | str | None) -> list[str] | None:
    """A list option as a list: one string is split at commas."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else list(value)
    return [part.strip() for part in parts if part.strip()]


def check(config: FinetuneConfig) -> FinetuneConfig:
    """Return the configuration unchanged, or say which value is out of its range.

    Raises:
        InputError: a value out of range.
    """
    head, optim = config.head, config.optim
    rules: list[tuple[str, Any, bool, str]] = [
        ("label_fraction", config.label_fraction, 0 < config.label_fraction <= 1, "in (0, 1], for example 0.1"),
        ("weight_factor", config.weight_factor, 0 <= config.weight_factor <= 1, "in [0, 1]"),
        ("epochs", config.epochs, config.epochs >= 1, "at least 1"),
        ("min_steps", config.min_steps, config.min_steps >= 0, "at least 0"),
        ("global_batch", config.global_batch, config.global_batch >= 2, "at least 2"),
        ("last_n", config.last_n, config.last_n >= 1, "at least 1 (mode linear trains no layer)"),
        ("head_epochs", config.head_epochs, config.head_epochs >= 1, "at least 1"),
        ("image_size", config.image_size, config.image_size is None or config.image_size >= 8, "at least 8"),
        ("patience", config.patience, config.patience is None or config.patience >= 1, "at least 1, or left out"),
        ("eval_steps", config.eval_steps, config.eval_steps is None or config.eval_steps >= 1, "at least 1"),
        ("n_boot", config.n_boot, config.n_boot >= 0, "at least 0"),
        ("seed", config.seed, config.seed >= 0, "at least 0"),
        ("head.hidden", head.hidden, head.hidden >= 1, "at least 1"),
        ("head.layers", head.layers, head.layers >= 1, "at least 1"),
        ("head.dropout", head.dropout, 0 <= head.dropout < 1, "in [0, 1)"),
        ("head.l2", head.l2, head.l2 >= 0, "at least 0"),
        ("head.probe_l2", head.probe_l2, bool(head.probe_l2) and min(head.probe_l2) > 0, "one or more, above 0"),
        ("optim.lr", optim.lr, optim.lr > 0, "above 0"),
        ("optim.backbone_lr_factor", optim.backbone_lr_factor, optim.backbone_lr_factor > 0, "above 0"),
        ("optim.weight_decay", optim.weight_decay, optim.weight_decay >= 0, "at least 0"),
        ("optim.warmup", optim.warmup, 0 <= optim.warmup < 1, "in [0, 1)"),
    ]
    for name, value, good, wanted in rules:
        if not good:
            raise InputError(f"{name} = {value}: must be {wanted}")
    check_threshold(config.threshold)
    return config


def check_threshold(rule: str) -> None:
    """Refuse a threshold rule that does not exist."""
    if rule in ("balanced_accuracy", "f1"):
        return
    name, _, number = rule.partition("=")
    try:
        if name == "sensitivity" and 0 < float(number) <= 1:
            return
    except ValueError:
        pass
    raise InputError(f"threshold = {rule!r}: must be balanced_accuracy, f1 or sensitivity=0.9 (any share in (0, 1])")


def plain(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts that TOML can hold: None is left out."""

    def tidy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tidy(item) for key, item in value.items() if item is not None}
        return list(value) if isinstance(value, tuple) else value

    return tidy(dataclasses.asdict(config))
