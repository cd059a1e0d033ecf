"""A real SLURM cluster of two nodes on this machine, for the tests.

    python tests/slurm/cluster.py up | down | status | env        (root; Debian or Ubuntu)

munged, MariaDB, slurmdbd, slurmctld and one slurmd per node, all from the distribution's packages, with their state in
one folder and ports of their own. Where the kernel allows it each node is a set of namespaces (network, host name,
processes, mounts), so that a node can lose its power; otherwise (or with CXRDIST_TEST_CLUSTER_MODE=loopback) both are
`slurmd -N` on loopback addresses. CXRDIST_TEST_CLUSTER=1 to 9 gives another checkout a cluster of its own.
`up` on a running cluster does nothing; `down` ends exactly the processes that `up` started (process number and start
time must both match what was noted).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import settings
from daemons import ClusterError, end, install, missing_for_cluster, pid_of, run, spawn, until
from settings import BRIDGE, NODES, NUMBER, PORT, STATE, SUBNET, set_hosts, write_config

from slurm.processes import children, send

__all__ = ["NODES", "PORT", "STATE", "Cluster", "ClusterError", "down", "missing_for_cluster", "session", "up"]

# Process 1 of a node: it reaps what is orphaned, until it is killed. No name server can be reached from a node, so
# look-ups must fail at once instead of after 10 s.
NODE_INIT = """
mount -t proc proc /proc; hostname {node}; mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /tmp/cxrdist-ray-0; mount -t tmpfs tmpfs /tmp/cxrdist-ray-0
[ -e /etc/resolv.conf ] && mount --bind {state}/resolv.conf /etc/resolv.conf
ip link set lo up; : > {state}/ready-{node}
trap : TERM INT HUP; while :; do sleep 1000 & wait $!; done
"""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Handle on the running cluster."""

    mode: str

    @property
    def conf(self) -> Path:
        return settings.CONF

    def address(self, node: str) -> str:
        return settings.address(node, self.mode)

    def in_node(self, node: str, *words: str) -> list[str]:
        """Return the words that run a command inside a node."""
        if self.mode != "netns":
            return list(words)
        outer = pid_of(f"node-{node}")
        inner = children(outer) if outer else []
        if not inner:
            raise ClusterError(f"node {node} is off")
        return ["nsenter", "-t", str(inner[0]), "-m", "-u", "-n", "-p", "--", *words]

    def start_node(self, node: str) -> None:
        """Switch a node on (again), and its slurmd."""
        if self.mode == "netns" and not pid_of(f"node-{node}"):
            (STATE / f"ready-{node}").unlink(missing_ok=True)
            script = NODE_INIT.format(node=node, state=STATE)
            unshare = "unshare --net --uts --pid --fork --kill-child --mount".split()
            spawn(f"node-{node}", *unshare, "bash", "-c", script)
            if not until((STATE / f"ready-{node}").exists, 10, 0.02):
                raise ClusterError(f"node {node} did not start: {STATE}/log/node-{node}.out")
            self._plug(node)
        spawn(f"slurmd-{node}", *self.in_node(node, "slurmd", "-D", "-f", str(self.conf), "-N", node))

    def _plug(self, node: str) -> None:
        inner = str(children(pid_of(f"node-{node}") or 0)[0])
        run("ip", "link", "del", f"cxr-{node}", check=False)
        run("ip", "link", "add", f"cxr-{node}", "type", "veth", "peer", "name", "eth0", "netns", inner)
        run("ip", "link", "set", f"cxr-{node}", "master", BRIDGE, "up")
        # One address for life: the others remember it, and would send to the dead one for half a minute.
        mac = f"02:c5:00:00:{NUMBER:02x}:{NODES.index(node):02x}"
        run(*self.in_node(node, "ip", "link", "set", "eth0", "address", mac))
        run(*self.in_node(node, "ip", "addr", "add", f"{self.address(node)}/24", "dev", "eth0"))
        run(*self.in_node(node, "ip", "link", "set", "eth0", "up"))
        run(*self.in_node(node, "ip", "route", "add", "default", "via", f"{SUBNET}.254"))

    def crash_node(self, node: str) -> None:
        """Take the power from a node: its network first, then every process at once (loopback mode: slurmd only)."""
        if self.mode == "netns":
            run("ip", "link", "del", f"cxr-{node}", check=False)
            end(f"node-{node}", signal.SIGKILL)
            end(f"slurmd-{node}", signal.SIGKILL)
        else:
            self.kill_slurmd(node)

    def kill_slurmd(self, node: str) -> None:
        """Kill only a node's slurmd; the job steps on it live on."""
        outer = pid_of(f"slurmd-{node}")
        if outer:
            send([*(children(outer) if self.mode == "netns" else [outer])][:1], signal.SIGKILL)
            end(f"slurmd-{node}", signal.SIGKILL)

    def usable(self) -> bool:
        text = run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False)
        return sum(state in ("idle", "mixed", "allocated", "completing") for state in text.split()) == len(NODES)

    def fix(self, seconds: float = 60) -> None:
        """Wait until every node can be used, switching on what is off and resuming what was drained or set down."""
        for node in NODES:
            self.start_node(node)

        def ready() -> bool:
            if self.usable():  # the controller says so; a step on all nodes proves it
                words = f"srun -Q -p main -N{len(NODES)} -t1 --immediate=5 hostname".split()
                return len(run(*words, check=False, seconds=30).split()) == len(NODES)
            for node in run("sinfo", "-h", "-N", "-p", "main", "-t", "drain,down", "-o", "%N", check=False).split():
                run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return False

        if not until(ready, seconds, 0.5):
            raise ClusterError(f"nodes not usable after {seconds} s: {run('sinfo', '-N', '-l', check=False)}")

    def cancel_all(self, seconds: float = 30) -> None:
        """Cancel every job and wait until none is left."""
        jobs = set(run("squeue", "-h", "-o", "%A", check=False).split())
        if jobs:
            run("scancel", "-Q", *jobs, check=False)
        until(lambda: not run("squeue", "-h", "-o", "%A", check=False).strip(), seconds)


def _can_have_namespaces() -> bool:
    trial = "unshare --net --uts --pid --fork --mount --mount-proc sh -c".split()
    try:
        run(*trial, "hostname x && mount -t tmpfs none /dev/shm")
        if BRIDGE not in os.listdir("/sys/class/net"):
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "link", "del", BRIDGE)
    except (ClusterError, OSError):
        return False
    return True


def _start_accounting() -> None:
    data, sock = STATE / "db", STATE / "mariadb.sock"
    options = ["--no-defaults", f"--datadir={data}", "--user=root", "--innodb-buffer-pool-size=32M"]
    if not (data / "mysql").is_dir():
        run("mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db", seconds=120)
    spawn(
        "mariadbd", "mariadbd", *options, f"--socket={sock}", "--skip-networking", "--performance-schema=OFF",
        "--innodb-flush-log-at-trx-commit=0",
    )  # fmt: skip
    if not until(lambda: run("mariadb", "--no-defaults", "-S", str(sock), "-e", "select 1", check=False), 30):
        raise ClusterError(f"MariaDB did not come up: {STATE}/log/mariadbd.out")
    spawn("slurmdbd", "slurmdbd", "-D", env={"SLURM_CONF": str(settings.CONF), "MYSQL_UNIX_PORT": str(sock)})


def up() -> Cluster:
    """Bring the cluster up (or find it up) and return it; the environment of this process then points to it."""
    missing = missing_for_cluster()
    if missing:
        raise ClusterError(missing)
    STATE.mkdir(mode=0o755, exist_ok=True)
    os.environ["SLURM_CONF"] = str(settings.CONF)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if pid_of("slurmctld"):
            cluster = Cluster((STATE / "mode").read_text())
        else:
            install()
            wanted = os.environ.get("CXRDIST_TEST_CLUSTER_MODE")
            cluster = Cluster(wanted or ("netns" if _can_have_namespaces() else "loopback"))
            (STATE / "mode").write_text(cluster.mode)
            write_config(cluster.mode)
        if cluster.mode == "netns" and BRIDGE not in os.listdir("/sys/class/net"):
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
            run("ip", "link", "set", BRIDGE, "up")
        munge = STATE / "munge"
        spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        until((munge / "socket").exists, 10)
        _start_accounting()
        until(lambda: run("sacctmgr", "-n", "show", "cluster", check=False).strip() or pid_of("slurmctld"), 2)
        spawn("slurmctld", "slurmctld", "-D", "-f", str(cluster.conf))
        cluster.fix()
    return cluster


def down() -> None:
    """End what `up` started, and undo its network and host names."""
    if not STATE.is_dir():
        return
    os.environ["SLURM_CONF"] = str(settings.CONF)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Cluster((STATE / "mode").read_text() if (STATE / "mode").exists() else "loopback")
        if pid_of("slurmctld"):
            cluster.cancel_all()
        for node in NODES:
            if cluster.mode == "netns":
                cluster.crash_node(node)
            end(f"slurmd-{node}")
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            end(name)
        run("ip", "link", "del", BRIDGE, check=False)
        set_hosts(add={})
        for node in NODES:
            for folder, _, _ in os.walk(settings.MEMORY / f"slurm_{node}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


@contextlib.contextmanager
def session() -> Iterator[Cluster]:
    """Have the cluster for a test session; the last session that uses one it started brings it down."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    with (STATE / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        found = pid_of("slurmctld") is not None and not (STATE / "by-tests").exists()
        cluster = up()
        if not found:
            (STATE / "by-tests").touch()
        try:
            cluster.cancel_all()
            yield cluster
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not found:
                    down()
                    (STATE / "by-tests").unlink(missing_ok=True)


def main(word: str) -> int:
    if word == "up":
        print(f"up ({up().mode} mode): export SLURM_CONF={STATE}/slurm.conf")
    elif word == "down":
        down()
    elif word == "env":
        print(f"export SLURM_CONF={STATE}/slurm.conf")
    elif word == "status":
        os.environ["SLURM_CONF"] = str(settings.CONF)
        names = ["munged", "mariadbd", "slurmdbd", "slurmctld", *(f"slurmd-{node}" for node in NODES)]
        for name in names:
            print(f"{name:12} {pid_of(name) or 'down'}")
        print(run("sinfo", "-N", check=False) + run("squeue", check=False))
        return 0 if all(pid_of(name) for name in names) else 1
    else:
        print((__doc__ or "").strip().splitlines()[2].strip(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
