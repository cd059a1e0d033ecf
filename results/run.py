"""A run is a folder. This class owns the name of everything in it, its identity, and when it counts as done."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from results import atomic, used_datasets
from results.errors import InputError
from results.identity import differences, plain
from results.provenance import command_line, facts, now

FORMAT_VERSION = 1
"""Version of run.json and done.json."""

_HASH = re.compile(r"[0-9a-f]{64}")

FREE_NAMES = {"submission", "tb"}
"""What may already lie in a folder that becomes a run: the job's own submission script and its logs."""


RUN_FOLDERS = {"checkpoints", "tb", "results", "submission"}
"""Folders of a run that hold no runs."""


class Run:
    """The files of one run.

    Making the object touches nothing; `Run.create` makes the folder, `Run.open` insists that it is a run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the files below `path`, which need not exist."""
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.info = self.path / "run.json"
        self.metrics_log = self.path / "metrics.jsonl"
        self.tb = self.path / "tb"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder.safetensors"
        self.model = self.path / "model.safetensors"
        self.typicality = self.path / "typicality.safetensors"
        self.results = self.path / "results"
        self.metrics = self.results / "metrics.parquet"
        self.predictions = self.results / "predictions.parquet"
        self.submission = self.path / "submission"
        self.tracking = self.path / "tracking.json"
        self.manifest = self.path / "fraction.json"
        self.done = self.path / "done.json"
        self._log_checked = False

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def is_done(self) -> bool:
        """Whether the run's last file exists."""
        return self.done.is_file()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run while a `with` block trains it; the kernel ends the claim with the process.

        A file system without locks lets everybody in.

        Raises:
            InputError: another process holds it.
        """
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
                    hint = f" (srun started this command {tasks} times: srun -n1 -c CORES)" if int(tasks) > 1 else ""
                    raise InputError(f"{self.path} is being trained by another process; start it once{hint}") from None
            yield
        finally:
            os.close(handle)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """An existing run.

        Raises:
            InputError: `path` is not a run folder.
        """
        run = cls(path)
        if not run.info.is_file():
            raise InputError(f"{run.path} is not a run folder: it has no run.json")
        return run

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        job: str,
        config: Mapping[str, Any],
        signature: str,
        shards: Mapping[str, str] | None = None,
        init: Mapping[str, Any] | None = None,
        datasets: Mapping[str, used_datasets.Facts] | None = None,
        command: list[str] | None = None,
        ignore: Iterable[str] = (),
    ) -> Run:
        """Make a run folder (mode 0700), or return the one that already holds this signature.

        A run that is not done takes over `config`, which then can differ only in what the signature ignores
        (workers, ranks, device); a run that is done is left as it is.

        Args:
            path: the folder; new, empty, or an earlier attempt of the same run.
            job: what runs (`pretrain`, `finetune`).
            config: the resolved configuration, nested; None values are left out of config.toml.
            signature: see `results.identity`.
            shards: shard set path or URL -> its SHA-256, as the run must find them. A run that is not done adds the
                places to which its sets have been moved since.
            init: what the run starts from, by content: name, and for a file sha256, dataset, signature.
            datasets: whose data those are, by content (see `results.used_datasets`); no part of the signature.
            command: the command line; None records this process's own.
            ignore: settings that the signature ignores, which a refusal need not name.

        Raises:
            InputError: the folder holds another run or other files (which stay untouched), or cannot be made.
        """
        run = cls(path)
        run._make_folder()
        if not run.info.exists():
            run._refuse_foreign_files()
            info = {"format_version": FORMAT_VERSION, "job": job, "signature": signature, "shards": dict(shards or {})}
            if init is not None:
                info["init"] = {key: value for key, value in init.items() if value is not None}
            if datasets:
                info[used_datasets.KEY] = dict(datasets)
            info |= facts() | {"command": command_line(command), "created_at": now()}
            try:
                atomic.create_text(run.info, json.dumps(info, indent=2) + "\n")
            except OSError as error:
                raise InputError(f"cannot write in {run.path}: {error.strerror}; choose another --out") from error
        held = run._refuse_other_run(job, signature, config, shards, ignore)
        if not run.is_done:
            run._write_config(config)
            moved = {place: content for place, content in (shards or {}).items() if place not in held.get("shards", {})}
            if moved:
                held["shards"] = {**held.get("shards", {}), **moved}
                atomic.write_text(run.info, json.dumps(held, indent=2) + "\n")
            used_datasets.note(run, datasets or {})
        return run

    @classmethod
    def check(
        cls,
        path: str | os.PathLike[str],
        *,
        job: str,
        signature: str,
        config: Mapping[str, Any] | None = None,
        ignore: Iterable[str] = (),
    ) -> None:
        """Refuse a folder that `create` would refuse for what lies in it; nothing is written.

        Args:
            path: the folder.
            job: see `create`.
            signature: see `create`.
            config: see `create`; None = a refusal does not name what differs.
            ignore: see `create`.

        Raises:
            InputError: it is a file, or holds another run or other files.
        """
        run = cls(path)
        atomic.refuse_no_text(run.path)
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"{run.path} is a file, not a folder; choose another --out")
        if run.info.exists():
            run._refuse_other_run(job, signature, config, None, ignore)
        elif run.path.is_dir():
            run._refuse_foreign_files()

    def _refuse_other_run(
        self,
        job: str,
        signature: str,
        config: Mapping[str, Any] | None,
        shards: Mapping[str, str] | None,
        ignore: Iterable[str],
    ) -> dict[str, Any]:
        """The run's info, unless it is another run's."""
        held = self.read_info()
        if held.get("signature") == signature:
            return held
        differ = []
        if held.get("job") != job:
            differ = [f"it is a {held.get('job')}, this is a {job}"]
        elif config is not None and self.config.is_file():
            differ = differences(self.read_config(), config, (*ignore, "out"))
            before = held.get("shards") or {}
            differ += [
                f"{place} has hash {before[place][:12]} there, {content[:12]} here"
                for place, content in (shards or {}).items()
                if place in before and before[place] != content
            ]
        what = "; ".join(differ[:4]) + ("; and more" if differ[4:] else "")
        what = what or f"of other data or weights: signature {held.get('signature')} there, {signature} here"
        raise InputError(f"{self.path} holds another run ({what}); choose another --out, or the options that made it")

    @property
    def has_begun(self) -> bool:
        """Whether the folder holds anything that training made."""
        made = (self.checkpoints, self.metrics_log, self.encoder, self.model, self.results, self.done)
        return any(path.exists() for path in made)

    def discard(self) -> None:
        """Remove the folder of a start that failed before anything was made, so that its name is free again.

        The process that made the folder calls this, holding it (see `alone`). What has begun stays, and what a job was
        queued for.
        """
        if not self.has_begun and not self.submission.exists():
            # On NFS the lock, which is open, leaves a file until it is closed, and with it the empty folder, which is
            # free as well.
            shutil.rmtree(self.path, ignore_errors=True)

    def is_held(self) -> bool:
        """Whether a process trains the run now, as far as this machine's file locks tell."""
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
        finally:
            os.close(handle)
        return False

    def _make_folder(self) -> None:
        atomic.refuse_no_text(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError as error:
            blocking = self.path if self.path.exists() else self.path.parent
            raise InputError(f"{blocking} is a file, not a folder; choose another --out") from error
        except OSError as error:
            raise InputError(
                f"cannot make the run folder {self.path}: {error.strerror}; choose another --out"
            ) from error

    def _refuse_foreign_files(self) -> None:
        foreign = sorted(
            entry.name
            for entry in os.scandir(self.path)
            if entry.name not in FREE_NAMES and not entry.name.startswith(atomic.TEMPORARY_PREFIX)
        )
        if foreign and not self.info.exists():  # another process may have made the run just now
            raise InputError(
                f"{self.path} holds other files ({', '.join(foreign[:3])}{' ...' if len(foreign) > 3 else ''})"
                " and is not a run; choose an empty or new folder for --out"
            )

    def _write_config(self, config: Mapping[str, Any]) -> None:
        import tomli_w

        text = tomli_w.dumps(plain(config))
        if not self.config.is_file() or self.config.read_text(encoding="utf-8") != text:
            atomic.write_text(self.config, text)

    def read_config(self) -> dict[str, Any]:
        """config.toml as a nested dict; values that were None are absent."""
        return _parse(self.config, tomllib.loads)

    def read_info(self) -> dict[str, Any]:
        """run.json: job, signature, shards, init, datasets, git_commit, versions, command, host, created_at."""
        info = _parse(self.info, json.loads)
        for key in ("shards", "init", used_datasets.KEY):
            if not isinstance(info.get(key) or {}, dict):
                raise InputError(f"{self.info} is damaged: {key} is {str(info[key])[:40]!r}, not a table")
        return info

    def shard_hashes(self) -> dict[str, str]:
        """Place of each shard set that the run was made with -> its SHA-256."""
        held = self.read_info().get("shards") or {}
        return {str(place): str(content) for place, content in held.items() if _HASH.fullmatch(str(content))}

    def read_done(self) -> dict[str, Any]:
        """done.json: the facts given to `finish`, and finished_at."""
        return _parse(self.done, json.loads)

    def finish(self, **facts: Any) -> None:
        """Write done.json, the run's last file, with `facts` (plain JSON values; e.g. wall_seconds, gpu_seconds)."""
        done = {"format_version": FORMAT_VERSION, "finished_at": now()} | {k: jsonable(v) for k, v in facts.items()}
        atomic.write_text(self.done, json.dumps(done, indent=2) + "\n")

    def log(self, step: int, **values: Any) -> None:
        """Append one line to metrics.jsonl.

        Values that are not finite are written as null. A line that an earlier process left half-written is closed
        first, so that it cannot swallow this one.
        """
        line = json.dumps({"step": int(step)} | {key: jsonable(value) for key, value in values.items()}) + "\n"
        handle = os.open(self.metrics_log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if not self._log_checked:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = "\n" + line
                self._log_checked = True
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl by step.

        Steps that were logged again after a resume appear once, as logged last; half-written lines are left out.
        """
        if not self.metrics_log.is_file():
            return []
        last: dict[tuple[Any, ...], dict[str, Any]] = {}
        for text in self.metrics_log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(text)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                last[(row["step"], *sorted(row))] = row
        return sorted(last.values(), key=lambda row: row["step"])


def jsonable(value: Any) -> Any:
    """A value as JSON can hold it: array scalars as numbers, NaN and infinity as None."""
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _parse(path: Path, parser: Any) -> dict[str, Any]:
    try:
        found = parser(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it holds {str(found)[:40]!r} and no names with values")
    return found
