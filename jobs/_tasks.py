"""What `cxrdist submit` queues for each command: which task on the nodes, where its folder is, when it is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import _checks, _complete
from slurm.errors import InputError
from slurm.profiles import Profile, check, load, nodes_for, time_seconds
from slurm.task import Task

PLAIN = (
    "evaluate", "collect", "table", "plot", "report", "embed", "compare-embeddings", "explain", "explore", "predict",
    "export", "verify", "ensemble", "methods",
)  # fmt: skip
"""Commands that run on one node as they are; they may be interrupted and run again."""
SUBMITTABLE = ("pretrain", "finetune", "sweep", "shard", *PLAIN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """The options of `cxrdist submit` itself."""

    profile: Profile
    nodes: int = 1
    min_nodes: int | None = None
    partition: str | None = None
    parts: int | None = None
    after: tuple[str, ...] = ()
    name: str | None = None
    dry_run: bool = False
    folder: Path | None = None
    """STUDY/stages/NAME, where a study keeps the jobs and marks of a command that has no folder of its own;
    None: beside its output."""


OPTIONS = {
    "profile": "cluster profile: a name or a .toml file (default local)",
    "nodes": "nodes to ask for (default 1)",
    "gpus": "GPUs to ask for, instead of --nodes; whole nodes only",
    "min_nodes": "start with as few as these when more are not free (default: exactly --nodes)",
    "partition": "partition, instead of the profile's",
    "time": "time limit of one stretch, instead of the profile's",
    "parts": "shard only: number of parts of the job array (default: --nodes)",
    "after": "numbers of jobs that must have succeeded first, comma separated",
    "job_name": "name of the job in the queue (default: the command's)",
    "dry_run": "print the sbatch text and queue nothing",
}


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return submit's own options and the words that are left for the command.

    Raises:
        InputError: an option of submit without its value.
    """
    own: dict[str, str] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or key not in OPTIONS:
            rest.append(word)
        elif key == "dry_run":
            own[key] = value if equals else "true"
        elif equals:
            own[key] = value
        elif queue and not queue[0].startswith("--"):
            own[key] = queue.pop(0)
        else:
            raise InputError(f"cxrdist submit: --{key} needs a value ({OPTIONS[key]})")
    return own, rest


def where(own: dict[str, str]) -> SubmitOptions:
    """Return the checked options of submit.

    Raises:
        InputError: not a number, an unknown profile, a wrong time, GPUs that do not fill nodes.
    """

    def number(key: str) -> int | None:
        text = own.get(key)
        if text is None:
            return None
        if not text.isdecimal() or len(text) > 9 or int(text) < 1:
            raise InputError(f"cxrdist submit: --{key} {text[:40]} must be a whole number, at least 1")
        return int(text)

    profile = load(own.get("profile", "local"))
    if "time" in own:
        time_seconds(own["time"])
        profile = check(dataclasses.replace(profile, time=own["time"]), "--time")
    after = tuple(word for word in own.get("after", "").split(",") if word)
    for word in after:
        if not word.isdecimal():
            raise InputError(f"cxrdist submit: --after {word}: not a job number")
    return SubmitOptions(
        profile=profile,
        nodes=nodes_for(profile, nodes=number("nodes"), gpus=number("gpus")),
        min_nodes=number("min_nodes"),
        partition=own.get("partition"),
        parts=number("parts"),
        after=after,
        name=own.get("job_name"),
        dry_run=own.get("dry_run", "false").lower() in ("true", "1", "yes"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
    """A command that is ready to be queued."""

    tasks: tuple[Task, ...]
    """One task; for shard the parts and then the merge."""
    folder: Path
    """What the user calls the run: submission/ lies in it."""
    complete: bool
    """Whether there is nothing left to do."""


def work(words: Sequence[str], at: SubmitOptions, *, create: bool, waits: bool = False) -> Submission:
    """Check a command as if it were run here, and return its tasks.

    Args:
        words: Command and options, as after `cxrdist`.
        at: Submit's own options.
        create: Freeze the run in its folder now; False checks the same and writes nothing.
        waits: Its input is yet to be made by a job before it: only the settings are checked.

    Raises:
        InputError: not a command that can be queued, or a refusal of the command itself (ValueError with exit code 2).
    """
    from jobs import cli

    name, *rest = words or [""]
    if name not in SUBMITTABLE:
        raise InputError(f"cxrdist submit: {name or 'nothing'!r} cannot be queued; {', '.join(SUBMITTABLE)}, chain can")
    config = cli.parse(name, rest)
    if name == "pretrain":
        return _pretrain(config, list(rest), at, create, waits)
    if name == "finetune":
        return _finetune(config, list(rest), at, create, waits)
    if name == "sweep":
        if config.executor != "ray":
            raise InputError(
                "cxrdist submit sweep: queues Ray in one job; without submit, --executor slurm-array queues cells"
            )
        _checks.sweep(config, waits)
        return _command("sweep", config, rest, at, kind="ray")
    if at.nodes > 1 and name != "shard":
        raise InputError(f"cxrdist submit {name}: runs on one node; leave --nodes out")
    return _shard(config, rest, at) if name == "shard" else _command(name, config, rest, at, kind="command")


def _task(at: SubmitOptions, **values: Any) -> Task:
    from slurm.submit import task_for

    return task_for(at.profile, **values)


def _pretrain(config: Any, rest: list[str], at: SubmitOptions, create: bool, waits: bool) -> Submission:
    ranks = at.profile.ranks
    for nodes in range(at.min_nodes or at.nodes, at.nodes + 1):
        if config.global_batch % (nodes * ranks):
            raise InputError(
                f"--global_batch {config.global_batch} cannot be split evenly over {nodes * ranks} ranks ({nodes} "
                f"nodes of {ranks}); take a multiple, or other --nodes"
            )
    out = Path(config.out).expanduser().absolute()
    config = dataclasses.replace(config, out=str(out))
    complete = _complete.pretrained(config)
    if not complete:  # a run that is done needs its input no more
        _checks.pretrain(config, waits)
    if create:
        from cxrdist.pretrain.run_folder import create_run

        create_run(config, command=[Path(sys.argv[0]).name, *sys.argv[1:]])
    prepare = () if create else ("jobs.submit", "prepare", "pretrain", *rest)
    task = _task(
        at, kind="ranks", words=("cxrdist.pretrain", str(out)), folder=str(out / "submission"),
        done=str(out / "done.json"), prepare=prepare, prepared=str(out / "config.toml"),
    )  # fmt: skip
    return Submission(tasks=(task,), folder=out, complete=complete)


def _finetune(config: Any, rest: list[str], at: SubmitOptions, create: bool, waits: bool) -> Submission:
    out = Path(config.out).expanduser().absolute()
    if at.nodes > 1:
        raise InputError("cxrdist submit finetune: one trial runs on one node; many trials are `submit sweep`")
    config = dataclasses.replace(config, out=str(out))
    complete = _complete.finetuned(config)
    if not complete:
        _checks.trial(config, waits)
    if create:
        _create_trial(config)
    prepare = () if create else ("jobs.submit", "prepare", "finetune", *rest)
    task = _task(
        at, kind="command", ranks_per_node=1, gpus_per_node=min(1, at.profile.gpus),
        words=("cxrdist.finetune", str(out)), folder=str(out / "submission"),
        done=str(out / "done.json"), prepare=prepare, prepared=str(out / "config.toml"),
    )  # fmt: skip
    return Submission(tasks=(task,), folder=out, complete=complete)


def _create_trial(config: Any) -> None:
    from cxrdist.finetune import identity
    from cxrdist.finetune.config import check as check_trial

    identity.make_run(identity.resolve(check_trial(config)), command=[Path(sys.argv[0]).name, *sys.argv[1:]])


def prepare(words: Sequence[str]) -> None:
    """Freeze the run of a queued command whose input did not exist when it was queued (runs on its first node)."""
    from jobs import cli

    name, *rest = words
    config = cli.parse(name, rest)
    config = dataclasses.replace(config, out=str(Path(config.out).expanduser().absolute()))
    if name == "pretrain":
        from cxrdist.pretrain.run_folder import create_run

        create_run(config, command=["cxrdist", *words])
    else:
        _create_trial(config)


def _command(name: str, config: Any, rest: Sequence[str], at: SubmitOptions, *, kind: str) -> Submission:
    folder = at.folder if at.folder is not None and kind == "command" else _folder(name, config)
    mark = folder / "submission" / f"complete-{_digest([name, *rest], config, at)}"
    uses_gpu = name in ("evaluate", "embed", "compare-embeddings", "explain", "explore", "predict")
    less = {} if kind == "ray" else {"ranks_per_node": 1, "gpus_per_node": int(uses_gpu and at.profile.gpus > 0)}
    task = _task(
        at, kind=kind, words=("jobs.cli", name, *rest), folder=str(folder / "submission"), listens=False,
        mark=str(mark), **less,
    )  # fmt: skip
    out = getattr(config, "out", None)
    made = _complete.is_made(mark, None if out is None else Path(str(out)))
    if kind == "ray":
        made = made and _complete.swept(Path(config.out))
    return Submission(tasks=(task,), folder=folder, complete=made)


def _shard(config: Any, rest: Sequence[str], at: SubmitOptions) -> Submission:
    if hasattr(config, "check"):
        config.check()
    out = Path(config.out).expanduser().absolute()
    folder = at.folder or out.with_name(f"{out.name}.job")  # a shard set holds nothing but shards
    shared: dict[str, Any] = {
        "kind": "command", "folder": str(folder / "submission"), "listens": False, "ranks_per_node": 1,
        "gpus_per_node": 0, "cpus_per_rank": at.profile.cpus_per_rank * at.profile.ranks,
    }  # fmt: skip
    if getattr(config, "layout_only", False):  # no shard set comes of it, and so no card
        mark = folder / "submission" / f"complete-{_digest(['shard', *rest], config, at)}"
        drawing = _task(at, words=("jobs.cli", "shard", *rest), mark=str(mark), **shared)
        return Submission(tasks=(drawing,), folder=folder, complete=_complete.is_made(mark, out))
    parts = at.parts or at.nodes
    done = str(out / "dataset.json")
    complete = _complete.shard_set(out, config)
    if parts == 1 or not hasattr(config, "part"):
        whole = _task(at, words=("jobs.cli", "shard", *rest), done=done, **shared)
        return Submission(tasks=(whole,), folder=folder, complete=complete)
    each = _task(at, words=("jobs.cli", "shard", *rest, "--part", f"{{part}}/{parts}"), **shared)
    merge = _task(at, words=("jobs.cli", "shard", *rest, "--merge", "true"), done=done, **shared)
    return Submission(tasks=(each, merge), folder=folder, complete=complete)


def _folder(name: str, config: Any) -> Path:
    runs = getattr(config, "runs", None) or [getattr(config, "run", None)]
    out = getattr(config, "out", None) or runs[0] or f"cxrdist-{name}"
    path = Path(str(out)).expanduser().absolute()
    return path.with_name(f"{path.name}.job") if path.suffix else path


def _digest(words: Sequence[str], config: Any, at: SubmitOptions) -> str:
    """Identity of a command, with the content of its settings (a changed --config file is another command).

    Within a study the settings alone count, and places in its folder are not told apart by where the folder is: it may
    be moved, and its specs lie elsewhere while a run is only planned.
    """
    from results.identity import plain

    if at.folder is None:
        return hashlib.sha256(repr([list(words), plain(config)]).encode()).hexdigest()[:12]
    settings = repr([words[0], plain(config)]).replace(str(at.folder.parents[1]), "{out}")
    return hashlib.sha256(settings.encode()).hexdigest()[:12]
