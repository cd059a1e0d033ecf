"""Configuration of a sweep: axes, what all cells share, which cells to keep, how to run them. Free of torch and ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from shards.ranges import SEEDS


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search over settings instead of a full grid; the choice is made on val only."""

    method: Literal["none", "grid", "random", "asha"] = "none"
    """none: every cell of the axes. grid: every combination of `space` within every cell. random: `samples` draws.
    asha: as random, and trials that are behind on val stop early (Li et al. 2020, as Ray Tune implements it)."""
    space: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> list of values, or for random and asha a table {low, high, log = true|false, integer = ...}."""
    samples: Annotated[int, "[1, 10^6]"] = 16
    """Draws of random and asha for each cell of the axes."""
    seed: Annotated[int, SEEDS] = 0
    """Of the draws."""
    grace: Annotated[int, "[1, inf)"] = 2
    """asha: validations before a trial may be stopped."""
    reduction: Annotated[int, "[2, inf)"] = 3
    """asha: of this many trials one goes on, at each rung."""


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """Executor slurm-array: a job array of small jobs, queued from a login node."""

    profile: str = "local"
    """Cluster profile: a name or a .toml file. A job takes one of its GPUs and `cpus_per_rank` cores."""
    throttle: Annotated[int | None, "[1, inf)"] = None
    """Jobs of the array that may run at a time; None = as many as SLURM lets start."""
    mem: str | None = None
    """Memory of a job as SLURM writes it; None = the profile's, or the cluster's default where that is all."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A grid of fine-tunings. Every combination of the axes is one cell, run once, whatever happens meanwhile."""

    out: str
    """Folder of the sweep; the same command again runs what is missing."""
    axes: dict[str, Any] = field(default_factory=dict)
    """Dotted key of the fine-tune configuration -> list of values. A value may be a table of several keys that belong
    together, with an optional `name`; the axis may then have any name. `augment_without` lists augmentation parts to
    switch off one at a time (nothing = the full recipe)."""
    variant: list[dict[str, Any]] = field(default_factory=list)
    """Variants of the recipe for an ablation: tables of a `name`, as tables print it, and the dotted keys that differ
    from `finetune`. The recipe itself is trained, too."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """What all cells share, as `cxrdist finetune` takes it."""
    include: list[dict[str, Any]] | dict[str, Any] = field(default_factory=list)
    """One or more tables of axis -> value(s); only cells that agree with at least one of them are kept."""
    exclude: list[dict[str, Any]] | dict[str, Any] = field(default_factory=list)
    """One or more tables of axis -> value(s); cells that agree with all of a table's entries are left out."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Hyper-parameter search within each cell."""
    shards: list[str] | str | None = None
    """Axis `shards`, in place of the spec's; several are separated by commas."""
    init: list[str] | str | None = None
    """Axis `init`, in place of the spec's."""
    label_fraction: Annotated[list[float] | float | str | None, "(0, 1]"] = None
    """Axis `label_fraction`, in place of the spec's."""
    mode: list[str] | str | None = None
    """Axis `mode`, in place of the spec's."""
    seed: Annotated[list[int] | int | str | None, SEEDS] = None
    """Axis `seed`, in place of the spec's."""
    cross_evaluate: bool = False
    """True: every cell is also tested on the other shard sets of the axis, over the shared labels."""
    executor: Literal["ray", "slurm-array"] = "ray"
    """ray: cells share this machine, or a job's nodes. slurm-array: cells are small jobs of a SLURM job array, which
    fill gaps in the queue. A sweep may go on with the other one."""
    array: ArrayConfig = field(default_factory=ArrayConfig)
    """Of executor slurm-array."""
    trials: Annotated[int | None, "[1, inf)"] = None
    """Trials at a time on a machine; None = by its cores (CPU) or by its GPUs and `gpus_per_trial`."""
    cpus_per_trial: Annotated[int, "[1, 1024]"] = 1
    """Cores, and threads, of one trial."""
    gpus_per_trial: Annotated[float | None, "[0, 1024]"] = None
    """Share of a GPU that a trial takes; 0.25 puts four on one. None = one where there is a GPU, otherwise 0."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda, for all trials."""
    stage: Literal["none", "ram", "disk"] = "none"
    """Where nodes copy shard sets before reading: ram is /dev/shm, disk the node's own disk."""
    cache: str | None = None
    """Folder of decoded images and features that trials share; None = OUT/cache, one copy for all nodes. A folder of
    each node's own, such as /dev/shm/me or '$SLURM_TMPDIR' (filled in on the node), gives one copy a node."""
    whole_models: bool = False
    """Linear cells: True writes backbone and head into every model.safetensors; False writes heads, and the frozen
    networks once under OUT/backbones."""
    track: str | None = None
    """wandb, mlflow, or both separated by a comma: mirror the numbers of all cells there; None = nowhere."""
    retries: Annotated[int, "[0, inf)"] = 2
    """Attempts more, of a cell that fails."""
    start_seconds: Annotated[float, "(0, inf)"] = 120.0
    """Time that Ray gets to start or to answer, after which the sweep stops with an error."""
    dry_run: bool = False
    """True: list the cells and the estimated cost, run nothing."""
