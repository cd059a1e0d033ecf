"""The launcher: starts the ranks of one node, passes stop signals on, waits, and returns one exit code.

Process tree on a node:  launcher (this file)  ->  torchrun's agent (behind slurm.shield)  ->  one process per rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from slurm import by_node, meeting
from slurm.errors import InputError
from slurm.inherited import LAUNCHER, for_ranks
from slurm.processes import SAFE_PATH, children, end_tree, python, send
from slurm.shield import SHIELDED, TORCHRUN
from slurm.signals import STOP_SIGNALS

PATIENCE_S = 600.0
"""On this machine, ranks that still run so long (seconds) after a stop signal are ended by force: they hang."""
REPEAT_S = 1.0
"""A stop signal is repeated this often (seconds) until the workers ended: they may not have listened yet."""
FORCE_AFTER = 3
"""Asked to stop this many times by hand (Ctrl-C), the launcher ends the workers without waiting for a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the workers ended."""

    code: int
    """0, or the first failing process's exit code (128 + N for a death by signal N)."""
    stopped: bool
    """Whether a stop was asked for while they ran."""


def local(
    module: str,
    args: Sequence[str],
    *,
    nproc: int,
    nnodes: int = 1,
    max_restarts: int = 0,
    env: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> int:
    """Run a worker module on this machine under torchrun and return its exit code.

    Stop signals to this process (Ctrl-C, TERM, USR1, USR2) reach the workers as USR2; they save and end with code 0.
    One rank without restarts needs no torchrun: the module then runs alone, without RANK and WORLD_SIZE set.

    Args:
        module: Name of the worker module, as in `python -m module`.
        args: Its arguments.
        nproc: Ranks per node, at least 1.
        nnodes: Agents to start on this machine, each with `nproc` ranks: a rehearsal of several nodes.
        max_restarts: How often torchrun restarts all ranks after one of them died.
        env: Environment variables to add or replace.
        patience_s: Seconds after a stop signal at which ranks that still run are ended by force.

    Returns:
        0 when every rank ended with 0; otherwise the first failing agent's code, 128 + N for a death by signal N.

    Raises:
        InputError: nproc or nnodes below 1, or max_restarts below 0.
    """
    if nproc < 1 or nnodes < 1 or max_restarts < 0:
        raise InputError(
            f"nproc {nproc} and nnodes {nnodes} must be at least 1, max_restarts {max_restarts} at least 0"
        )
    agents = nproc > 1 or nnodes > 1 or max_restarts > 0
    added = dict(env or {})
    if sys.platform == "linux":
        # Ranks of one machine talk over loopback; looking up the host's name can cost 10 s without a name server.
        added.setdefault("GLOO_SOCKET_IFNAME", "lo")
    threads = max(1, available_cores() // (nproc * nnodes))
    with tempfile.TemporaryDirectory(prefix="cxrdist-") as folder:
        # Port 0: the agent that hosts takes a free one; several agents agree on one through a file.
        run_id = f"local-{uuid.uuid4().hex[:12]}"
        place = f"127.0.0.1:{0 if nnodes == 1 else meeting.place(Path(folder), 'port')}"
        commands = [
            torchrun(
                module, args, nproc=nproc, nnodes=nnodes, endpoint=place, run_id=run_id,
                node=index, local_addr="127.0.0.1", max_restarts=max_restarts,
            )
            for index in range(nnodes)
        ]  # fmt: skip
        return run_shielded(
            commands if agents else [[module, *args]], env=added, threads=threads, patience_s=patience_s
        ).code


def torchrun(
    module: str,
    args: Sequence[str],
    *,
    nproc: int,
    nnodes: int,
    endpoint: str,
    run_id: str,
    node: int,
    local_addr: str,
    max_restarts: int,
    join_timeout_s: int = 300,
) -> list[str]:
    """Return the words after `python -m slurm.shield` that start one node's torchrun agent.

    The rendezvous is c10d with the ranks in the order of the nodes (slurm.by_node), at `endpoint`: HOST:PORT, or
    HOST:FILE for a port that node 0 takes and publishes in FILE (slurm.meeting), or HOST:0 where there is one node.
    That node 0 hosts it is said outright, because torch guesses it from host names, and wrongly so where several nodes
    share a name or a name has several addresses.
    """
    return [
        TORCHRUN,
        f"--nnodes={nnodes}",
        f"--nproc-per-node={nproc}",
        f"--max-restarts={max_restarts}",
        f"--rdzv-backend={by_node.NAME}",
        f"--rdzv-endpoint={endpoint}",
        f"--rdzv-id={run_id}",
        f"--rdzv-conf=node={node},is_host={int(node == 0)},join_timeout={join_timeout_s},timeout={join_timeout_s}",
        f"--local-addr={local_addr}",
        "-m",
        module,
        *args,
    ]


def run_shielded(
    commands: Sequence[Sequence[str]],
    *,
    env: Mapping[str, str],
    threads: int,
    patience_s: float,
    relay: int = signal.SIGUSR2,
    abort: Callable[[], str | None] | None = None,
    asked: StopSignals | None = None,
) -> Outcome:
    """Start `python -m slurm.shield WORDS` for each command, relay stop signals, wait for all.

    Args:
        commands: Words of each process; a torchrun agent, or a worker module by itself.
        env: Variables added to this process's environment, from which another launcher's are taken out.
        threads: OMP_NUM_THREADS of a rank, unless the environment or `env` already says it.
        patience_s: Seconds after a stop signal at which workers that still run are ended by force.
        relay: What asks a worker to stop: USR2 for those that listen, INT for programs that may be interrupted.
        abort: StopSignals about twice a second: a reason (text) ends the workers at once, without a checkpoint.
        asked: The stop signals' counter when the caller listens already; None listens here, while the workers run.
    """
    environment = {**for_ranks(), "OMP_NUM_THREADS": str(threads), SAFE_PATH: "1", **env}
    # torchrun's shared store keeps the addresses of ranks that died: a restarted gloo group then waits for them for
    # ever (seen with torch 2.15). With this each restart gets a store of its own.
    environment.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if "OMP_NUM_THREADS" in os.environ and "OMP_NUM_THREADS" not in env:
        environment["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    with contextlib.nullcontext(asked) if asked else StopSignals().listening() as asked:
        started = [(_start(words, environment), words[0] == TORCHRUN) for words in commands]
        try:
            code = _wait(started, asked, patience_s, relay, abort or (lambda: None))
            return Outcome(code, asked.times > 0)
        finally:
            for process, _ in started:
                end_tree(process, patience=10.0)


class StopSignals:
    """Counts the stop signals that this process got."""

    def __init__(self) -> None:
        self.times = 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.times += 1

    def listen(self) -> dict[int, object]:
        """Take the stop signals over and return the handlers that had them. Main thread only."""
        return {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopSignals]:
        """Listen for the time of a `with`; in another thread than the main one it hears nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = self.listen()
        try:
            yield self
        finally:
            for number, handler in before.items():
                # Once asked, this process is about to end by itself; the same request again must not kill it.
                late = self.times > 0 and number != signal.SIGINT
                signal.signal(number, signal.SIG_IGN if late else handler)  # pyright: ignore[reportArgumentType]


def _start(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
    try:
        # A process group of its own: Ctrl-C in a terminal then reaches the launcher only, which relays it once.
        return subprocess.Popen(
            python("-m", "slurm.shield", *words),
            env={**environment, LAUNCHER: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _wait(
    started: Sequence[tuple[subprocess.Popen[bytes], bool]],
    asked: StopSignals,
    patience_s: float,
    relay: int,
    abort: Callable[[], str | None],
) -> int:
    next_look = next_relay = 0.0
    first_asked = None
    while True:
        codes = [process.poll() for process, _ in started]
        failed = [code for code in codes if code]
        if failed or all(code == 0 for code in codes):
            return _exit_code(failed[0]) if failed else 0
        now = time.monotonic()
        if now >= next_look:
            next_look = now + 0.5
            reason = abort()
            if reason:
                _force(started, reason)
                return 1
        if asked.times:
            first_asked = first_asked or now
            if now > first_asked + patience_s:
                _force(started, f"still running {patience_s:.0f} s after they were asked to stop")
                return 1
            if asked.times >= FORCE_AFTER and sys.stderr.isatty():
                return 130
            if now >= next_relay:
                next_relay = now + REPEAT_S
                for process, is_agent in started:
                    send(children(process.pid) if is_agent else [process.pid], relay)
        time.sleep(0.05)


def _force(started: Sequence[tuple[subprocess.Popen[bytes], bool]], reason: str) -> None:
    print(f"cxrdist: ending the workers at once: {reason}", file=sys.stderr, flush=True)
    for process, _ in started:
        end_tree(process, patience=0.0)


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def available_cores() -> int:
    """Return the number of cores this process may use (its affinity, not the machine's total)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
