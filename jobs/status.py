"""`cxrdist status RUN...`: queue state, step, speed, time left, restarts, and the log's last line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from slurm.errors import FailedError, InputError

HELP = "queue state, step, speed and time left of runs"
POSITIONALS = ("runs",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to show."""

    runs: list[str]
    """Run folders (or other outputs that were submitted)."""
    json: bool = False
    """One JSON object per run, for programs."""


def run(config: Config) -> int:
    """Print the state of each run; 1 when one of them failed."""
    facts = [describe(Path(name)) for name in config.runs]
    for fact in facts:
        print(json.dumps(fact) if config.json else _lines(fact))
    return 1 if any(fact["state"] in ("FAILED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL") for fact in facts) else 0


def submission(path: Path) -> Path:
    """Return the submission folder of what a user names: a run, or an output whose job folder lies beside it.

    Raises:
        InputError: neither exists.
    """
    for folder in (path, path.with_name(f"{path.name}.job")):
        for name in ("submission-merge", "submission"):
            if (folder / name / "jobs.json").is_file():
                return folder / name
    if not path.exists():
        raise InputError(f"{path}: no such run")
    return path / "submission"


def describe(path: Path) -> dict[str, Any]:
    """Return what is known of a run as plain values."""
    from results.run import Run
    from slurm import queue, status, submit

    folder = submission(path)
    run = Run(path)
    jobs = submit.jobs(folder)
    fact: dict[str, Any] = {"run": str(path), "state": "done" if run.is_done else "not submitted", "job": None}
    if jobs and not run.is_done:
        fact["job"] = str(jobs[-1]["job_id"])
        try:
            info = queue.job(fact["job"])
            fact |= {"state": info.state, "reason": info.reason, "restarts": info.restarts, "nodes": info.nodes}
            fact |= {"run_time": info.run_time, "start": info.start}
        except FailedError as error:
            fact |= {"state": "UNKNOWN", "reason": str(error)}
    elif jobs:
        fact["job"] = str(jobs[-1]["job_id"])
    if run.config.is_file():
        fact |= dataclasses.asdict(status.progress(run.read_log(), run.read_config()))
    logs = status.log_files(folder)
    fact["last_line"] = status.last_line(logs[0]) if logs else ""
    return fact


def _lines(fact: dict[str, Any]) -> str:
    from slurm.status import duration

    words = [fact["run"], fact["state"]]
    if fact.get("reason"):
        words[-1] += f" ({fact['reason']})"
    if fact["job"]:
        words.append(f"job {fact['job']}")
    if fact.get("step") is not None:
        words.append(f"step {fact['step']}" + (f"/{fact['steps']}" if fact.get("steps") else ""))
    if fact.get("images_per_s"):
        words.append(f"{fact['images_per_s']:.0f} images/s")
    if fact["state"] != "done" and fact.get("seconds_left") is not None:
        words.append(f"{duration(fact['seconds_left'])} left")
    if fact.get("restarts"):
        words.append(f"{fact['restarts']} restarts")
    if fact.get("nodes"):
        words.append(f"on {fact['nodes']}")
    text = "  ".join(words)
    return f"{text}\n    {fact['last_line']}" if fact["last_line"] else text
