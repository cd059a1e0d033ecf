"""A Ray cluster over the nodes of one job: the head and the program on the first node, a worker on each other one.

Every job has its own port, client port and temporary folder, so that two jobs may share a node. The nodes find each
other by one TCP connection from each worker to the first node; when that closes, the worker's Ray ends too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from slurm import atomic, hosts, meeting
from slurm.errors import FailedError
from slurm.fence import Fence
from slurm.inherited import for_ranks
from slurm.launch import Outcome, StopSignals, run_shielded
from slurm.processes import SAFE_PATH, end_tree, python
from slurm.task import Task

START_S = 180.0
"""Bound on the start of Ray on all nodes."""
TRIES = 3
"""So often the Ray head is started before the job fails."""
RAY = "ray.scripts.scripts"
STARTED = "Ray runtime started"


def run(task: Task, asked: StopSignals, fence: Fence, node: int, nodes: int) -> Outcome:
    """Run one node's part and return how the program ended (workers: once the first node has finished)."""
    head, own = hosts.head_and_own(os.environ.get("SLURM_JOB_NODELIST", "localhost"), node)
    stretch = fence.owner.removeprefix("job ")
    token = Path(task.folder) / f".ray-{stretch}"
    place = meeting.place(Path(task.folder), fence.owner)
    if node == 0:
        _write_token(token)
    _await(token.is_file, None, f"the first node's {token}")
    # Only this job's processes may talk to its Ray: others who reach the port could run code as this user.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    temporary = _own_folder() / stretch
    resources = [
        f"--num-cpus={task.cpus_per_rank * task.ranks_per_node}",
        f"--num-gpus={task.gpus_per_node}",
        f"--node-ip-address={own}",
        "--disable-usage-stats",
    ]
    try:
        if node == 0:
            return _first(task, asked, fence, nodes, head, place, [*resources, f"--temp-dir={temporary}"])
        return _other(asked, head, meeting.published(place, TRIES * START_S), resources)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if node == 0:
            token.unlink(missing_ok=True)
            place.unlink(missing_ok=True)


def _own_folder() -> Path:
    """Return this user's folder for Ray's sockets and logs on this node, which no other user can enter."""
    folder = Path(f"/tmp/cxrdist-ray-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise FailedError(f"{folder} on {socket.gethostname()} belongs to another user; ask them or root to remove it")
    folder.chmod(0o700)
    return folder


def _write_token(path: Path) -> None:
    atomic.write(path, secrets.token_hex(32))


def _first(
    task: Task, asked: StopSignals, fence: Fence, nodes: int, head: str, place: Path, options: list[str]
) -> Outcome:
    ray, port, meet = _head(nodes, options)
    with meet:
        workers: list[socket.socket] = []
        try:
            meeting.publish(place, port)
            meet.settimeout(START_S)
            for _ in range(nodes - 1):
                try:
                    workers.append(meet.accept()[0])
                except TimeoutError:
                    # Ray works with the nodes it has; the program may still finish.
                    print(f"cxrdist: {len(workers) + 1} of {nodes} nodes joined Ray in {START_S:.0f} s", flush=True)
                    break
            print(f"cxrdist: Ray runs on {len(workers) + 1} of {nodes} nodes at {head}:{port}", flush=True)
            env = {**dict(task.env), "RAY_ADDRESS": f"{head}:{port}"}
            return run_shielded(
                [list(task.words)], env=env, threads=task.cpus_per_rank, patience_s=min(task.patience_s, 30.0),
                relay=signal.SIGINT, abort=lambda: fence.lost() or _gone(ray, "the Ray head"), asked=asked,
            )  # fmt: skip
        finally:
            for worker in workers:
                worker.close()
            end_tree(ray, patience=10.0)


def _head(nodes: int, options: list[str]) -> tuple[subprocess.Popen[bytes], int, socket.socket]:
    """Start the Ray head on free ports and return it, its port, and the socket (the next port) for the other nodes.

    Ray takes seconds to listen; when another process takes one of its ports in between, other ports are tried.
    """
    start = meeting.job_port()
    for attempt in range(TRIES):
        port = meeting.free_port(start, offsets=(0, 1, 2, 20))
        start = port + 40
        with contextlib.ExitStack() as held:
            meet = held.enter_context(socket.create_server(("", port + 1), backlog=max(8, nodes)))
            ports = [f"--port={port}", f"--ray-client-server-port={port + 2}"]
            ports.append(f"--dashboard-agent-listen-port={port + 20}")
            ray, up = _start(["start", "--head", "--block", "--include-dashboard=false", *ports, *options])
            try:
                _await(up, ray, "the Ray head")
            except BaseException as error:
                ended = ray.poll() is not None
                end_tree(ray, patience=10.0)
                if not (isinstance(error, FailedError) and ended and attempt + 1 < TRIES):
                    raise
                print(f"cxrdist: {error} at port {port}; trying other ports", flush=True)
                continue
            held.pop_all()
            return ray, port, meet
    raise AssertionError("the last try returns or raises")


def _other(asked: StopSignals, head: str, port: int, options: list[str]) -> Outcome:
    listen = f"--dashboard-agent-listen-port={meeting.free_port(port + 20)}"
    ray, up = _start(["start", "--block", f"--address={head}:{port}", listen, *options])
    try:
        _await(up, ray, "the Ray worker")
        with socket.create_connection((head, port + 1), timeout=START_S) as line:
            line.settimeout(1.0)
            while ray.poll() is None:
                try:
                    if not line.recv(1):
                        return Outcome(0, False)
                except TimeoutError:
                    continue
                except OSError:
                    break  # the first node is gone
    finally:
        end_tree(ray, patience=10.0)
    return Outcome(1, asked.times > 0)


def _start(words: list[str]) -> tuple[subprocess.Popen[bytes], Callable[[], bool]]:
    """Start `ray WORDS` behind the shield; the second value tells whether Ray has said that it runs."""
    env = {**for_ranks(), "PYTHONUNBUFFERED": "1", SAFE_PATH: "1"}
    process = subprocess.Popen(
        python("-m", "slurm.shield", RAY, *words),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, process_group=0,
    )  # fmt: skip
    up = threading.Event()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            if STARTED in text:
                up.set()
            elif "rror" in text:
                print(f"ray: {text}", flush=True)

    threading.Thread(target=follow, daemon=True).start()
    return process, up.is_set


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes] | None, what: str) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        reason = _gone(process, what) if process else None
        if reason or time.monotonic() > deadline:
            raise FailedError(reason or f"{what} did not start in {START_S:.0f} s")
        time.sleep(0.1)


def _gone(process: subprocess.Popen[bytes], what: str) -> str | None:
    return None if process.poll() is None else f"{what} ended with code {process.returncode}"
