"""What this machine and a profile can do, and what is missing, each with its fix."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from slurm import checks, client, preemption, probe, submit
from slurm.errors import FailedError, InputError
from slurm.inherited import for_slurm
from slurm.processes import python
from slurm.profiles import Profile

NEEDED = ("sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel")
MAX_SKEW_S = 2.0
FEW_FILES = 4096
SMALL_SHM_MIB = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at."""

    level: Literal["ok", "note", "FAIL"]
    what: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what}: {self.found}" + (f"\n      -> {self.fix}" if self.fix else "")


def here(folder: Path) -> list[Diagnosis]:
    """Look at this machine: versions, limits, the output folder."""
    own = probe.facts(folder, gpus=False)
    listed = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    findings = [Diagnosis(level="ok", what="versions", found=listed)]
    findings += _limits(own, "this machine")
    if "write_error" in own:
        findings.append(
            Diagnosis(level="FAIL", what="folder", found=f"{folder}: {own['write_error']}", fix="choose another --out")
        )
    if shutil.which("nvidia-smi") is None:
        findings.append(Diagnosis(level="note", what="GPU", found="none on this machine (usual for a login node)"))
    return findings


def slurm_here(profile: Profile | None) -> list[Diagnosis]:
    """Look at SLURM from this machine: binaries, controller, the profile's partition."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        level = "note" if profile is None else "FAIL"
        fix = "log in to the cluster's login node, or `module load slurm`; not needed to train on this machine"
        return [Diagnosis(level=level, what="SLURM", found=f"no {', '.join(absent)} here", fix=fix)]
    try:
        version = client.call("sinfo", "--version").strip()
        known = client.partitions()
    except FailedError as error:
        level = "note" if profile is None else "FAIL"
        return [Diagnosis(level=level, what="SLURM", found=str(error), fix="ask the cluster's administrators")]
    findings = [Diagnosis(level="ok", what="SLURM", found=f"{version}; partitions {', '.join(sorted(known))}")]
    if shutil.which("sacct") is None or not _has_accounting():
        fix = "states of jobs older than some minutes are then shown as UNKNOWN; nothing else is lost"
        findings.append(Diagnosis(level="note", what="accounting", found="sacct does not answer", fix=fix))
    for name in (profile.partition or "").split(",") if profile else [""]:
        try:
            found, fix = preemption.meaning(preemption.of(name.strip() or None))
        except FailedError:  # no such partition: the profile's own finding says so
            continue
        what = f"preemption in {name.strip()}" if name else "preemption"
        findings.append(Diagnosis(level="note" if fix else "ok", what=what, found=found, fix=fix))
    return findings


def _has_accounting() -> bool:
    try:
        client.call("sacct", "-n", "-X", "-S", "now", seconds=20)
    except FailedError:
        return False
    return True


def fits(profile: Profile, nodes: int, folder: Path) -> Diagnosis:
    """Compare a profile with the cluster, for jobs whose files lie in `folder`."""
    task = submit.task_for(profile, kind="command", words=("x",), folder=str(folder))
    try:
        checks.check(submit.Request(name="doctor", task=task, profile=profile, nodes=nodes))
    except (InputError, FailedError) as error:
        return Diagnosis(level="FAIL", what="profile", found=str(error), fix="change the profile's file")
    where = profile.partition or "the default partition"
    gpus = f", {profile.gpus} GPUs" if profile.gpus else ""
    found = f"{profile.name}: {where}, {profile.ranks} ranks{gpus} on a node, {profile.time} a stretch"
    return Diagnosis(level="ok", what="profile", found=found)


def on_nodes(profile: Profile, nodes: int, folder: Path, seconds: float) -> list[Diagnosis]:
    """Look at the nodes through a short srun job: folder, clock, versions, limits, GPUs.

    Args:
        profile: Its partition, account, GPUs and extra options are used.
        nodes: How many nodes to look at.
        folder: Folder that must be shared by this machine and the nodes.
        seconds: Bound on waiting for free nodes and for the answers.
    """
    (folder / "login").write_text("x")
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--time=5", "--job-name=doctor"]
    for option, value in (("partition", profile.partition), ("account", profile.account)):
        words += [f"--{option}={value}"] if value else []
    words += [f"--{option}={value}" for option, value in profile.gpu_options(profile.gpus).items()]
    for key, value in profile.sbatch.items():
        words += [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}")] if value is not False else []
    inside = profile.container
    if inside:
        places = (folder, Path.cwd())
        words += [*inside.srun(places, profile.env), *inside.words(places, profile.gpus), "-P"]
    else:
        words += python()
    words += ["-m", "slurm.probe", str(folder), *(["--gpus"] if profile.gpus else [])]
    # Inside an allocation srun would become a step of it, with its limits and its nodes.
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=for_slurm())
    asked = time.time()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # srun takes its job from the queue
        process.communicate()
        fix = "the partition may be full: try later, fewer --nodes, or a longer --wait"
        return [Diagnosis(level="FAIL", what="nodes", found=f"{nodes} not free within {seconds:.0f} s", fix=fix)]
    answered = time.time()
    answers = [json.loads(line.removeprefix("PROBE ")) for line in out.splitlines() if line.startswith("PROBE ")]
    if process.returncode or len(answers) != nodes:
        last = (err.strip().splitlines() or ["no message"])[-1]
        fix = f"is {sys.executable} (this environment) on a file system that the nodes share?"
        if inside:
            fix = f"has {inside.image} {inside.python}, and is {inside.runtime} on the nodes without lines of setup?"
        return [Diagnosis(level="FAIL", what="nodes", found=f"{len(answers)} of {nodes} answered: {last}", fix=fix)]
    login = probe.versions()
    findings: list[Diagnosis] = []
    for answer in answers:
        findings += _node(answer, profile, login, asked, answered, folder)
    return findings


def _node(answer: dict, profile: Profile, login: dict, asked: float, answered: float, folder: Path) -> list[Diagnosis]:
    host = answer["host"]
    found: list[Diagnosis] = []

    def add(good: bool, what: str, text: str, fix: str, level: Literal["note", "FAIL"] = "FAIL") -> None:
        found.append(
            Diagnosis(level="ok" if good else level, what=f"{host}: {what}", found=text, fix="" if good else fix)
        )

    shared = answer.get("sees", False) and "write_error" not in answer
    text = "shared and writable" if shared else answer.get("write_error", "what this machine wrote is not seen there")
    add(shared, "folder", f"{folder} is {text}" if shared else f"{folder}: {text}", "use a folder all nodes share")
    skew = max(asked - answer["time"], answer["time"] - answered, 0.0)
    add(skew <= MAX_SKEW_S, "clock", f"differs by {skew:.1f} s at least", "ask for NTP on the nodes", "note")
    differ = [f"{k} {login.get(k)} here, {answer['versions'].get(k)} there" for k in login
              if answer["versions"].get(k) != login[k]]  # fmt: skip
    fix = "use one environment on a shared file system"
    if profile.container:
        fix = "build the image again from containers/cxrdist.def, by the constraints.txt that this environment has"
    add(not differ, "versions", "; ".join(differ) or "the same as here", fix)
    found += _limits(answer, host)
    if profile.gpus:
        count = answer.get("torch_gpus", 0)
        shown = f"{count} seen by torch, nvidia-smi lists {', '.join(answer.get('gpus', [])) or 'none'}"
        good = count >= profile.gpus
        fix = f"CUDA_VISIBLE_DEVICES is {answer.get('cuda_visible_devices')}; driver and torch's CUDA must fit"
        add(good, "GPU", answer.get("torch_error", shown), fix)
        add(bool(answer.get("nccl")), "NCCL", "in this torch" if answer.get("nccl") else "not in this torch",
            "install torch's CUDA build")  # fmt: skip
    return found


def _limits(answer: dict, host: str) -> list[Diagnosis]:
    found = []
    if answer["open_files"] < FEW_FILES:
        fix = "ulimit -n 65536 in the profile's setup, or ask the administrators"
        found.append(
            Diagnosis(level="note", what=f"{host}: ulimit", found=f"{answer['open_files']} open files", fix=fix)
        )
    if answer["shm_mib"] < SMALL_SHM_MIB:
        fix = "Ray and NCCL share memory there; ask for more"
        found.append(Diagnosis(level="note", what=f"{host}: /dev/shm", found=f"{answer['shm_mib']} MiB", fix=fix))
    return found
