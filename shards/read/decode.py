"""Image bytes inside the tars -> grey uint8 squares. No torch here: a reading process stays small.

Legend: B images, S side in pixels.
"""

import os
import resource
from pathlib import Path

import cv2
import numpy as np

from shards.errors import InputError
from shards.read.index import Index

# One image is one task; the threads above supply the parallelism.
cv2.setNumThreads(1)

_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG, _JPEG_END, _PNG, _PNG_END = b"\xff\xd8", b"\xff\xd9", b"\x89PNG", b"IEND\xaeB`\x82"


class Decoder:
    """Reads and decodes samples of a shard set by row number; safe in many threads and after a fork."""

    def __init__(self, folder: Path, index: Index):
        """Read from the tars in `folder`; they are opened at first use, at most `most_open` at a time.

        That many is a quarter of the files this process may have open, and 1024 at most: to open a tar again for each
        sample is slow on network file systems.
        """
        self.folder, self.index = folder, index
        self._tars: dict[int, _Tar] = {}
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most_open = 1024 if allowed == resource.RLIM_INFINITY else max(16, min(1024, allowed // 4))

    def __reduce__(self):
        return Decoder, (self.folder, self.index)

    def raw(self, row: int) -> bytes:
        """The stored file of one sample (JPEG or PNG)."""
        return self._read(int(self.index.shard[row]), int(self.index.offset[row]), int(self.index.size[row]), row)

    def image(self, row: int) -> np.ndarray:
        """One image as stored: grey uint8 (height, width)."""
        return self._decoded(self.raw(row), row)

    def into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Decode rows into `out`, uint8 (B, S, S): centre-cropped to a square, area-averaged down to S (bilinear up).

        Raises:
            InputError: when a tar is missing or a sample cannot be read or decoded.
        """
        index, side = self.index, out.shape[1]
        places = zip(
            rows.tolist(),
            index.shard[rows].tolist(),
            index.offset[rows].tolist(),
            index.size[rows].tolist(),
            strict=True,
        )
        for position, (row, shard, offset, size) in enumerate(places):
            image = self._decoded(self._read(shard, offset, size, row), row)
            height, width = image.shape
            if height != width:
                image = square(image)
                height = image.shape[0]
            if height != side:
                how = cv2.INTER_AREA if height > side else cv2.INTER_LINEAR
                image = cv2.resize(image, (side, side), interpolation=how)
            out[position] = image

    def _read(self, shard: int, offset: int, size: int, row: int) -> bytes:
        tar = self._tars.get(shard) or self._open(shard)
        data = os.pread(tar.fd, size, offset)
        if len(data) != size:
            raise self._broken(row, "the tar ends before it")
        return data

    def _decoded(self, data: bytes, row: int) -> np.ndarray:
        # The decoder fills a cut JPEG up with grey and says nothing, so look at both ends.
        whole = (
            data.endswith(_JPEG_END) if data.startswith(_JPEG) else data.startswith(_PNG) and data.endswith(_PNG_END)
        )
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS) if whole else None
        if image is None:
            raise self._broken(row, "not a whole JPEG or PNG")
        return image

    def _open(self, shard: int) -> "_Tar":
        path = self.folder / self.index.shards[shard]
        try:
            tar = _Tar(path)
        except OSError as error:
            raise InputError(
                f"{path}: {error.strerror}; `cxrdist verify {self.folder}` lists what is missing"
            ) from error
        # Single operations of a plain dict need no lock (those of an OrderedDict would), and a lock could be held by
        # another thread when this process forks.
        self._tars[shard] = tar
        opened = list(self._tars)
        # A dropped tar closes when the last thread reading from it lets go: its number is never reused under one.
        for oldest in opened[: max(0, len(opened) - self.most_open)]:
            self._tars.pop(oldest, None)
        return tar

    def _broken(self, row: int, why: str) -> InputError:
        tar = self.folder / self.index.shards[self.index.shard[row]]
        where = f"{tar}: sample {self.index.key(row)} at byte {self.index.offset[row]}"
        return InputError(f"{where} cannot be read ({why}); run `cxrdist verify {self.folder}`")


class _Tar:
    """An open file that closes itself when nothing refers to it any more."""

    __slots__ = ("fd",)

    def __init__(self, path: Path):
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if self.fd >= 0:
            os.close(self.fd)


def square(image: np.ndarray) -> np.ndarray:
    """The centre square of an image (H, W), a view; an odd pixel too much is cut at the bottom or right."""
    height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
