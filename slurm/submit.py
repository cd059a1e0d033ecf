"""From a task to a queued job: sbatch text, submission through submitit.

What is sent is exactly the text of FOLDER/job.sbatch, and `sbatch FOLDER/job.sbatch` sends it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from slurm import atomic, client, jobs_file, node, requeue, unnoted
from slurm.errors import FailedError, InputError
from slurm.jobs_file import job_ids
from slurm.processes import SAFE_PATH, python
from slurm.profiles import Profile
from slurm.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A job to be queued."""

    name: str
    """What squeue shows; letters, digits and -_. only."""
    task: Task
    """What each node runs."""
    profile: Profile
    """Where and with what."""
    nodes: int = 1
    """Nodes asked for."""
    min_nodes: int | None = None
    """Start with as few as these when the others are not free; None means exactly `nodes`."""
    after: tuple[str, ...] = ()
    """Numbers of the jobs that must have succeeded first."""
    array: int | None = None
    """Number of parts of a job array; None for an ordinary job."""
    throttle: int | None = None
    """Parts of the array that may run at a time; None sets no limit."""
    partition: str | None = None
    """Instead of the profile's partition."""

    @property
    def folder(self) -> Path:
        """Submission folder."""
        return Path(self.task.folder)

    @property
    def where(self) -> str | None:
        """Partition that is asked for, or several with commas; None is the cluster's default."""
        asked = self.partition or self.profile.partition
        return ",".join(name.strip() for name in asked.split(",")) if asked else None


class _Executor(SlurmExecutor):
    """submitit's executor, for its text, which it makes where SLURM is absent, too; `client.sbatch` sends it."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def text(self) -> str:
        """Return the batch script that `submit` would send."""
        return self._make_submission_file_text(self._submitit_command_str, "")


def task_for(profile: Profile, **values: Any) -> Task:
    """Return a Task with the profile's ranks, cores, GPUs, restarts and variables filled in."""
    defaults = {
        "ranks_per_node": profile.ranks,
        "cpus_per_rank": profile.cpus_per_rank,
        "gpus_per_node": profile.gpus,
        "max_restarts": profile.max_restarts,
        "patience_s": signal_delay(profile) * 0.8,
        "env": tuple(sorted((key, str(value)) for key, value in profile.env.items())),
    }
    return Task(**{**defaults, **values})


def signal_delay(profile: Profile) -> int:
    """Seconds before the time limit at which the stop signal comes: at most half of the limit."""
    return min(profile.signal_delay_s, profile.minutes * 30)


def _executor(request: Request) -> _Executor:
    profile, task, folder = request.profile, request.task, request.folder
    cores = task.ranks_per_node * task.cpus_per_rank
    extra: dict[str, Any] = {"requeue": True}
    if request.min_nodes is not None and request.min_nodes != request.nodes:
        extra["nodes"] = f"{request.min_nodes}-{request.nodes}"
        per_node: dict[str, Any] = {}  # with --ntasks-per-node SLURM would give the fewest nodes even when all are free
    else:
        per_node = {"ntasks_per_node": 1}
    if request.array is not None:
        extra["array"] = f"0-{request.array - 1}" + (f"%{request.throttle}" if request.throttle else "")
    if request.after:
        extra["kill-on-invalid-dep"] = "yes"  # a job whose input failed must not wait for ever
    extra |= profile.gpu_options(task.gpus_per_node)
    extra |= {
        key.replace("_", "-"): value
        for key, value in profile.sbatch.items()
        if value is not False and (task.gpus_per_node or "gpu" not in key)  # mem-per-gpu and their like
    }
    pickle = f'ln -sf task.pkl {shlex.quote(str(folder))}/"${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}'
    pickle += '${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    inside, places = profile.container, (folder.parent, Path.cwd())
    opened = inside.srun(places, profile.env) if inside else []
    words = [*inside.words(places, task.gpus_per_node), "-P"] if inside else python()
    executor = _Executor(folder, python=shlex.join(words))
    executor.update_parameters(
        job_name=request.name,
        partition=request.where,
        account=profile.account,
        nodes=request.nodes,
        **per_node,
        cpus_per_task=cores,
        mem=profile.mem,
        time=profile.minutes,
        signal_delay_s=signal_delay(profile),
        dependency=f"afterok:{':'.join(request.after)}" if request.after else None,
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters=extra,
        # One dead launcher must not leave the others waiting for it. With [sbatch] export = "NONE" srun would hand on
        # nothing of what this script exports.
        srun_args=[
            "--export=ALL",
            "--kill-on-bad-exit=1",
            "--ntasks-per-node=1",
            f"--cpus-per-task={cores}",
            *opened,
        ],
        setup=[
            "umask 077",
            "# a shell inside another job would hand these on",
            "unset SLURM_CLUSTERS" + ("" if request.array is not None else " ${!SLURM_ARRAY_@}"),
            *(f"export {key}={shlex.quote(str(value))}" for key, value in profile.env.items()),
            *profile.setup,
            f"export {SAFE_PATH}=1",  # after the set-up lines, which are the user's own
            "# submitit looks for a job's task under the job's number; so plain sbatch can send this file again",
            pickle,
            f"trap ended={requeue.ENDED} TERM  # outlive it, to say what becomes of the job",
        ],
        teardown=[
            "# decides by the exit status whether the job is complete, failed, or goes back to the queue",
            f"exec {shlex.join(python())} -m slurm.requeue {shlex.quote(str(folder))} $? {profile.max_requeues} $ended",
        ],
    )
    return executor


def text(request: Request) -> str:
    """Return the exact sbatch text of a request; asks nothing of SLURM and writes nothing."""
    return _executor(request).text()


def submit(request: Request) -> str:
    """Queue a job and return its number.

    Raises:
        InputError: the run is in the queue already.
        FailedError: SLURM absent, not answering, or it refused the job; or its folder cannot be written.
    """
    folder = request.folder
    client.ping()
    facts = {
        "submitted_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "name": request.name,
        "nodes": request.nodes,
        "partition": request.where,
        "profile": dataclasses.asdict(request.profile),
        "task": dataclasses.asdict(request.task),
        "after": list(request.after),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    try:
        _make_private(folder)
        with jobs_file.locked(folder, seconds=5.0):
            refuse_queued(folder)
            DelayedSubmission(node.run, request.task).dump(folder / "task.pkl")
            (folder / "task.pkl").chmod(0o600)
            atomic.write(folder / "job.sbatch", _executor(request).text())
            jobs_file.reserve(folder, facts)
            job = _send(folder)
            with _cancelled_if_unknown(folder, job):
                jobs_file.confirm(folder, job)
    except OSError as error:
        raise FailedError(f"{error.filename or folder}: {error.strerror}; nothing was queued") from error
    return job.partition(";")[0]


def _send(folder: Path) -> str:
    """Call sbatch for a reserved submission, and return the job as SLURM names it."""
    try:
        return unnoted.send(folder)
    except client.NoAnswerError as error:
        raise FailedError(
            f"{error}; if its job was queued nevertheless, `cxrdist status {folder.parent}` will show it"
        ) from error
    except FailedError:
        with contextlib.suppress(OSError):
            jobs_file.withdraw(folder)
        raise


@contextlib.contextmanager
def _cancelled_if_unknown(folder: Path, job: str) -> Iterator[None]:
    """Take a job from the queue again when its number cannot be recorded: it would run unknown."""
    try:
        yield
    except OSError as error:
        try:
            client.cancel([job])
            ended = "the job was cancelled"
        except FailedError:
            ended = f"the job could not be cancelled: scancel {job.partition(';')[0]}"
        raise FailedError(
            f"job {job.partition(';')[0]} was queued, but could not be recorded in {folder}/jobs.json"
            f" ({error.strerror}); {ended}"
        ) from error


def refuse_queued(folder: Path) -> None:
    """Refuse to queue a second job for a submission folder: two jobs must not write to one run.

    Raises:
        InputError: a job of it waits or runs, or may yet appear in the queue.
    """
    unnoted.adopt(folder)
    busy = client.active(job_ids(folder))
    if busy:
        raise InputError(
            f"{folder.parent} is in the queue already: job {busy[0].job_id} is {busy[0].state}; wait for it, or "
            f"`cxrdist cancel {folder.parent}`"
        )
    late = unnoted.pending_answer(folder)
    if late and late[1]:
        raise InputError(
            f"{folder.parent}: SLURM gave no answer to its submission at {late[0]}, and the job may still appear in "
            f"the queue; submit again in {late[1]:.0f} s"
        )


def _make_private(folder: Path) -> None:
    """Make the submission folder and, if it is new, the run's folder, for this user alone."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
