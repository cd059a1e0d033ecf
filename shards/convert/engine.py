"""The conversion engine: a plan -> a shard set, in parallel; the same bytes on any number of workers, after any kill.

    OUT/.work/plan.json          which conversion this is
    OUT/.work/train-000000.0003  chunk: some encoded images of one tar (any worker, any order)
    OUT/train-000000.tar         its chunks joined; OUT/.work/train-000000.json says what it holds
    OUT/index.parquet ... dataset.json   the merge, when every tar is there; then .work goes

Every file is complete or absent, so a rerun only makes what is missing. Parts (`--part I/N`) are every N-th tar.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards.atomic import write_bytes
from shards.convert.config import ConvertConfig
from shards.convert.images import flat_warning
from shards.convert.merge import conversion_hash, is_made, merge, write_rejects_so_far
from shards.convert.pack import ChunkJob, Encoding, JoinJob, chunk_header, run_chunk, run_join
from shards.convert.plan import Plan
from shards.convert.source_stamps import Stamped, changed, check_unchanged, of_tar
from shards.convert.tar_layout import Shard, layout
from shards.errors import FailedError, InputError
from shards.format import CARD, Card
from shards.locks import locked
from shards.processes import cores, run_jobs
from shards.progress import Progress
from shards.read.card import read_card

WORK = ".work"


def convert(plan: Plan, config: ConvertConfig, *, say: Callable[[str], None] = print) -> Card | None:
    """Make the shard set of a plan in config.out, or go on making it.

    Args:
        plan: what to convert.
        config: how; only what `config.recorded()` lists changes the bytes.
        say: takes the lines meant for the user.

    Returns:
        the card, or None where only a part was asked for.

    Raises:
        InputError: config.out holds something else, or another process works on it, or (merge) parts are missing.
        FailedError: too many rejects, full disk, or a dead worker. The same command goes on from there.
    """
    config.check()
    out = Path(config.out)
    identity = conversion_hash(plan, config)
    shards = layout(plan, config.shard_size)
    for note in plan.notes:
        say(note)
    if (out / CARD).exists():
        card = read_card(out)
        if card.conversion != identity:
            raise InputError(f"{out} holds another shard set ({card.name}); choose another --out")
        check_unchanged(plan, out / CARD, say)
        drop_work(out)
        say(f"{out} is complete already: {card.n_samples} samples")
        return card
    work = _claim(out, identity)
    number, parts = config.part_numbers()
    busy = InputError(f"{out}: another process is making this shard set now")
    mine = "merge" if config.part is None else f"part-{number}-of-{parts}"
    with locked(work / f"{mine}.lock", 0, busy):
        if config.merge:
            _refuse_changed(plan, shards, out, work)
        else:
            _forget_changed(plan, shards[number::parts], work, say)
            _work_on(plan, config, shards[number::parts], out, work, say)
        if config.part is not None:
            say(f"part {config.part} is complete: {len(shards[number::parts])} of {len(shards)} tars")
            return None
        card = merge(plan, config, shards, out, work, identity)
    drop_work(out)
    say(summary(card, out))
    for line in flat_warning(card.flat_images, card.n_samples):
        say(line)
    return card


def summary(card: Card, out: Path) -> str:
    """Return one line on a finished set."""
    splits = ", ".join(f"{name} {card.counts[name]['n']}" for name in ("train", "val", "test") if name in card.counts)
    left_out = f"{card.n_rejects} not used (rejects.parquet)"
    return f"{out}: {card.n_samples} samples ({splits}), {left_out}, {len(card.shards)} tars"


def drop_work(out: Path) -> None:
    """Remove what a conversion leaves behind in OUT/.work."""
    shutil.rmtree(out / WORK, ignore_errors=True)


def open_work(out: Path) -> Path:
    """Make OUT/.work, or find it there.

    Raises:
        InputError: `out` is a file or holds something else, which stays untouched.
    """
    work = out / WORK
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a new or an empty folder")
    if not work.exists() and out.exists() and any(entry.name != WORK for entry in out.iterdir()):
        raise InputError(f"--out {out} exists and is not an unfinished conversion; choose a new or an empty folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose a folder you may write") from error
    return work


def _claim(out: Path, identity: str) -> Path:
    """Open OUT/.work for this conversion only."""
    work = open_work(out)
    note = work / "plan.json"
    if not note.exists():
        write_bytes(note, [json.dumps({"conversion": identity}).encode()])
    try:
        found = json.loads(note.read_bytes())["conversion"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{note} is damaged; remove {out} and convert again") from error
    if found != identity:
        raise InputError(
            f"{out} holds an unfinished conversion of other data or settings; run that command again, remove the "
            "folder, or choose another --out"
        )
    return work


def _changed(plan: Plan, shards: list[Shard], work: Path) -> list[Path]:
    """Return the finished chunks and the sidecars of finished tars whose sources are other files by now."""
    made: list[tuple[Path, Stamped]] = []
    for shard in shards:
        sidecar = work / f"{shard.name}.json"
        if sidecar.exists():
            made += [(sidecar, chunk) for chunk in of_tar(shard, json.loads(sidecar.read_bytes()).get("stamps", []))]
        for name, first, last in shard.chunks():
            header = chunk_header(work / name)
            if header is not None:
                made.append((work / name, (first, last, header.get("stamp"))))
    bad = changed(plan, [chunk for _, chunk in made])
    return sorted({path for (path, _), differs in zip(made, bad, strict=True) if differs})


def _forget_changed(plan: Plan, shards: list[Shard], work: Path, say: Callable[[str], None]) -> None:
    """Drop what was made from files that were changed since, so that it is made again."""
    stale = _changed(plan, shards, work)
    for path in stale:
        path.unlink()
    if stale:
        say(f"source files changed since the conversion began: {len(stale)} finished pieces are made again")


def _refuse_changed(plan: Plan, shards: list[Shard], out: Path, work: Path) -> None:
    stale = _changed(plan, shards, work)
    if stale:
        raise InputError(
            f"{out}: source files of {len(stale)} finished tars changed since (first: {stale[0].stem}.tar); run the "
            "parts again (they make only these), then merge"
        )


def _work_on(
    plan: Plan, config: ConvertConfig, shards: list[Shard], out: Path, work: Path, say: Callable[[str], None]
) -> None:
    todo = [shard for shard in shards if not is_made(shard, out, work)]
    if not todo:
        return
    plan.opener.prepare(work)
    rows = sum(shard.last - shard.first for shard in shards)
    rejects = len(plan.refused) + sum(
        len(json.loads((work / f"{shard.name}.json").read_bytes())["rejects"]) for shard in shards if shard not in todo
    )
    queue = _Queue(plan, config, todo, out, work)
    rejects += queue.rejects
    limit = config.max_rejects * (rows + len(plan.refused))
    workers = min(config.workers or cores(), max(1, queue.length))
    with Progress(rows, "converted", say) as progress:
        progress.add(rows - queue.rows)
        for job, result in run_jobs(queue, workers):
            if isinstance(job, ChunkJob):
                rejects += result[1]
                progress.add(len(job.rows), rejects=rejects)
                queue.finished(job.path)
            if rejects > limit:
                break
    if rejects > limit:
        _too_many(plan, config, shards, out, work, rejects, rows)


def _too_many(
    plan: Plan, config: ConvertConfig, shards: list[Shard], out: Path, work: Path, rejects: int, rows: int
) -> None:
    reasons = write_rejects_so_far(plan, shards, out, work)
    shown = "; ".join(f"{source}: {reason}" for source, reason in reasons[:3])
    raise FailedError(
        f"stopped: {rejects} of {rows + len(plan.refused)} sources are unusable so far, more than --max_rejects "
        f"{config.max_rejects:g} ({shown}; all of them in {out / 'rejects.parquet'}); fix the source, or allow more "
        "and run again"
    )


class _Queue:
    """Chunk jobs of every tar, and the join of a tar as soon as its chunks are done."""

    def __init__(self, plan: Plan, config: ConvertConfig, shards: list[Shard], out: Path, work: Path) -> None:
        self.plan, self.out, self.work = plan, out, work
        self.encoding = Encoding(
            size=config.size,
            image_format=config.image_format,
            quality=config.quality,
            max_pixels=config.max_pixels,
            bits=getattr(config, "bits", None),
            dicom_window=getattr(config, "dicom_window", "file"),
        )
        self.ready: list[Shard] = []
        self.open: dict[str, tuple[Shard, set[Path]]] = {}
        self.todo: list[tuple[Path, int, int]] = []
        self.rejects = self.rows = 0
        for shard in shards:
            missing = set()
            for name, first, last in shard.chunks():
                path = work / name
                header = chunk_header(path)
                if header is not None:
                    self.rejects += len(header["rejects"])
                    continue
                missing.add(path)
                self.todo.append((path, first, last))
                self.rows += last - first
            if missing:
                self.open[shard.name] = (shard, missing)
            else:
                self.ready.append(shard)
        self.todo.reverse()
        self.length = len(self.todo) + len(self.ready)

    def finished(self, path: Path) -> None:
        """Note a finished chunk; its tar is joined when it was the last one."""
        shard, missing = self.open[path.name.rpartition(".")[0]]
        missing.discard(path)
        if not missing:
            self.ready.append(self.open.pop(shard.name)[0])

    def __iter__(self) -> Iterator[tuple[Callable[[Any], Any], Any]]:
        return self

    def __next__(self) -> tuple[Callable[[Any], Any], Any]:
        if self.ready:
            shard = self.ready.pop(0)
            chunks = [self.work / name for name, _, _ in shard.chunks()]
            tar, sidecar = self.out / f"{shard.name}.tar", self.work / f"{shard.name}.json"
            return run_join, JoinJob(chunks=chunks, tar=tar, sidecar=sidecar)
        if not self.todo:
            raise StopIteration
        path, first, last = self.todo.pop()
        rows = self.plan.rows(first, last).to_pylist()
        return run_chunk, ChunkJob(
            path=path, first_row=first, rows=rows, opener=self.plan.opener, encoding=self.encoding
        )
