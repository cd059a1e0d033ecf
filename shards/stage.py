"""A local copy of a shard set: in memory, on a node's own disk, or of one that lies behind a URL.

Many processes of a node, or of many nodes on one cache, may ask for the same copy at once: each file has its own lock,
appears by atomic rename after its sha256 was checked against the card, and the card itself comes last, so a folder
with a card is complete. Copies are named after the hash of the whole set: a changed source is another copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from shards import card as cards
from shards.atomic import write_bytes
from shards.columns import cache_root
from shards.errors import FailedError, InputError
from shards.locks import locked

MODES = ("none", "ram", "disk")
_RAM = Path("/dev/shm")  # memory of the node
_PIECE = 8 << 20
_SPARE = 64 << 20  # bytes left free on the target, so that others there go on
_LOCK_SECONDS = 1800.0  # the owner of a lock fetches one file; after this long it is taken as stuck
_TRIES = 3
_REPORT_SECONDS = 15.0

Result = TypeVar("Result")


def fetch_card(address: str) -> tuple[cards.Card, bytes]:
    """The card of a shard set behind an address, and its bytes.

    Raises:
        InputError: no card there, or one that cannot be used.
        FailedError: the source could not be read after three tries.
    """
    return _card_of(_Remote(address), address)


def _card_of(source: _Source, where: str) -> tuple[cards.Card, bytes]:
    data = source.read(cards.CARD)
    return cards.parse_card(data, f"{where.rstrip('/')}/{cards.CARD}"), data


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
    folder = cards.local(path)
    if mode == "none" and folder is not None:
        return folder
    source = _Remote(os.fspath(path)) if folder is None else _Local(str(folder))
    card, data = _card_of(source, str(source))
    cards.check_content(card, sha256, path)
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
        raise InputError(f"{base} belongs to somebody else: name another folder for the staged copy")
    return base


def _files(card: cards.Card) -> list[tuple[str, str, int | None]]:
    """Name, sha256 and size (None: unknown) of what a reader needs, the index first."""
    files: list[tuple[str, str, int | None]] = [(cards.INDEX, card.index_sha256, None)]
    files += [(name, digest, None) for name, digest in card.files.items()]
    files += [(entry["name"], entry["sha256"], int(entry["bytes"])) for entry in card.shards]
    for name, _, _ in files:
        if PurePosixPath(name).name != name or name.startswith("."):
            raise InputError(f"the card names a file {name!r} outside its folder: this shard set is not to be trusted")
    return files


def _present(target: Path, name: str, size: int | None) -> bool:
    try:
        found = (target / name).stat().st_size
    except OSError:
        return False
    return size is None or found == size


def _complete(target: Path, card: cards.Card) -> bool:
    return (target / cards.CARD).exists() and all(_present(target, name, size) for name, _, size in _files(card))


def _copy(source: _Source, card: cards.Card, data: bytes, base: Path, target: Path) -> None:
    files = _files(card)
    try:
        locks = target / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {target} for the staged copy: {error.strerror}") from error
    _check_room(base, sum(size or 0 for name, _, size in files if not _present(target, name, size)))
    progress = _Progress(f"staging {card.name} to {target}", len(files))
    # Processes that start together begin at different files, so that they share the work.
    first = os.getpid() % len(files)
    for name, digest, size in files[first:] + files[:first]:
        if not _present(target, name, size):
            with locked(locks / name, _LOCK_SECONDS):
                if not _present(target, name, size):
                    _tried(
                        lambda name=name, digest=digest: source.copy(name, digest, target / name), f"{source}/{name}"
                    )
        progress.file_done()
    write_bytes(target / cards.CARD, [data])


def _check_room(base: Path, needed: int) -> None:
    free, needed = shutil.disk_usage(base).free, needed + _SPARE
    if needed > free:
        raise InputError(
            f"{base} has {free / 1e9:.2f} GB free, staging needs {needed / 1e9:.2f} GB: "
            "remove older copies there, or stage elsewhere (--stage disk or none)"
        )


def _tried(work: Callable[[], Result], what: str) -> Result:
    """Do something over the network, again after a pause if it fails, at most three times."""
    for left in reversed(range(_TRIES)):
        try:
            return work()
        except (InputError, FailedError):
            raise
        except Exception as error:  # each fsspec backend has its own family of network errors
            reason = _network_error(error)
            if reason is None:
                why = getattr(error, "strerror", None) or "not found"
                raise InputError(f"{what}: {why}: is this the folder of a shard set?") from error
            if not left:
                raise FailedError(f"{what} could not be read in {_TRIES} tries ({_short(reason)})") from error
            time.sleep(2.0 ** (_TRIES - left) / 2)
    raise AssertionError("unreachable")


def _network_error(error: Exception) -> BaseException | None:
    """What is to be told and tried again; None where the file is not there or not ours to read.

    fsspec says FileNotFoundError for a refused connection, an untrusted certificate and a busy server, too.
    """
    if not isinstance(error, FileNotFoundError | PermissionError):
        return error
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError | PermissionError):
        return cause
    busy = getattr(cause, "status", 0) in (408, 429) or getattr(cause, "status", 0) >= 500
    return cause if busy else None


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class _Source:
    """A folder of a shard set; subclasses say how a file is opened."""

    def __init__(self, root: str):
        self.root = root.rstrip("/") or "/"

    def __str__(self) -> str:
        return self.root

    def open(self, name: str) -> Any:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """A small file whole."""

        def work() -> bytes:
            with self.open(name) as file:
                return file.read()

        return _tried(work, f"{self}/{name}")

    def copy(self, name: str, digest: str, target: Path) -> None:
        """Copy one file; it appears under its name only if it has the sha256 `digest`."""

        def pieces() -> Iterator[bytes]:
            found = hashlib.sha256()
            with self.open(name) as file:
                while piece := file.read(_PIECE):
                    found.update(piece)
                    yield piece
            if found.hexdigest() != digest:
                raise InputError(
                    f"{self}/{name} does not have the sha256 on the card (damaged or changed): nothing was kept of it; "
                    "run `cxrdist verify` on the source"
                )

        write_bytes(target, pieces())


class _Local(_Source):
    def open(self, name: str) -> Any:
        return open(Path(self.root) / name, "rb")


class _Remote(_Source):
    def __init__(self, root: str):
        super().__init__(root)
        import fsspec

        scheme = root.split("://", 1)[0]
        options: dict[str, Any] = {}
        try:
            if scheme in ("http", "https"):
                import aiohttp

                # The default allows five minutes for a whole file; what matters is that bytes keep coming.
                options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}
            self._fs, self._path = fsspec.core.url_to_fs(self.root, **options)
        except ImportError as error:
            mend = "; pip install 'cxrdist[s3]'" if scheme in ("s3", "s3a") else ""
            raise InputError(f"reading {scheme}:// needs another package ({error}){mend}") from error
        except ValueError as error:
            raise InputError(f"{root}: fsspec cannot read this address ({error})") from error

    def open(self, name: str) -> Any:
        return self._fs.open(f"{self._path}/{name}", "rb", block_size=_PIECE)


class _Progress:
    """A line on stderr now and then; a bar would be drawn by every rank."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self.done, self.next = title, total, 0, time.monotonic() + _REPORT_SECONDS

    def file_done(self) -> None:
        self.done += 1
        if time.monotonic() > self.next:
            self.next = time.monotonic() + _REPORT_SECONDS
            print(f"{self.title}: {self.done} of {self.total} files", file=sys.stderr, flush=True)
