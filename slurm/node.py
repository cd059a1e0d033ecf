"""What runs on each node of a job: submitit starts one task per node, and the task starts the ranks.

A task holds names and numbers only. Whether to begin, to go on or to do nothing is read from the run's folder each
time, because a requeued job runs the very same task again, possibly on other or fewer nodes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from slurm import environment, hosts, meeting, memory, requeue
from slurm import task as queued
from slurm.errors import FailedError, InputError
from slurm.fence import Fence
from slurm.inherited import for_ranks
from slurm.launch import Outcome, StopSignals, run_shielded, torchrun
from slurm.processes import python
from slurm.requeue import STOPPED
from slurm.signals import STOP_SIGNALS

LATE_S = 90.0
"""What another node wrote is looked for so long (seconds): NFS may keep an old view of a folder for 60."""
PREPARE_S = 300.0
"""Bound on freezing a run whose input was made by an earlier job."""


def run(task: queued.Task) -> None:
    """Do a task on this node; never returns an error by exception, so that nothing but the exit code counts."""
    # In place of submitit's handlers: the one for USR2 would requeue the job at once, saved or not.
    asked = StopSignals()
    asked.listen()
    try:
        code = node_main(task, asked)
    except (FailedError, InputError) as error:
        print(f"cxrdist: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
        _mark_failure(task)
    except Exception:
        _mark_failure(task)
        raise
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what is left is to report
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # not SystemExit: a hanging thread must not keep the node


class Task(queued.Task):
    """A task under the name by which jobs hold it that were queued before `run` was."""

    def __call__(self) -> None:
        """Do it on this node."""
        run(self)


def node_main(task: queued.Task, asked: StopSignals) -> int:
    """Run a task on this node and return 0 (complete), 75 (stopped, to be requeued) or the failing exit code."""
    job, restart = os.environ.get("SLURM_JOB_ID", "0"), os.environ.get("SLURM_RESTART_COUNT", "0")
    node, nodes = int(os.environ.get("SLURM_NODEID", "0")), int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if is_done(task):
        print(f"cxrdist: {task.done} exists: nothing left to do", flush=True)
        return 0
    fence = Fence(Path(task.folder), f"job {job}.{restart}")
    if node == 0:
        fence.claim()
        with (Path(task.folder) / "stretches.jsonl").open("a") as log:
            log.write(json.dumps({"job": job, "restart": int(restart), "nodes": nodes, "time": time.time()}) + "\n")
        environment.write(Path(task.folder) / f"environment-{job}.json", dict(task.env))
    print(
        f"cxrdist: job {job}, stretch {int(restart) + 1}, node {node + 1} of {nodes} ({socket.gethostname()})",
        flush=True,
    )
    _prepare(task, node)
    killed = memory.kills()
    outcome = _run(task, asked, fence, node, nodes)
    killed = memory.kills() - killed
    if outcome.code == 0 and not outcome.stopped and node == 0:
        _look_for_done(task, asked, fence)
    if fence.lost() or is_done(task):
        return outcome.code
    if task.done is None and outcome.code == 0:
        if task.mark and node == 0:
            Path(task.mark).touch()
        return 0
    if outcome.stopped:
        # The first node's code requeues the job. It ends last: srun ends all others on the first code but 0.
        time.sleep(1.0 if nodes > 1 else 0.0)
        return STOPPED if outcome.code or node == 0 else 0
    if outcome.code:
        full = f"the kernel killed {killed} of its processes because memory ran out: ask for more (mem)"
        reason = full if killed else ""
        if reason:
            print(f"cxrdist: {reason}", file=sys.stderr, flush=True)
        _mark_failure(task, reason)
        return outcome.code
    if node > 0:
        return 0
    if task.kind == "ranks":
        return STOPPED  # the ranks were asked to stop without us (a signal sent to them alone)
    print(f"cxrdist: the program ended with 0 but did not write {task.done}", file=sys.stderr, flush=True)
    return 1


def _look_for_done(task: queued.Task, asked: StopSignals, fence: Fence) -> None:
    """Wait until the file that ends the work can be seen from this node, where nothing but its absence says otherwise.

    Another node may have written it, and a network file system goes on for a while with what it last knew of a folder.
    """
    deadline = time.monotonic() + LATE_S
    while task.done and time.monotonic() < deadline and not asked.times and not fence.lost():
        with contextlib.suppress(OSError):
            os.listdir(Path(task.done).parent)  # makes the file system ask again
        if is_done(task):
            return
        time.sleep(0.5)


def _mark_failure(task: queued.Task, reason: str = "") -> None:
    """Say that this node failed by itself: srun then stops the others, which must not look like a request to stop."""
    job, restart = os.environ.get("SLURM_JOB_ID", "0"), os.environ.get("SLURM_RESTART_COUNT", "0")
    with contextlib.suppress(OSError):
        (Path(task.folder) / requeue.failure_mark(job, restart)).write_text(reason)


def _prepare(task: queued.Task, node: int) -> None:
    if task.prepared is None or not task.prepare:
        return
    if node == 0 and not Path(task.prepared).is_file():
        try:
            done = subprocess.run(python("-m", *task.prepare), timeout=PREPARE_S, env=for_ranks())
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"the run could not be prepared in {PREPARE_S:.0f} s; is its input reachable?") from error
        if done.returncode:
            raise FailedError(f"the run could not be prepared (exit code {done.returncode}); see the line above")
    deadline = time.monotonic() + PREPARE_S
    while not Path(task.prepared).is_file():
        if time.monotonic() > deadline:
            raise FailedError(
                f"{task.prepared} did not appear in {PREPARE_S:.0f} s: is the folder shared by the nodes?"
            )
        time.sleep(0.5)


def is_done(task: queued.Task) -> bool:
    """Whether the work is known to be complete."""
    return task.done is not None and Path(task.done).is_file()


def rank_environment(task: queued.Task, own: str | None) -> dict[str, str]:
    """Variables of the ranks on this node.

    Args:
        task: whose variables are taken over.
        own: this node's address as the other nodes reach it; None on a single node.
    """
    env = dict(task.env)
    if task.gpus_per_node:
        env["CXRDIST_GPUS_PER_NODE"] = str(task.gpus_per_node)
    if "GLOO_SOCKET_IFNAME" not in os.environ and own is not None:
        # gloo would take the address that the host's own name has: on Debian 127.0.1.1, where no other node gets to.
        name = hosts.interface(own)
        if name is not None:
            env.setdefault("GLOO_SOCKET_IFNAME", name)
    return env


def _run(task: queued.Task, asked: StopSignals, fence: Fence, node: int, nodes: int) -> Outcome:
    env = rank_environment(task, None)
    part = os.environ.get("SLURM_ARRAY_TASK_ID", "0")
    task = dataclasses.replace(task, words=tuple(word.replace("{part}", part) for word in task.words))
    if task.kind == "ray":
        from slurm import ray_cluster

        return ray_cluster.run(task, asked, fence, node, nodes)
    place = meeting.place(Path(task.folder), fence.owner)
    relay = signal.SIGUSR2 if task.listens else signal.SIGINT
    if task.kind == "command" or (nodes == 1 and task.ranks_per_node == 1 and task.max_restarts == 0):
        if node > 0:
            return Outcome(0, False)
        commands, threads = [list(task.words)], task.cpus_per_rank * task.ranks_per_node
    else:
        head, own = hosts.head_and_own(os.environ["SLURM_JOB_NODELIST"], node)
        env = rank_environment(task, own)
        module, *args = task.words
        words = torchrun(
            module, args, nproc=task.ranks_per_node, nnodes=nodes, endpoint=f"{head}:{place if nodes > 1 else 0}",
            run_id=fence.owner.replace(" ", "-"), node=node, local_addr=own, max_restarts=task.max_restarts,
        )  # fmt: skip
        commands, threads = [words], task.cpus_per_rank
    try:
        return run_shielded(
            commands, env=env, threads=threads, patience_s=task.patience_s, relay=relay, abort=fence.lost, asked=asked
        )
    finally:
        if node == 0:
            place.unlink(missing_ok=True)
