"""A profile written from what sinfo says of a cluster, with comments on what to look at."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from slurm import client, gpus
from slurm.errors import InputError
from slurm.profiles import time_seconds

LONGEST_H = 24
"""Hours of one stretch that a new profile asks for at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes of one kind in a partition."""

    count: int
    gpus: dict[str, int]
    """By type (slurm.gpus.counts)."""
    cores: int
    memory_mib: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A partition as sinfo tells it."""

    name: str
    default: bool
    up: bool
    hours: float
    """Its time limit; infinity when it has none."""
    kinds: tuple[Nodes, ...]

    @property
    def main(self) -> Nodes:
        """The kind of node that there are most of among those with the most GPUs."""
        return max(self.kinds, key=lambda kind: (sum(kind.gpus.values()), kind.count))


QUERY = ("sinfo", "-h", "-a", "-o", "%P|%a|%l|%D|%G|%c|%m")
"""Partition, state, time limit, nodes, generic resources, cores and memory (MiB; `+` where nodes have more)."""


def survey() -> dict[str, Found]:
    """Ask the cluster.

    Raises:
        FailedError: SLURM absent or not answering.
    """
    return parse(client.call(*QUERY).splitlines())


def parse(lines: Iterable[str]) -> dict[str, Found]:
    """The partitions in lines of `QUERY`, by name."""
    found: dict[str, Found] = {}
    for line in lines:
        name, up, limit, nodes, gres, cores, memory = line.strip().split("|")
        kind = Nodes(
            count=int(nodes), gpus=gpus.counts(gres), cores=int(cores.rstrip("+")), memory_mib=int(memory.rstrip("+"))
        )
        default, name = name.endswith("*"), name.rstrip("*")
        kinds = (*(found[name].kinds if name in found else ()), kind)
        found[name] = Found(name=name, default=default, up=up == "up", hours=_hours(limit), kinds=kinds)
    return found


def _hours(limit: str) -> float:
    try:
        return time_seconds(limit) / 3600
    except InputError:  # infinite, n/a
        return float("inf")


def choose(found: dict[str, Found], wanted: str | None) -> Found:
    """The partition that a profile is for: as wanted, else the one with the most GPUs on a node, the default of equals.

    Raises:
        InputError: no such partition, or none is up.
    """
    if wanted is not None:
        if wanted not in found:
            raise InputError(f"--partition {wanted}: {client.not_among(wanted, found)}")
        return found[wanted]
    usable = [one for one in found.values() if one.up]
    if not usable:
        raise InputError("no partition of this cluster is up (sinfo); name one with --partition")
    return max(usable, key=lambda one: (sum(one.main.gpus.values()), one.default))


def text(found: dict[str, Found], chosen: Found) -> str:
    """A commented profile for a partition, in TOML."""
    node = chosen.main
    types = {kind: number for kind, number in node.gpus.items() if number}
    count = sum(types.values())
    ranks = max(count, 1)
    kind = next(iter(types)) if len(types) == 1 else ""
    asked = json.dumps(f"{kind}:{count}") if kind else str(count)
    hours = int(min(chosen.hours, LONGEST_H))
    limit = f"{hours:02}:00:00" if hours else f"00:{max(1, int(60 * chosen.hours)):02}:00"
    cores = max(1, node.cores // ranks)
    lines = [
        "# Written by `cxrdist init-profile` from what sinfo says; look it through.",
        "# `cxrdist doctor --profile FILE` says what does not fit.",
        "#",
        "# Partitions of this cluster (nodes, GPUs and cores of each, time limit):",
        *(f"#   {one.name}{' (default)' if one.default else ''}: {_summary(one)}" for one in found.values()),
        "",
        f"partition = {json.dumps(chosen.name)}",
        '# account = "PROJECT"      # the project that pays; sacctmgr show associations user=$USER',
        f"gpus_per_node = {asked}" + ("" if count else "          # its nodes have no GPUs that SLURM knows of"),
        *(
            [f"# its nodes have GPUs of several types: {', '.join(types)}; choose one as TYPE:NUMBER"]
            if len(types) > 1
            else []
        ),
        f"cpus_per_rank = {cores}         # cores of a node over its ranks ({node.cores} over {ranks})",
        f'mem = "0"                 # all of a node ({node.memory_mib} MiB); less where nodes are shared, e.g. "64G"',
        f'time = "{limit}"         # of one stretch; the partition allows {_limit(chosen.hours)}; a run may take many',
        "signal_delay_s = 120      # seconds before the limit at which the ranks are asked to save and stop",
        "",
        "# Lines of shell that run first on the job's first node. No secrets.",
        "setup = []",
        "",
        "[env]",
        '# NCCL_SOCKET_IFNAME = "ib0"',
        "",
        "[sbatch]                  # any other sbatch option by its long name",
        '# qos = "long"',
        "",
        "# [container]             # jobs in an image: see docs/cluster.md",
        '# image = "/shared/images/cxrdist.sif"',
    ]
    return "\n".join(lines) + "\n"


def _summary(one: Found) -> str:
    kinds = []
    for node in one.kinds:
        held = ", ".join(f"{number} GPUs{f' {kind}' if kind else ''}" for kind, number in node.gpus.items() if number)
        kinds.append(f"{node.count} with {held or 'no GPUs'} and {node.cores} cores")
    return f"{'; '.join(kinds)}; {_limit(one.hours)}" + ("" if one.up else "; closed")


def _limit(hours: float) -> str:
    return "no limit" if hours == float("inf") else f"{hours:g} h"
