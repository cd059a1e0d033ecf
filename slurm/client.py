"""Asking SLURM: every call has a bound, and errors are one line with the fix."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from slurm import gpus
from slurm.errors import FailedError, InputError
from slurm.inherited import for_slurm

CALL_S = 60.0
"""Bound on one call of a SLURM command."""

SBATCH_S = 120.0
"""Bound on sbatch, which tries again by itself while the controller is busy."""

PING_S = 20.0
"""Bound on asking whether the controller lives."""

ACTIVE = {"PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
          "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "STOPPED"}  # fmt: skip
"""States of a job that may still write to its run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobInfo:
    """One job as SLURM knows it."""

    job_id: str
    """Number, or number_part of a job array."""
    state: str
    """PENDING, RUNNING, COMPLETED, FAILED, ...; UNKNOWN when SLURM has forgotten it."""
    reason: str = ""
    """Why it waits or ended, in SLURM's word; empty when there is nothing to say."""
    restarts: int = 0
    """How often it was requeued."""
    nodes: str = ""
    """Nodes it runs on, in SLURM's notation."""
    run_time: str = ""
    """Time of the present stretch."""
    start: str = ""
    """Start of the present stretch, or the expected start of a waiting job."""
    preempted: bool = False
    """Whether the present stretch is being ended for a job of higher priority."""
    waits_for: tuple[str, ...] = ()
    """Numbers of the jobs that it waits for."""

    @property
    def active(self) -> bool:
        """Whether it waits, runs or ends just now."""
        return self.state in ACTIVE


class UnreachableError(FailedError):
    """SLURM cannot be reached just now; the same may work in a minute."""


class NoAnswerError(UnreachableError):
    """SLURM gave no answer in time: what was asked for may have been done nevertheless."""


def call(*words: str, seconds: float = CALL_S, cluster: str | None = None) -> str:
    """Run a SLURM command and return what it prints.

    Args:
        words: The command.
        seconds: Bound on its answer.
        cluster: See slurm.inherited.for_slurm.

    Raises:
        FailedError: the command is absent, SLURM does not answer, or it refuses; one line with the fix.
    """
    need(words[0])
    if (asked := (os.environ.get("SLURM_CONF", ""), cluster)) not in _answered:
        ping(cluster)
        _answered.add(asked)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=for_slurm(cluster))
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(
            f"{words[0]} gave no answer in {seconds:.0f} s: the controller is overloaded or down; try again, see "
            "`scontrol ping`"
        ) from error
    if done.returncode:
        raise explain(words[0], done.stderr or done.stdout)
    # With SLURM_CLUSTERS set, sinfo and squeue print a headline that -h does not take away.
    return re.sub(r"^CLUSTER: .*\n", "", done.stdout, flags=re.MULTILINE)


def need(*commands: str) -> None:
    """Refuse, before any work, what will need SLURM commands that are not here.

    Raises:
        FailedError: naming the first that is absent.
    """
    for command in commands:
        if shutil.which(command) is None:
            raise FailedError(f"no {command} here: run this on the cluster's login node, or load its SLURM module")


def ping(cluster: str | None = None) -> None:
    """Make sure that a controller answers: a ping knows at once what other commands try for up to 18 s to find out.

    Raises:
        FailedError: scontrol absent, or no controller answers, or munge does not.
    """
    need("scontrol")
    with contextlib.suppress(subprocess.TimeoutExpired):  # whatever is asked next has a bound of its own
        done = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=PING_S, env=for_slurm(cluster)
        )
        if "is DOWN" in done.stdout and "is UP" not in done.stdout:
            first = done.stdout.strip().splitlines()[0]
            raise explain("scontrol ping", done.stderr if done.stderr.strip() else f"{first}: connection refused")
        if done.returncode and "is UP" not in done.stdout:
            raise explain("scontrol ping", done.stderr or done.stdout)


_answered: set[tuple[str, str | None]] = set()
"""Configurations and clusters whose controller has answered this process."""


def explain(command: str, text: str) -> FailedError:
    """Return the error for what a SLURM command wrote to stderr."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in text.splitlines() if line.strip()]
    message = lines[-1] if lines else "no message"
    lower = text.lower()
    if "munge" in lower or "authentication" in lower or "credential" in lower:
        return UnreachableError(
            f"{command}: munge, SLURM's authentication, does not answer here ({message}); tell the admins"
        )
    if "unable to contact slurm controller" in lower or "connection refused" in lower or "connect failure" in lower:
        return UnreachableError(
            f"{command}: SLURM's controller does not answer ({message}); see `scontrol ping`, try later"
        )
    if "config" in lower and ("source" in lower or "clustername" in lower):
        return FailedError(f"{command}: SLURM is installed but not configured here ({message}); set SLURM_CONF")
    if "timed out" in lower or "zero bytes were transmitted" in lower:
        return NoAnswerError(f"{command}: SLURM's controller did not answer in time ({message})")
    return FailedError(f"{command}: {message}")


def sbatch(script: Path, *options: str) -> str:
    """Queue a batch script and return the job: its number, or number;cluster when one of several was chosen.

    Raises:
        NoAnswerError: no answer in time; the job may be in the queue.
        FailedError: SLURM absent, or it refused the job.
    """
    answer = call("sbatch", "--parsable", *options, str(script), seconds=SBATCH_S).strip().splitlines()
    if not answer or not re.fullmatch(r"\d+(;\S+)?", answer[-1]):
        raise NoAnswerError(f"sbatch answered {' '.join(answer)!r}, which holds no job number")
    return answer[-1]


def sent_from(script: Path) -> list[str]:
    """Return the numbers of this user's jobs that wait or run and were made by a batch script, oldest first.

    Raises:
        FailedError: SLURM absent or not answering.
    """
    rows = [line.split("|", 1) for line in call("squeue", "--me", "-h", "-o", "%F|%o").splitlines()]
    wanted = os.path.realpath(script)
    return sorted({number for number, path in rows if os.path.realpath(path) == wanted}, key=int)


def job(job_id: str) -> JobInfo:
    """Return what SLURM knows of a job: from the controller, else from the accounting.

    Args:
        job_id: Number, number_part of a job array, or number;cluster.

    Raises:
        FailedError: SLURM absent or not answering.
    """
    records = parts(job_id)
    job_id, _, cluster = job_id.partition(";")
    if not records:
        return _from_accounting(job_id, cluster or None)
    # A job array has a record per part: one that is still active speaks for all, else one that did not succeed.
    for wanted in (lambda info: info.active, lambda info: info.state != "COMPLETED", lambda info: True):
        for info in records:
            if wanted(info):
                return dataclasses.replace(info, job_id=job_id)
    return records[0]


def parts(job_id: str) -> list[JobInfo]:
    """Return what the controller knows of a job, of a job array one for each part; nothing where it has forgotten it.

    Args:
        job_id: see `job`.

    Raises:
        FailedError: SLURM absent or not answering.
    """
    job_id, _, cluster = job_id.partition(";")
    try:
        text = call("scontrol", "-o", "show", "job", job_id, cluster=cluster or None)
    except FailedError as error:
        if "Invalid job id" not in str(error):
            raise
        return []
    return [_record(line) for line in text.splitlines() if line.startswith("JobId=")]


def _record(line: str) -> JobInfo:
    facts = dict(re.findall(r"(\w+)=(\S*)", line))
    state, reason = facts.get("JobState", "UNKNOWN"), facts.get("Reason", "None")
    # A cancelled job keeps what it had waited for, which is no longer a reason; a dependency that failed is one.
    stale = state == "CANCELLED" and not reason.startswith("Dependency")
    return JobInfo(
        job_id=facts["JobId"],
        state=state,
        reason="" if stale or reason == "None" else reason,
        restarts=int(facts.get("Restarts", "0")),
        nodes="" if facts.get("NodeList") in (None, "(null)") else facts["NodeList"],
        run_time=facts.get("RunTime", ""),
        start="" if facts.get("StartTime") in (None, "Unknown") else facts["StartTime"],
        preempted=facts.get("PreemptTime", "None") not in ("None", "Unknown", ""),
        waits_for=tuple(re.findall(r"after\w*:(\d+)", facts.get("Dependency", ""))),
    )


def _from_accounting(job_id: str, cluster: str | None) -> JobInfo:
    if shutil.which("sacct") is None:
        return JobInfo(job_id=job_id, state="UNKNOWN")
    try:
        wanted = "JobIDRaw,State,NodeList,Elapsed,Start"
        text = call("sacct", "-n", "-X", "-P", "-D", "-o", wanted, "-j", job_id, cluster=cluster)
    except FailedError:  # accounting is optional
        return JobInfo(job_id=job_id, state="UNKNOWN")
    rows = [line.split("|") for line in text.splitlines() if line.strip()]
    if not rows:
        return JobInfo(job_id=job_id, state="UNKNOWN")
    # One row per stretch of each part of an array: the last stretch of a part tells how it ended.
    parts: dict[str, list[list[str]]] = {}
    for row in rows:
        parts.setdefault(row[0], []).append(row)
    stretches = next((part for part in parts.values() if part[-1][1] != "COMPLETED"), list(parts.values())[-1])
    _, state, nodes, elapsed, start = stretches[-1]
    return JobInfo(
        job_id=job_id, state=state.split()[0], restarts=len(stretches) - 1, nodes=nodes, run_time=elapsed, start=start
    )  # fmt: skip


def active(job_ids: Iterable[str]) -> list[JobInfo]:
    """Return those of the jobs that wait or run."""
    return [info for info in map(job, job_ids) if info.active]


def cancel(job_ids: Iterable[str]) -> list[str]:
    """Cancel those of the jobs that are active and return their numbers."""
    numbers: list[str] = []
    for name in job_ids:
        number, _, cluster = name.partition(";")
        if job(name).active:
            call("scancel", number, cluster=cluster or None)
            numbers.append(number)
    return numbers


def max_array_size() -> int:
    """Return the most parts that a job array of this cluster may have when they are counted from 0."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition, over all kinds of its nodes."""

    name: str
    default: bool
    up: bool
    minutes: float
    """Its time limit; infinity when it has none."""
    kinds: tuple[tuple[int, dict[str, int]], ...]
    """Its kinds of nodes: how many there are, and what GPUs each has, by type (slurm.gpus.counts)."""

    def nodes(self, gpus: int = 0, kind: str = "") -> int:
        """Return how many of its nodes have so many GPUs of a type; "" counts all types."""
        return sum(number for number, has in self.kinds if (has.get(kind, 0) if kind else sum(has.values())) >= gpus)

    @property
    def most_gpus(self) -> int:
        """The most GPUs that one of its nodes has."""
        return max((sum(has.values()) for _, has in self.kinds), default=0)


def partitions() -> dict[str, Partition]:
    """Return the cluster's partitions by name."""
    found: dict[str, Partition] = {}
    for line in call("sinfo", "-h", "-a", "-o", "%P|%a|%l|%D|%G").splitlines():
        name, up, limit, nodes, gres = line.strip().split("|")
        default, name = name.endswith("*"), name.rstrip("*")
        before = found.get(name)
        found[name] = Partition(
            name=name,
            default=default,
            up=up == "up",
            minutes=_limit(limit),
            kinds=(*(before.kinds if before else ()), (int(nodes), gpus.counts(gres))),
        )
    return found


def not_among(name: str, known: Iterable[str]) -> str:
    """That a partition is unknown, which are known, and which one may have been meant."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"partition {name!r} is unknown{hint}; this cluster has {', '.join(names)}"


def _limit(text: str) -> float:
    from slurm.profiles import time_seconds

    try:
        return time_seconds(text) / 60
    except InputError:  # infinite, n/a
        return float("inf")
