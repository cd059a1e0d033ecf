"""Whether a request can run: what is wrong by itself, and what the cluster does not have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from slurm import client, container
from slurm.errors import InputError
from slurm.gpus import shown
from slurm.submit import Request


def check_alone(request: Request) -> None:
    """Check of a request what needs no cluster.

    Raises:
        InputError: more nodes at least than at most, several clusters, no image, or a folder that cannot be.
    """
    if request.min_nodes is not None and not 1 <= request.min_nodes <= request.nodes:
        raise InputError(f"--min_nodes {request.min_nodes} must be between 1 and --nodes {request.nodes}")
    if "," in os.environ.get("SLURM_CLUSTERS", ""):
        raise InputError(f"SLURM_CLUSTERS={os.environ['SLURM_CLUSTERS']} names several clusters; choose one")
    _refuse_patterns(request.folder)
    inside = request.profile.container
    if inside and (reason := container.missing(inside)):
        raise InputError(f"profile {request.profile.name}: {reason}")
    there = next(folder for folder in (request.folder, *request.folder.parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file, not a folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there} cannot be written to; choose another --out")


def check(request: Request) -> None:
    """Compare a request with the cluster before anything is written.

    Raises:
        InputError: partition unknown or closed, more nodes, GPUs or time than it has, or no pyxis for its image.
        FailedError: SLURM absent or not answering.
    """
    profile = request.profile
    check_alone(request)
    if request.array is not None and request.array > (most := client.max_array_size()):
        raise InputError(
            f"--parts {request.array}: this cluster takes job arrays of at most {most} parts (MaxArraySize)"
        )
    known = client.partitions()
    names = request.where.split(",") if request.where else [name for name, one in known.items() if one.default]
    for name in [*names] or [None]:
        if name not in known:
            none = f"the cluster has no default partition; this cluster has {', '.join(sorted(known))}"
            raise InputError(f"profile {profile.name}: {client.not_among(name, known) if name else none}")
    misfits = [_misfit(request, known[name], known) for name in names]
    if all(misfits):  # in a list of partitions one is enough
        raise InputError(f"profile {profile.name}: {'; '.join(filter(None, misfits))}")
    inside = profile.container
    if inside and inside.runtime == "pyxis" and "--container-image" not in client.call("srun", "--help"):
        raise InputError(
            f"profile {profile.name}: [container] srun of this cluster has no --container-image (no pyxis)"
        )


def _refuse_patterns(folder: Path) -> None:
    """Refuse a path that SLURM would not take as it is written: in names of logs %j is the job's number."""
    found = re.search(r"""[%\\'"\x00-\x1f]""", str(folder))
    if found:
        raise InputError(
            f"{folder.parent}: SLURM gives {found[0]!r} in the path of a log a meaning of its own (%j is the job's "
            "number); choose an --out without it"
        )


def _misfit(request: Request, partition: client.Partition, known: Mapping[str, client.Partition]) -> str | None:
    """Return why a partition can never run a request, or None."""
    profile, gpus, kind = request.profile, request.task.gpus_per_node, request.profile.gpu_type
    where = f"partition {partition.name}"
    if not partition.up:
        return f"{where} is closed (sinfo -p {partition.name}); choose another of {', '.join(sorted(known))}"
    if request.nodes > partition.nodes():
        return f"{where} has {partition.nodes()} nodes, fewer than the {request.nodes} asked for"
    fitting = partition.nodes(gpus, kind)
    if gpus and not fitting and not kind:
        return f"{where} has {partition.most_gpus} GPUs on a node, fewer than gpus_per_node = {gpus}"
    if gpus and request.nodes > fitting:
        listed = "; ".join(f"{number} with {shown(has)}" for number, has in partition.kinds)
        asked = f"{gpus} {kind} GPUs" if kind else f"{gpus} GPUs"
        return (
            f"{where} has {fitting} nodes with {asked}, fewer than the {request.nodes} asked for (its nodes: {listed})"
        )
    if profile.minutes > partition.minutes:
        return (
            f"{where} allows {partition.minutes:.0f} minutes, less than time = {profile.time}; a run may take many "
            "stretches, so a shorter time costs nothing"
        )
    return None
