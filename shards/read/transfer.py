"""Files of a shard set from a folder or behind an address, tried three times and believed only with their sha256."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from shards.atomic import write_bytes
from shards.errors import FailedError, InputError

_PIECE = 8 << 20
_TRIES = 3

Result = TypeVar("Result")


def tried(work: Callable[[], Result], what: str) -> Result:
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
    """What to report and try again; None where the file is not there or not ours to read.

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


class Source:
    """A folder of a shard set; subclasses say how a file is opened."""

    def __init__(self, root: str):
        self.root = root.rstrip("/") or "/"

    def __str__(self) -> str:
        return self.root

    def open(self, name: str) -> Any:
        """A file of the folder, open for reading."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """A small file whole."""

        def work() -> bytes:
            with self.open(name) as file:
                return file.read()

        return tried(work, f"{self}/{name}")

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
                    f"{self}/{name} does not have the sha256 on the card (damaged or changed): the copy was discarded; "
                    "run `cxrdist verify` on the source"
                )

        write_bytes(target, pieces())


class Local(Source):
    """A folder that this machine sees."""

    def open(self, name: str) -> Any:
        """A file of the folder, open for reading."""
        return open(Path(self.root) / name, "rb")


class Remote(Source):
    """A folder behind an address: whatever fsspec knows."""

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
            fix = "; pip install 'cxrdist[s3]'" if scheme in ("s3", "s3a") else ""
            raise InputError(f"reading {scheme}:// needs another package ({error}){fix}") from error
        except ValueError as error:
            raise InputError(f"{root}: fsspec cannot read this address ({error})") from error

    def open(self, name: str) -> Any:
        """A file of the folder, open for reading."""
        return self._fs.open(f"{self._path}/{name}", "rb", block_size=_PIECE)
