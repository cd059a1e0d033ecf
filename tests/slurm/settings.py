"""Which cluster the tests use on this machine, and the configuration files of its daemons."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from pathlib import Path

# A second checkout on the same machine sets another number (0 to 9) and gets a cluster of its own.
NUMBER = int(os.environ.get("CXRDIST_TEST_CLUSTER", "0"))
STATE = Path(f"/tmp/cxrdist-slurm{NUMBER}")
PORT = 26817 + 100 * NUMBER
CONF = STATE / "slurm.conf"
SUBNET = f"10.217.{43 + NUMBER}"
LOOPBACK = f"127.0.{43 + NUMBER}"
BRIDGE = f"cxrslurm{NUMBER}"
NODES = (f"cx{NUMBER}a", f"cx{NUMBER}b")
CPUS = 4
GPUS = (("a100", "a100"), ("a100", "v100"))
"""Types of each node's GPUs: nodes of one partition need not be alike."""
MEMORY = Path("/sys/fs/cgroup/memory")
HOSTS_MARK = f"# cxrdist test cluster {NUMBER}"

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
TaskPlugin={task}
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
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


def address(node: str, mode: str) -> str:
    """Return a node's IPv4 address."""
    number = NODES.index(node) + 1
    return f"{SUBNET}.{number}" if mode == "netns" else f"{LOOPBACK}.{number}"


def write_config(mode: str) -> None:
    """Write every file that the daemons read, and the nodes' names into /etc/hosts."""
    for name in ("log", "ctld", "munge", "dev"):
        (STATE / name).mkdir(exist_ok=True, mode=0o755)
    host = socket.gethostname().split(".")[0]
    controller = f"{SUBNET}.254" if mode == "netns" else "127.0.0.1"
    values = {"host": host, "controller": controller, "port": PORT, "dbport": PORT - 1, "state": STATE}
    values["task"] = "task/cgroup" if limits_memory() else "task/none"
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // len(NODES) * 9 // 10
    config, gres = CONFIG.format(**values) + f"DefMemPerCPU={memory // CPUS}\n", ""
    for gpu in range(max(map(len, GPUS))):
        with contextlib.suppress(FileExistsError):
            os.mknod(STATE / "dev" / f"gpu{gpu}", 0o20666, os.makedev(1, 3))
    for number, (node, kinds) in enumerate(zip(NODES, GPUS, strict=True), start=1):
        config += (
            f"NodeName={node} NodeHostname={node if mode == 'netns' else host} "
            f"NodeAddr={address(node, mode)} Port={PORT + number} CPUs={CPUS} RealMemory={memory} "
            f"Gres={','.join(f'gpu:{kind}:{count}' for kind, count in Counter(kinds).items())} State=UNKNOWN\n"
        )
        for gpu, kind in enumerate(kinds):
            gres += f"NodeName={node} Name=gpu Type={kind} File={STATE}/dev/gpu{gpu}\n"
        (STATE / f"spool-{node}").mkdir(exist_ok=True)
    for name, tier, preempt in (
        ("main", 10, "OFF Default=YES"),
        ("preempt", 1, "REQUEUE GraceTime=20"),
        ("high", 99, "OFF"),
    ):
        config += f"PartitionName={name} Nodes=ALL State=UP MaxTime=1-0 DefaultTime=10 "
        config += f"PriorityTier={tier} PreemptMode={preempt}\n"
    CONF.write_text(config)
    (STATE / "gres.conf").write_text(gres)
    (STATE / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n" if limits_memory() else "")
    (STATE / "slurmdbd.conf").write_text(DBD_CONFIG.format(**values))
    (STATE / "slurmdbd.conf").chmod(0o600)
    (STATE / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    key = STATE / "munge" / "key"
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
    set_hosts(add={node: address(node, mode) for node in NODES})


def limits_memory() -> bool:
    """Whether a job here can be held to its memory: by control groups of version 1, which this SLURM can use alone."""
    return os.access(MEMORY, os.W_OK) and os.geteuid() == 0


def set_hosts(add: dict[str, str]) -> None:
    path = Path("/etc/hosts")  # may be a bind mount: rewritten in place
    lines = [line for line in path.read_text().splitlines() if not line.endswith(HOSTS_MARK)]
    path.write_text("\n".join([*lines, *(f"{address} {node} {HOSTS_MARK}" for node, address in add.items())]) + "\n")
