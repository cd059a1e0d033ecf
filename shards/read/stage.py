"""A local copy of a shard set: in memory, on a node's own disk, or of one that lies behind a URL.

Many processes of a node, or of many nodes on one cache, may ask for the same copy at once: each file has its own lock,
appears by atomic rename after its sha256 was checked against the card, and the card itself comes last, so a folder
with a card is complete. Copies are named after the hash of the whole set: a changed source is another copy.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

from shards.atomic import write_bytes
from shards.errors import InputError
from shards.format import CARD, INDEX, Card
from shards.locks import locked
from shards.read.card import card_of, check_content, local
from shards.read.index_cache import cache_root
from shards.read.transfer import Local, Remote, Source, tried

MODES = ("none", "ram", "disk")
_RAM = Path("/dev/shm")  # memory of the node
_SPARE = 64 << 20  # bytes left free on the target, so that others there go on
_LOCK_SECONDS = 1800.0  # the owner of a lock fetches one file; after this long it is taken as stuck
_REPORT_SECONDS = 15.0


def stage(
    path: str | os.PathLike,
    mode: str = "none",
    cache_dir: str | os.PathLike | None = None,
    sha256: str | None = None,
) -> Path:
    """Return a local folder that holds the shard set.

    Args:
        path: a folder, or the URL of one (file, http, https, s3, or another scheme that fsspec knows).
        mode: "none" uses a local folder where it is and fetches a URL into the cache; "ram" copies to /dev/shm;
            "disk" copies to the node's own disk ($SLURM_TMPDIR, else $TMPDIR, else the system's temporary folder).
        cache_dir: folder for the copies; None means the above, and for a fetched URL $CXRDIST_CACHE/shards
            (default ~/.cache/cxrdist/shards).
        sha256: hash of the set that must be there (`Card.sha256`), compared before anything is copied; None = any.

    Raises:
        InputError: no shard set there, an unknown mode, a missing fsspec extension, too little room, or a file whose
            sha256 is not the one on the card.
        FailedError: the source could not be read after three tries, or the disk ran full.
    """
    if mode not in MODES:
        raise InputError(f"stage must be one of {', '.join(MODES)}, got {mode!r}")
    folder = local(path)
    if mode == "none" and folder is not None:
        return folder
    source = Remote(os.fspath(path)) if folder is None else Local(str(folder))
    card, data = card_of(source, str(source))
    check_content(card, sha256, path)
    base = Path(cache_dir) if cache_dir is not None else _default_base(mode)
    target = base / f"{card.name}-{card.sha256[:16]}"
    if not _complete(target, card):
        _copy(source, card, data, base, target)
    return target


def _default_base(mode: str) -> Path:
    """The private folder for copies; /dev/shm and temporary folders are shared, so it must be ours."""
    if mode == "none":
        return cache_root() / "shards"
    if mode == "ram":
        if not _RAM.is_dir():
            raise InputError(f"stage ram needs {_RAM}, which this machine lacks: use --stage disk")
        parent = _RAM
    else:
        parent = Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    base = parent / f"cxrdist-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {base} for the staged copy: {error.strerror}") from error
    found = base.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{base} belongs to another user: name another folder for the staged copy")
    return base


def _files(card: Card) -> list[tuple[str, str, int | None]]:
    """Name, sha256 and size (None: unknown) of what a reader needs, the index first."""
    files: list[tuple[str, str, int | None]] = [(INDEX, card.index_sha256, None)]
    files += [(name, digest, None) for name, digest in card.files.items()]
    files += [(entry["name"], entry["sha256"], int(entry["bytes"])) for entry in card.shards]
    return files


def _present(target: Path, name: str, size: int | None) -> bool:
    try:
        found = (target / name).stat().st_size
    except OSError:
        return False
    return size is None or found == size


def _complete(target: Path, card: Card) -> bool:
    return (target / CARD).exists() and all(_present(target, name, size) for name, _, size in _files(card))


def _copy(source: Source, card: Card, data: bytes, base: Path, target: Path) -> None:
    files = _files(card)
    try:
        locks = target / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {target} for the staged copy: {error.strerror}") from error
    _check_room(base, sum(size or 0 for name, _, size in files if not _present(target, name, size)))
    progress = _StagingLines(f"staging {card.name} to {target}", len(files))
    # Processes that start together begin at different files, so that they share the work.
    first = os.getpid() % len(files)
    for name, digest, size in files[first:] + files[:first]:
        if not _present(target, name, size):
            with locked(locks / name, _LOCK_SECONDS):
                if not _present(target, name, size):
                    tried(lambda name=name, digest=digest: source.copy(name, digest, target / name), f"{source}/{name}")
        progress.file_done()
    write_bytes(target / CARD, [data])


def _check_room(base: Path, needed: int) -> None:
    free, needed = shutil.disk_usage(base).free, needed + _SPARE
    if needed > free:
        raise InputError(
            f"{base} has {free / 1e9:.2f} GB free, staging needs {needed / 1e9:.2f} GB: "
            "remove older copies there, or stage elsewhere (--stage disk or none)"
        )


class _StagingLines:
    """A line on stderr now and then; a bar would be drawn by every rank."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self.done, self.next = title, total, 0, time.monotonic() + _REPORT_SECONDS

    def file_done(self) -> None:
        self.done += 1
        if time.monotonic() > self.next:
            self.next = time.monotonic() + _REPORT_SECONDS
            print(f"{self.title}: {self.done} of {self.total} files", file=sys.stderr, flush=True)
