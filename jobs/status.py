"""`cxrdist status RUN...`: queue state, step, speed, time left, restarts, and the log's last line.

Given a chain's TOML file it does so for every stage. Imports no submitit: it is asked often, on login nodes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from slurm.errors import FailedError, InputError

HELP = "queue state, step, speed and time left of runs"
POSITIONALS = ("runs",)
FAILURES = ("FAILED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "PREEMPTED", "CANCELLED")
"""States of a job that has ended without its work being done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to show."""

    runs: list[str]
    """Run folders, other outputs that were submitted, or the TOML file of a chain."""
    json: bool = False
    """One JSON object per run, for programs."""


class Parser(argparse.ArgumentParser):
    """argparse, for commands of a login node that are asked often: jsonargparse would be most of their time."""

    def __init__(self, name: str, about: str) -> None:
        """Make the parser of `cxrdist NAME`."""
        super().__init__(prog=f"cxrdist {name}", description=about, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse in one line."""
        raise InputError(f"{self.prog}: {message}; {self.prog} --help lists the options")


def main(words: Sequence[str]) -> int:
    """Run `cxrdist status WORDS`."""
    parser = Parser("status", HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, other output, or a chain's TOML file")
    parser.add_argument("--json", action="store_true", help="one JSON object per run, for programs")
    return run(Config(**vars(parser.parse_args(list(words)))))


def run(config: Config) -> int:
    """Print the state of each run; 1 when one of them ended before its work was done."""
    facts = [describe(path, name) for given in config.runs for name, path in _named(Path(given))]
    for fact in facts:
        print(json.dumps(fact) if config.json else _lines(fact))
    return 1 if any(fact["state"] in FAILURES for fact in facts) else 0


def _named(path: Path) -> list[tuple[str, Path]]:
    """Return (what to call it, folder): the run itself, or every stage of a chain."""
    if path.suffix != ".toml" or not path.is_file():
        return [(str(path), path)]
    from jobs import _chain

    return [(stage.name, stage.work.folder) for stage in _chain.plan(path, {})]


def submission(path: Path, *, must: bool = True) -> Path:
    """Return the submission folder of what a user names: a run, or an output whose job folder lies beside it.

    Args:
        path: The run, or the output.
        must: Whether to refuse what does not exist.

    Raises:
        InputError: neither exists.
    """
    for folder in (path, path.with_name(f"{path.name}.job")):
        for name in ("submission-merge", "submission"):
            if (folder / name / "jobs.json").is_file():
                return folder / name
    if must and not path.exists():
        raise InputError(f"{path}: no such run")
    return path / "submission"


def log_folder(folder: Path) -> Path:
    """Return where the logs of a submission are: those of the parts as long as their merge has none."""
    parts = folder.with_name("submission")
    return parts if folder.name == "submission-merge" and not any(folder.glob("*_log.out")) else folder


def describe(path: Path, name: str | None = None) -> dict[str, Any]:
    """Return what is known of a run as plain values.

    Args:
        path: Run folder or other output; it must have been submitted, unless `name` is given.
        name: What to call it; None takes the path.
    """
    from results.run import Run
    from slurm import client, jobs_file, status, unnoted

    folder = submission(path, must=name is None or name == str(path))
    run = Run(path)
    jobs, held = jobs_file.jobs(folder), None
    done = run.is_done or bool(jobs and jobs_file.is_complete(jobs[-1]))
    fact: dict[str, Any] = {"run": name or str(path), "state": "done" if done else "not submitted", "job": None}
    if jobs:
        fact["job"] = str(jobs[-1]["job_id"])
    if not done and (folder / "job.sbatch").is_file():
        try:
            info = client.job(jobs_file.name_of(jobs[-1])) if jobs else None
            # A job that is over may have been followed by one whose note is missing, such as one sent by hand.
            if (info is None or not info.active) and (found := unnoted.adopt(folder)):
                info, jobs = client.job(found[-1]), jobs_file.jobs(folder) or jobs
                fact["job"] = info.job_id
            held = None if info and info.active else unnoted.pending_answer(folder)
            info = info or client.JobInfo(job_id="", state=fact["state"])
            fact |= {
                "state": info.state,
                "reason": info.reason,
                "restarts": info.restarts + _earlier(jobs),
                "nodes": info.nodes,
            }
            fact |= {"run_time": info.run_time, "start": info.start}
            if info.reason == "Dependency" and info.waits_for:
                fact["reason"] += f" on job {', '.join(info.waits_for)}"
            if held:
                fact["state"] = "UNKNOWN"
                fact["reason"] = f"SLURM gave no answer to the submission at {held[0]}; no job of it is in the queue"
                fact["reason"] += " yet" if held[1] else ", submit it again"
        except FailedError as error:
            fact |= {"state": "UNKNOWN", "reason": str(error)}
    if run.config.is_file():
        finished = run.read_done() if run.is_done else None
        fact |= dataclasses.asdict(status.progress(run.read_log(), run.read_config(), finished))
        if fact["state"] == "not submitted" and run.is_held():
            fact["state"] = "running here"
        elif fact["state"] == "not submitted" and run.has_begun:
            fact["state"] = "stopped"
    if fact["state"] in FAILURES:
        fact["mend"] = f"goes on from where it stopped with: sbatch {shlex.quote(str(folder / 'job.sbatch'))}"
    logs = status.log_files(log_folder(folder))
    fact["last_line"] = status.last_line(logs[0]) if logs else ""
    return fact


def _earlier(jobs: Sequence[dict[str, Any]]) -> int:
    """Return how often the run went back to the queue as other jobs, which the newest one continues."""
    return jobs[-1].get("continues", {}).get("requeues", 0) if jobs else 0


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
    text = "  ".join(words) + (f"\n    {fact['mend']}" if fact.get("mend") else "")
    return f"{text}\n    {fact['last_line']}" if fact["last_line"] else text
