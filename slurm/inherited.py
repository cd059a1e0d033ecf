"""Variables that belong to another job or launcher and must not reach what is started here.

A shell inside a torchrun worker, a container with defaults for one, or a terminal inside a SLURM job hands its own
coordinates on. A rank that believes them waits for ranks that do not exist; sbatch lets them overrule the script.
Everything that starts ranks takes its environment from `for_ranks`, everything that calls SLURM from `for_slurm`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

LAUNCHER = "CXRDIST_LAUNCHER_PID"
"""In which the launcher tells its agent who its parent is."""
AGENT = "CXRDIST_AGENT_PID"
"""In which torchrun's agent tells its ranks who their parent is."""

RANK_NAMES = frozenset({
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", LAUNCHER, AGENT,
})  # fmt: skip
RANK_PREFIXES = ("TORCHELASTIC_", "PET_")
"""torchrun's coordinates of a rank; PET_ variables are defaults of torchrun's own options."""

SLURM_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})
"""How SLURM is reached; a job's own variables are everything else."""
SLURM_PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SINFO_", "SQUEUE_", "SACCT_", "SCANCEL_",
                  "SCONTROL_", "PMI_", "PMIX_")  # fmt: skip
"""A job's coordinates, and defaults of options that would overrule what we ask for or change what is printed."""


def of_ranks(name: str) -> bool:
    """Whether a variable tells a process which rank it is."""
    return name in RANK_NAMES or name.startswith(RANK_PREFIXES)


def of_a_job(name: str) -> bool:
    """Whether a variable tells a process which SLURM job it is in, or changes what SLURM's commands do."""
    return name.startswith(SLURM_PREFIXES) and name not in SLURM_KEPT


def for_ranks(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment (None: this process's) without the coordinates of a rank."""
    return {name: value for name, value in (environment or os.environ).items() if not of_ranks(name)}


def forget_ranks(environment: MutableMapping[str, str] | None = None) -> None:
    """Remove the coordinates of a rank from an environment (None: this process's); a command is never a rank."""
    environment = os.environ if environment is None else environment
    for name in [name for name in environment if of_ranks(name)]:
        del environment[name]


def for_slurm(cluster: str | None = None) -> dict[str, str]:
    """Return the environment for a SLURM command: no other job's variables, no rank's.

    Args:
        cluster: Which of several clusters to ask; "" is the one this machine belongs to, None what the user's
            SLURM_CLUSTERS says.
    """
    kept = {name: value for name, value in for_ranks().items() if not of_a_job(name)}
    if cluster is not None:
        kept.pop("SLURM_CLUSTERS", None)
    return kept | ({"SLURM_CLUSTERS": cluster} if cluster else {})


def overruled() -> list[str]:
    """Return the user's own defaults for sbatch that are not used, sorted; inside a job they are that job's."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_") and "SLURM_JOB_ID" not in os.environ)
