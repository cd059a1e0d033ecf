"""`cxrdist drill preempt|kill|resume|requeue-forbidden`: interrupt a small pretraining on your own cluster.

It must survive: no step lost, the unbroken run's samples and weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from slurm import client, drill, submit
from slurm.errors import FailedError, InputError
from slurm.processes import python

if TYPE_CHECKING:
    from jobs._tasks import SubmitOptions
    from results.run import Run

HELP = "prove on your own cluster that a run survives"
POSITIONALS = ("kind",)
Kind = Literal["preempt", "kill", "resume", "requeue-forbidden"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to interrupt, how, and where."""

    kind: Kind
    """preempt: the signal of a preemption or time limit. kill: all processes die. resume: scontrol requeue.
    requeue-forbidden: preempt, where the site allows no requeue; a job that waits for the run must still start."""
    profile: str = "local"
    """Cluster profile."""
    nodes: Annotated[int, "[1, inf)"] = 1
    """Nodes."""
    partition: str | None = None
    """Instead of the profile's."""
    out: str = "runs/drill"
    """Folder for the generated images and the two runs; must be shared by the nodes."""
    times: Annotated[int, "[1, inf)"] = 1
    """Interruptions in one run; a kill at most 3, since a job that dies more often is given up."""
    steps: Annotated[int, "[1, inf)"] = 60
    """Training steps of the run."""
    timeout: Annotated[float, "(0, inf)"] = 1800.0
    """Bound in seconds on each wait, the scheduler's own included."""
    alone: bool = False
    """Start the interrupted run only when the unbroken one has ended, so that neither slows the other (to measure)."""


def run(config: Config) -> int:
    """Run the drill and print what was measured; 1 when a step was lost or the result differs."""
    if config.times < 1 or config.times >= config.steps or (config.kind == "kill" and config.times > 3):
        raise InputError(f"--times {config.times}: 1 to --steps {config.steps} - 1, for kill at most 3")
    facts = measure(config)
    print(report(facts))
    good = facts["lost"] == 0 and facts["same_samples"] and (config.kind == "kill" or facts["repeated"] == 0)
    good = good and facts["waiting_job"] in (None, "COMPLETED")
    return 0 if good and (facts["same_weights"] or facts["device"] == "gpu") else 1


def measure(config: Config) -> dict:
    """Run one pretraining unbroken and one interrupted, and return what was seen."""
    from jobs import _tasks
    from results.run import Run

    client.need("sbatch", "squeue", "scontrol")  # before minutes of drawing, not after them
    client.ping()
    out = Path(config.out).expanduser().absolute()
    own = {"profile": config.profile, "nodes": str(config.nodes)}
    at = _tasks.where(own | ({"partition": config.partition} if config.partition else {}))
    if not (out / "shards" / "dataset.json").is_file():
        count = max(100, 2 * _batch(at))  # a batch holds no image twice
        words = ["-m", "jobs.cli", "shard", "phantom", "--out", str(out / "shards"), "--images", str(count)]
        words += ["--size", "64"]
        if subprocess.run(python(*words)).returncode:
            raise FailedError("the generated images could not be written; see above")
    earlier = [
        re.fullmatch(r"(?:unbroken|preempt|kill|resume|requeue-forbidden)-(\d+)", path.name) for path in out.iterdir()
    ]
    number = 1 + max([int(match[1]) for match in earlier if match], default=0)
    runs = {name: Run(out / f"{name}-{number}") for name in ("unbroken", config.kind)}
    for name, each in runs.items():
        print(f"{name}: {each.path}", file=sys.stderr, flush=True)
    try:
        found, waiting_job = _interrupt(runs, config, at)
    except BaseException:  # what nobody waits for any more must not start hours later
        with contextlib.suppress(FailedError):
            client.cancel(number for each in runs.values() for number in submit.job_ids(each.submission))
            client.cancel(submit.job_ids(runs[config.kind].path / "submission-after"))
        raise
    broken = runs[config.kind]
    lost, repeated = drill.lost_and_repeated(_steps(broken.metrics_log), config.steps)
    done = [each.read_done() for each in runs.values()]
    return {
        "kind": config.kind, "interruptions": [dataclasses.asdict(one) for one in found], "steps": config.steps,
        "ranks": done[0]["world"], "device": "gpu" if at.profile.gpus else "cpu", "lost": lost,
        "repeated": repeated, "same_samples": done[0]["order_sha256"] == done[1]["order_sha256"],
        "waiting_job": waiting_job, "same_weights": len({_sha256(each.encoder) for each in runs.values()}) == 1,
    }  # fmt: skip


def _interrupt(runs: dict[str, Run], config: Config, at: SubmitOptions) -> tuple[list[drill.Interruption], str | None]:
    unbroken = _queue(runs["unbroken"].path, config, at)
    if config.alone:
        drill.wait_for_end(unbroken, seconds=config.timeout)
    broken = runs[config.kind]
    first = _queue(broken.path, config, at)
    waiting = _queue_waiting(broken, first, at) if config.kind == "requeue-forbidden" else None
    watched = drill.Watched(
        newest=lambda: submit.job_ids(broken.submission)[-1],
        steps=lambda: _steps(broken.metrics_log),
        saved=lambda: _saved(broken.checkpoints),
        stretches=broken.submission / "stretches.jsonl",
    )
    found = []
    for turn in range(config.times):
        drill.wait_for_step(watched, max(1, config.steps * (turn + 1) // (config.times + 2)), seconds=config.timeout)
        found.append(drill.interrupt(watched, config.kind, seconds=config.timeout))
        print(f"interruption {turn + 1}: {found[-1]}", file=sys.stderr, flush=True)
    for each in runs.values():
        drill.wait_for_end(submit.job_ids(each.submission)[-1], seconds=config.timeout)
    if waiting is None:
        return found, None
    drill.wait_for_end(waiting, seconds=config.timeout)
    return found, client.job(waiting).state


def _queue_waiting(run: Run, job: str, at: SubmitOptions) -> str:
    """Queue a small job that may start when the run is complete, as the next stage of a chain would."""
    folder = run.path / "submission-after"
    task = submit.task_for(
        at.profile, kind="command", words=("slurm.probe", str(folder)), folder=str(folder), gpus_per_node=0
    )
    return submit.submit(
        submit.Request(name="drill-after", task=task, profile=at.profile, partition=at.partition, after=(job,))
    )


def _batch(at: SubmitOptions) -> int:
    return at.nodes * at.profile.ranks * 8


def _queue(path: Path, config: Config, at: SubmitOptions) -> str:
    from jobs import _tasks
    from jobs._queueing import check_all, queue_all, requests_for

    batch = _batch(at)
    # Checkpoints only when asked to stop, so that what continues must come from the interruption (kill needs others).
    every = 5 if config.kind == "kill" else 10 * config.steps
    words = ["pretrain", "--shards", str(path.parent / "shards"), "--out", str(path), "--arch", "resnet10t"]
    words += ["--image_size", "32", "--global_batch", str(batch), "--steps", str(config.steps), "--log_every", "1"]
    words += ["--checkpoint.every_steps", str(every), "--tensorboard", "false", "--watch.every_epochs", "1000"]
    words += ["--precision", "float32"]
    requests = requests_for(_tasks.work(words, at, create=False), at, f"drill-{path.name}")
    check_all(requests)
    return queue_all(requests_for(_tasks.work(words, at, create=True), at, f"drill-{path.name}"))


def _steps(log: Path) -> list[int]:
    if not log.exists():
        return []
    rows = []
    for line in log.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the last line, half written
            continue
    return [row["step"] for row in rows if "loss" in row and "images_per_s" in row]


def _saved(folder: Path) -> int:
    return max([int(path.name.removeprefix("step-")) for path in folder.glob("step-[0-9]*")], default=0)


def _sha256(path: Path) -> str:
    """Hash of a safetensors file's names, shapes and bytes (the order of its header's entries is left to chance)."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True)
    return hashlib.sha256(header.encode() + content[8 + size :]).hexdigest()


def report(facts: dict) -> str:
    """Return the measurements as a Markdown table and one sentence."""
    lines = [
        "| step at the signal | saved step | signal to checkpoint (s) | signal to next start (s) | start to step (s) |"
    ]
    lines += ["|---|---|---|---|---|"]
    for one in facts["interruptions"]:
        save = "-" if one["save_s"] is None else f"{one['save_s']:.2f}"
        times = f"{one['queue_s']:.1f} | {one['first_step_s']:.1f}"
        lines.append(f"| {one['at_step']} | {one['saved_step']} | {save} | {times} |")
    same = "bit-identical to" if facts["same_weights"] else "NOT identical to"
    samples = "the same" if facts["same_samples"] else "NOT THE SAME"
    lines.append(
        f"\n{len(facts['interruptions'])} x {facts['kind']} on {facts['ranks']} ranks: {facts['lost']} of "
        f"{facts['steps']} steps lost, {facts['repeated']} repeated, samples {samples}, "
        f"final weights {same} those of the unbroken run."
    )
    if facts["waiting_job"]:
        lines.append(f"The job that waited for it: {facts['waiting_job']}.")
    return "\n".join(lines)
