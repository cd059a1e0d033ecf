"""A real SLURM cluster of two nodes on this machine, for the tests.

    python tests/slurm/cluster.py up | down | status | env        (root; Debian or Ubuntu)

munged, MariaDB, slurmdbd, slurmctld and one slurmd per node, all from the distribution's packages, with their state in
one folder and ports of their own. Where the kernel allows it each node is a set of namespaces (network, host name,
processes, mounts), so that a node can lose its power; otherwise both are `slurmd -N` on loopback addresses.
`up` on a running cluster does nothing; `down` ends exactly the processes that `up` started (process number and start
time must both match what was noted).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from slurm.processes import children, descendants, send

# A second checkout on the same machine sets another number (0 to 9) and gets a cluster of its own.
NUMBER = int(os.environ.get("CXRDIST_TEST_CLUSTER", "0"))
STATE = Path(f"/tmp/cxrdist-slurm{NUMBER}")
PORT = 26817 + 100 * NUMBER
SUBNET = f"10.217.{43 + NUMBER}"
LOOPBACK = f"127.0.{43 + NUMBER}"
BRIDGE = f"cxrslurm{NUMBER}"
NODES = (f"cx{NUMBER}a", f"cx{NUMBER}b")
CPUS, GPUS = 4, 2
HOSTS_MARK = f"# cxrdist test cluster {NUMBER}"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "mariadb-install-db", "ip", "nsenter")
PACKAGES = "munge slurm-wlm slurmdbd mariadb-server-core mariadb-client-core iproute2 util-linux"

CONFIG = """\
ClusterName=cxrdist
SlurmctldHost={host}({controller})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={state}/munge/socket,cred_expire=5
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool-%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd-%n.pid
SlurmctldLogFile={state}/log/slurmctld
SlurmdLogFile={state}/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={controller}
AccountingStoragePort={dbport}
AccountingStoragePass={state}/munge/socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
"""
# cred_expire: a requeued job waits that long before it may start again (default 120 s).
# config_overrides: nodes may claim more CPUs than the machine has.

DBD_CONFIG = """\
AuthType=auth/munge
AuthInfo=socket={state}/munge/socket
DbdHost={host}
DbdAddr={controller}
DbdPort={dbport}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
PidFile={state}/slurmdbd.pid
LogFile={state}/log/slurmdbd
"""

# Process 1 of a node: it reaps what is orphaned, until it is killed. No name server can be reached from a node, so
# look-ups must fail at once instead of after 10 s.
NODE_INIT = """
mount -t proc proc /proc; hostname {node}; mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /tmp/cxrdist-ray-0; mount -t tmpfs tmpfs /tmp/cxrdist-ray-0
[ -e /etc/resolv.conf ] && mount --bind {state}/resolv.conf /etc/resolv.conf
ip link set lo up; : > {state}/ready-{node}
trap : TERM INT HUP; while :; do sleep 1000 & wait $!; done
"""


class ClusterError(RuntimeError):
    """The cluster cannot be had on this machine, or a daemon did not come up."""


def missing_for_cluster() -> str | None:
    """Say why this machine cannot run the cluster, or None when it can (perhaps after installing packages)."""
    if sys.platform != "linux":
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent and not shutil.which("apt-get"):
        return f"no {', '.join(absent)} and no apt-get"
    return None


def run(*words: str, check: bool = True, seconds: float = 60, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=env)
    if check and done.returncode:
        raise ClusterError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install() -> None:
    if all(shutil.which(name) for name in PROGRAMS):
        return
    policy = Path("/usr/sbin/policy-rc.d")  # keeps the packages from starting system-wide daemons
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run("apt-get", "update", "-qq", seconds=300, env=env)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES.split(), seconds=600, env=env)
    finally:
        if ours:
            policy.unlink()


# ---- processes: a note holds number and start time, so that a number used again is never taken for ours


def _start_time(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def _note(name: str, pid: int) -> None:
    (STATE / f"note-{name}").write_text(f"{pid} {_start_time(pid)}")


def pid_of(name: str) -> int | None:
    """Return the process number of a daemon that `up` started and that still lives."""
    with contextlib.suppress(OSError, ValueError):
        pid, started = (STATE / f"note-{name}").read_text().split()
        return int(pid) if _start_time(int(pid)) == started else None
    return None


def _spawn(name: str, *words: str, env: dict[str, str] | None = None) -> None:
    if pid_of(name):
        return
    with (STATE / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    process.returncode = 0  # it outlives us on purpose: no warning when the object goes
    _note(name, process.pid)


def _end(name: str, number: int = signal.SIGTERM) -> None:
    pid = pid_of(name)
    if pid:
        send([pid], number)
        if not _until(lambda: pid_of(name) is None, 8):
            send([*descendants(pid), pid], signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid or -99999, os.WNOHANG)
    (STATE / f"note-{name}").unlink(missing_ok=True)


def _until(true, seconds: float, pause: float = 0.1) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(pause)
    return False


# ---- the cluster


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Handle on the running cluster."""

    mode: str

    @property
    def conf(self) -> Path:
        return STATE / "slurm.conf"

    def address(self, node: str) -> str:
        number = NODES.index(node) + 1
        return f"{SUBNET}.{number}" if self.mode == "netns" else f"{LOOPBACK}.{number}"

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
            _spawn(f"node-{node}", *unshare, "bash", "-c", script)
            if not _until((STATE / f"ready-{node}").exists, 10, 0.02):
                raise ClusterError(f"node {node} did not start: {STATE}/log/node-{node}.out")
            self._plug(node)
        _spawn(f"slurmd-{node}", *self.in_node(node, "slurmd", "-D", "-f", str(self.conf), "-N", node))

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
            _end(f"node-{node}", signal.SIGKILL)
            _end(f"slurmd-{node}", signal.SIGKILL)
        else:
            self.kill_slurmd(node)

    def kill_slurmd(self, node: str) -> None:
        """Kill only a node's slurmd; the job steps on it live on."""
        outer = pid_of(f"slurmd-{node}")
        if outer:
            send([*(children(outer) if self.mode == "netns" else [outer])][:1], signal.SIGKILL)
            _end(f"slurmd-{node}", signal.SIGKILL)

    def usable(self) -> bool:
        text = run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False)
        return sum(state in ("idle", "mixed", "allocated", "completing") for state in text.split()) == len(NODES)

    def mend(self, seconds: float = 60) -> None:
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

        if not _until(ready, seconds, 0.5):
            raise ClusterError(f"nodes not usable after {seconds} s: {run('sinfo', '-N', '-l', check=False)}")

    def cancel_all(self, seconds: float = 30) -> None:
        """Cancel every job and wait until none is left."""
        jobs = set(run("squeue", "-h", "-o", "%A", check=False).split())
        if jobs:
            run("scancel", "-Q", *jobs, check=False)
        _until(lambda: not run("squeue", "-h", "-o", "%A", check=False).strip(), seconds)


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


def _write_config(cluster: Cluster) -> None:
    for name in ("log", "ctld", "munge", "dev"):
        (STATE / name).mkdir(exist_ok=True, mode=0o755)
    host = socket.gethostname().split(".")[0]
    controller = f"{SUBNET}.254" if cluster.mode == "netns" else "127.0.0.1"
    values = {"host": host, "controller": controller, "port": PORT, "dbport": PORT - 1, "state": STATE}
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // len(NODES) * 9 // 10
    config, gres = CONFIG.format(**values), ""
    for gpu in range(GPUS):
        with contextlib.suppress(FileExistsError):
            os.mknod(STATE / "dev" / f"gpu{gpu}", 0o20666, os.makedev(1, 3))
    for number, node in enumerate(NODES, start=1):
        config += (
            f"NodeName={node} NodeHostname={node if cluster.mode == 'netns' else host} "
            f"NodeAddr={cluster.address(node)} Port={PORT + number} CPUs={CPUS} RealMemory={memory} "
            f"Gres=gpu:{GPUS} State=UNKNOWN\n"
        )
        gres += f"NodeName={node} Name=gpu File={STATE}/dev/gpu[0-{GPUS - 1}]\n"
        (STATE / f"spool-{node}").mkdir(exist_ok=True)
    for name, tier, preempt in (
        ("main", 10, "OFF Default=YES"),
        ("preempt", 1, "REQUEUE GraceTime=20"),
        ("high", 99, "OFF"),
    ):
        config += f"PartitionName={name} Nodes=ALL State=UP MaxTime=1-0 DefaultTime=10 "
        config += f"PriorityTier={tier} PreemptMode={preempt}\n"
    cluster.conf.write_text(config)
    (STATE / "gres.conf").write_text(gres)
    (STATE / "slurmdbd.conf").write_text(DBD_CONFIG.format(**values))
    (STATE / "slurmdbd.conf").chmod(0o600)
    (STATE / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    key = STATE / "munge" / "key"
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
    _hosts(add={node: cluster.address(node) for node in NODES})


def _hosts(add: dict[str, str]) -> None:
    path = Path("/etc/hosts")  # may be a bind mount: rewritten in place
    lines = [line for line in path.read_text().splitlines() if not line.endswith(HOSTS_MARK)]
    path.write_text("\n".join([*lines, *(f"{address} {node} {HOSTS_MARK}" for node, address in add.items())]) + "\n")


def _start_accounting() -> None:
    data, sock = STATE / "db", STATE / "mariadb.sock"
    options = ["--no-defaults", f"--datadir={data}", "--user=root", "--innodb-buffer-pool-size=32M"]
    if not (data / "mysql").is_dir():
        run("mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db", seconds=120)
    _spawn(
        "mariadbd", "mariadbd", *options, f"--socket={sock}", "--skip-networking", "--performance-schema=OFF",
        "--innodb-flush-log-at-trx-commit=0",
    )  # fmt: skip
    if not _until(lambda: run("mariadb", "--no-defaults", "-S", str(sock), "-e", "select 1", check=False), 30):
        raise ClusterError(f"MariaDB did not come up: {STATE}/log/mariadbd.out")
    _spawn("slurmdbd", "slurmdbd", "-D", env={"SLURM_CONF": str(STATE / "slurm.conf"), "MYSQL_UNIX_PORT": str(sock)})


def up() -> Cluster:
    """Bring the cluster up (or find it up) and return it; the environment of this process then points to it."""
    missing = missing_for_cluster()
    if missing:
        raise ClusterError(missing)
    STATE.mkdir(mode=0o755, exist_ok=True)
    os.environ["SLURM_CONF"] = str(STATE / "slurm.conf")
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if pid_of("slurmctld"):
            cluster = Cluster((STATE / "mode").read_text())
        else:
            install()
            cluster = Cluster("netns" if _can_have_namespaces() else "loopback")
            (STATE / "mode").write_text(cluster.mode)
            _write_config(cluster)
        if cluster.mode == "netns" and BRIDGE not in os.listdir("/sys/class/net"):
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
            run("ip", "link", "set", BRIDGE, "up")
        munge = STATE / "munge"
        _spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        _until((munge / "socket").exists, 10)
        _start_accounting()
        _until(lambda: run("sacctmgr", "-n", "show", "cluster", check=False).strip() or pid_of("slurmctld"), 2)
        _spawn("slurmctld", "slurmctld", "-D", "-f", str(cluster.conf))
        cluster.mend()
    return cluster


def down() -> None:
    """End what `up` started, and undo its network and host names."""
    if not STATE.is_dir():
        return
    os.environ["SLURM_CONF"] = str(STATE / "slurm.conf")
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Cluster((STATE / "mode").read_text() if (STATE / "mode").exists() else "loopback")
        if pid_of("slurmctld"):
            cluster.cancel_all()
        for node in NODES:
            if cluster.mode == "netns":
                cluster.crash_node(node)
            _end(f"slurmd-{node}")
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            _end(name)
        run("ip", "link", "del", BRIDGE, check=False)
        _hosts(add={})


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
        os.environ["SLURM_CONF"] = str(STATE / "slurm.conf")
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
