"""Configuration of one fine-tuning trial: what to train, from what, on which labels. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cxrdist.core.augment_config import AugmentConfig, check_augment
from cxrdist.core.initialisation import KMEANS_PATCHES
from cxrdist.core.kmeans_config import KMeansConfig
from cxrdist.errors import InputError
from results.identity import plain
from results.tracking.backends import names as check_trackers
from shards.ranges import SEEDS, out_of_range

MODES = ("linear", "full", "last_n", "two_stage")
IGNORED_BY_SIGNATURE = ("out", "device", "workers", "threads", "stage", "cache", "backbones", "variant")
IGNORED_BY_SIGNATURE += ("log_every", "checkpoint_seconds", "track")
"""Fields that do not change what is learnt (beyond rounding); shard sets and init count by content."""


@dataclass(frozen=True, kw_only=True)
class ClassifierHeadConfig:
    """The layers that turn features into one logit per label."""

    kind: Literal["linear", "mlp", "dense", "rbf"] = "linear"
    """linear: one layer. mlp: layer, BatchNorm, ReLU, Dropout, layer. dense: ReLU layers with L2, then one layer. rbf
    (mode linear only): logistic regression with a radial basis function (Gaussian) kernel."""
    hidden: Annotated[int, "[1, 65536]"] = 128
    """Width of the hidden layer of mlp and dense."""
    layers: Annotated[int, "[1, 1000]"] = 1
    """Number of hidden layers of dense."""
    dropout: Annotated[float | None, "[0, 1)"] = None
    """Dropout probability, before the last layer of mlp and after each hidden layer of dense; None = 0.3 for mlp, 0 for
    dense."""
    l2: Annotated[float, "[0, inf)"] = 1e-4
    """L2 penalty of dense: this times the sum of squared weights of its hidden layers is added to the loss."""
    probe_l2: Annotated[list[float], "(0, inf)"] = field(default_factory=lambda: [1e-3, 1e-2, 1e-1, 1.0])
    """Mode linear with a linear head: ridge penalties tried, the one with the best val AUROC is kept. The penalty is
    this times half the squared weights, beside the mean loss of a sample, on features scaled to unit variance."""
    rbf_l2: Annotated[list[float], "(0, inf)"] = field(default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2])
    """The same for rbf, of weights in the kernel's space: the C of support vector machines is 1 / (penalty n)."""
    rbf_gamma: Annotated[float, "(0, inf)"] = 1.0
    """rbf: the kernel is exp(-rbf_gamma / D times the squared distance) of D features scaled to unit variance."""
    rbf_landmarks: Annotated[int, "[2, 65536]"] = 1000
    """rbf: up to this many labelled images the kernel is exact; of more, this many are drawn as Nystroem landmarks."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig:
    """The optimiser of a fine-tuning."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    """adam and adamw as published; sgd has momentum."""
    lr: Annotated[float, "(0, inf)"] = 1e-3
    """Learning rate of the head, at the peak of the schedule."""
    backbone_lr_factor: Annotated[float, "(0, inf)"] = 0.3
    """Rate of backbone layers as a share of `lr`, where the backbone has weights to keep (init is not scratch)."""
    weight_decay: Annotated[float | None, "[0, inf)"] = None
    """Weight decay; biases, normalisation, position embeddings and class tokens are left out. None: 1e-2 (adamw), 1e-4
    (sgd), 0 (adam; like sgd it adds the decay to the gradient)."""
    momentum: Annotated[float, "[0, 1)"] = 0.9
    """Momentum of sgd."""
    warmup: Annotated[float, "[0, 1)"] = 0.1
    """Share of the steps over which the rate rises from zero."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the rate after the warm-up: down to zero by a half cosine, or unchanged."""
    clip_norm: Annotated[float | None, "(0, inf)"] = 5.0
    """Gradients are scaled down to this global norm; None = as they are."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One classifier, trained from one initialisation on a fraction of the labels."""

    shards: str
    """Shard set with splits train, val and test: a folder, or the URL of one."""
    out: str
    """Run folder; the same configuration again resumes or returns it."""
    init: str = "scratch"
    """scratch, imagenet, an encoder file (.safetensors or .pth; published ones are recognised), a pretraining run,
    hf://owner/name[@revision], a name of your list of encoders (CXRDIST_INITS); or kmeans-patches, whose dictionary
    (section `kmeans`) is learnt from the train images, for mode linear, whatever `arch`."""
    init_mean: Annotated[float | None, "(-inf, inf)"] = None
    """For an `init` file of which nothing says what pixels its network expects: their mean, of grey values in [0, 1].
    None: the file's metadata, those of ImageNet for imagenet, those of the training set for scratch."""
    init_std: Annotated[float | None, "(0, inf)"] = None
    """The standard deviation that belongs to `init_mean`; 0.5 and 0.00048828125 stand for pixels in [-1024, 1024]."""
    mode: Literal["linear", "full", "last_n", "two_stage"] = "full"
    """linear: features frozen, only a head is fitted. full: everything. last_n: the last `last_n` stages and the head.
    two_stage: the head alone for `head_epochs`, then everything at `backbone_lr_factor` times the rate."""
    last_n: Annotated[int, "[1, inf)"] = 1
    """Stages (of a ResNet: stem, layer1 .. layer4) that mode last_n trains, counted from the output."""
    last_layers: Annotated[int | None, "[1, inf)"] = None
    """Layers that mode last_n trains, counted from the output, in place of stages: convolutions, linear layers and
    embeddings; what lies between two of them (normalisation) counts with the earlier one. None = `last_n` stages."""
    head_epochs: Annotated[int, "[1, inf)"] = 3
    """Epochs of the first stage of two_stage."""
    arch: str | None = None
    """timm name or small_cnn; None = that of the encoder, and resnet18 for scratch and imagenet."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """First layers of a resnet or densenet, as in pretraining; auto follows the weights."""
    norm: Literal["batch", "none"] = "batch"
    """Normalisation in small_cnn: BatchNorm, or none; other networks are as published."""
    image_size: Annotated[int | None, "[8, 4096]"] = None
    """Side of the square input in pixels; None = that of the encoder, otherwise that of the shard set."""
    load_size: Annotated[int | None, "[8, 4096]"] = None
    """Side at which training images are decoded before crops are enlarged; None = 1.25 image_size, at most the stored
    size. Val and test are decoded at image_size."""
    label_fraction: Annotated[float, "(0, 1]"] = 1.0
    """Share of the labelled train patients, in (0, 1]; drawn nested and stratified per seed."""
    val_fraction_too: bool = False
    """True: the val split is cut to `label_fraction` as well, so that model choice costs no more labels."""
    seed: Annotated[int, SEEDS] = 0
    """Of the label fraction, the head's first weights, the order, the augmentation and dropout."""
    epochs: Annotated[int, "[1, inf)"] = 20
    """Passes over the labelled images."""
    min_steps: Annotated[int, "[0, inf)"] = 60
    """Optimiser steps at least, so that a small fraction is trained too: passes are added until it is reached."""
    global_batch: Annotated[int, "[2, inf)"] = 64
    """Images a step; a smaller training set gives smaller batches."""
    patience: Annotated[int | None, "[1, inf)"] = 5
    """Early stopping: validations (see `eval_steps`) without improvement of the val AUROC; None = train to the end."""
    eval_steps: Annotated[int | None, "[1, inf)"] = None
    """Steps between two validations; None = once a pass over the labelled images, but no more than 12 in a trial."""
    labels: list[str] | str | None = None
    """Canonical labels, or one string separated by commas; None = all labels of the card that have values in train."""
    uncertain: Literal["ones", "zeros", "ignore"] | dict[str, Literal["ones", "zeros", "ignore"]] = "ones"
    """What uncertain (-1) labels become, for all or per label (U-Ones, U-Zeros, U-Ignore of the CheXpert paper)."""
    blanks: Literal["zeros", "ignore"] = "zeros"
    """What labels that a report does not mention become."""
    class_weights: Literal["none", "pos_weight", "balanced"] = "none"
    """pos_weight: positives weigh n_neg/n_pos. balanced: positives n/(2 n_pos), negatives n/(2 n_neg). Per label."""
    weight_factor: Annotated[float, "[0, 1]"] = 1.0
    """In [0, 1]: 0 gives every sample weight 1, 1 the full `class_weights`; linear in between."""
    threshold: str = "balanced_accuracy"
    """Rule of the operating threshold, chosen on val: balanced_accuracy, accuracy, f1, or sensitivity=0.9; or the
    threshold itself, such as 0.5."""
    level: Literal["image", "study", "study_max"] = "image"
    """What the metrics on test and the thresholds from val are of. image: every image. study: studies, with the mean of
    their images' probabilities. study_max: studies, with the highest of them. Training and the choice of weights go by
    images always, and predictions hold images."""
    n_boot: Annotated[int, "[0, 10^6]"] = 1000
    """0 leaves the intervals out; any other number gives them (they are computed without resampling)."""
    precision: Literal["auto", "float32", "tf32", "bf16", "fp16"] = "auto"
    """float32: IEEE's. tf32: float32 whose products GPUs round to 11 bits. bf16: autocast. fp16: autocast with scaled
    gradients, for GPUs without bf16. auto: bf16 where the device gains from it; fp16 where layers are trained on a GPU
    without it; else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""
    workers: Annotated[int, "[0, 1024]"] = 0
    """Threads that decode images ahead; 0 = by the number of cores."""
    threads: Annotated[int | None, "[1, 1024]"] = None
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
    """More shard sets whose test split is scored over the shared labels; or one string separated by commas."""
    log_every: Annotated[int, "[1, inf)"] = 20
    """Steps between two lines of metrics.jsonl."""
    track: str | None = None
    """wandb, mlflow, or both separated by a comma: mirror the run's numbers there; None = nowhere."""
    checkpoint_seconds: Annotated[float, "(0, inf)"] = 60.0
    """Seconds between two checkpoints of a trial that trains layers."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """Optimiser."""
    head: ClassifierHeadConfig = field(default_factory=ClassifierHeadConfig)
    """Head."""
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    """The dictionary of init kmeans-patches."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation on the device; not used in mode linear, whose features are computed once."""


def weight_decay(config: FinetuneOptimConfig) -> float:
    """The weight decay that a configuration stands for."""
    if config.weight_decay is not None:
        return config.weight_decay
    return {"adamw": 1e-2, "sgd": 1e-4, "adam": 0.0}[config.name]


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
    if wrong := out_of_range(config):
        raise InputError(wrong)
    check_trackers(config.track)
    for name in ("probe_l2", "rbf_l2"):
        if not getattr(config.head, name):
            raise InputError(f"head.{name} is empty: must be one or more penalties, for example [0.01, 1.0]")
    check_augment(config.augment)
    check_threshold(config.threshold)
    return config


def check_head(config: FinetuneConfig) -> None:
    """Refuse a head that a trial's mode cannot train (in a sweep, mode and head may be axes of their own)."""
    if config.head.kind == "rbf" and config.mode != "linear":
        raise InputError(f"head.kind rbf takes no gradient steps, as mode {config.mode} would: take --mode linear")


def check_threshold(rule: str) -> None:
    """Refuse a threshold rule that does not exist."""
    if rule in ("balanced_accuracy", "accuracy", "f1"):
        return
    name, _, number = rule.rpartition("=")
    try:
        if (name in ("sensitivity", "specificity") and 0 < float(number) <= 1) or (
            "=" not in rule and 0 <= float(number) <= 1
        ):
            return
    except ValueError:
        pass
    raise InputError(
        f"threshold = {rule!r}: must be balanced_accuracy, accuracy, f1, sensitivity=0.9, specificity=0.9 (any share "
        "in (0, 1]), or a threshold from 0 to 1 such as 0.5"
    )


def run_settings(config: FinetuneConfig) -> dict[str, Any]:
    """A configuration as its run records it (see `results.identity.plain`), without settings that it does not use.

    (Those of kmeans-patches and of the rbf head, and `norm`: they are later than the first runs, which keep
    their signature.)
    """
    values = plain(config)
    if config.norm == "batch":
        del values["norm"]
    if config.init != KMEANS_PATCHES:
        values.pop("kmeans", None)
    return values | {"head": head_settings(config.head)}


def head_settings(config: ClassifierHeadConfig) -> dict[str, Any]:
    """A head's settings; those of rbf only where it is one."""
    values = plain(config) | {"dropout": dropout(config)}
    return {k: v for k, v in values.items() if config.kind == "rbf" or not k.startswith("rbf_")}


def dropout(config: ClassifierHeadConfig) -> float:
    """The dropout probability that a head's settings stand for."""
    if config.dropout is not None:
        return config.dropout
    return 0.0 if config.kind == "dense" else 0.3
