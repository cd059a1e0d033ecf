"""ShardSet: a shard set as a map-style torch Dataset, and as a source of decoded batches.

Legend: n samples of the chosen rows, L labels, B images of a batch, S side in pixels.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from shards.errors import InputError
from shards.format import Card
from shards.read.card import check_content, read_card
from shards.read.decode import Decoder
from shards.read.index import Index
from shards.read.stage import stage as staged


class ShardSet(Dataset):
    """The samples of one split (or of all) of a shard set.

    `shardset[i]` gives a dict: image uint8 tensor (1, S, S) in 0..255, key str, row int (row of the index), labels
    int8 tensor (L,) in the order of `.labels` (1 positive, 0 negative, -1 uncertain, `shards.labels.NULL` = -128 not
    mentioned). Images are the centre square of the stored ones, area-averaged to S.

    Attributes:
        path: local folder read from (the staged copy, where there is one).
        card: the card, `dataset.json`.
        index: the whole index; `index.label(name)[shardset.rows]` and so on.
        labels: names of the labels.
        size: S.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        *,
        stage: str = "none",
        size: int | None = None,
        cache_dir: str | os.PathLike | None = None,
        sha256: str | None = None,
    ):
        """Open a shard set.

        Args:
            path: folder, or URL of a folder (file, http, https, s3: anything fsspec knows), which is fetched first.
            split: train, val, test, ...; None means all samples.
            stage: none reads where it is; ram and disk copy to /dev/shm or a local disk first (see shards.read.stage).
            size: S, side of the images in pixels; None means the size of the shard set.
            cache_dir: where copies go; None means the defaults of shards.read.stage.
            sha256: hash of the set that must be there (`Card.sha256`), e.g. as a run recorded it; None means any.

        Raises:
            InputError: when it is not a shard set, another one than `sha256` says, has no such split, or `size` is
                below 1.
        """
        self.path = Path(staged(path, stage, cache_dir, sha256))
        self.card: Card = read_card(self.path)
        check_content(self.card, sha256, path)
        self.index = Index.open(self.path, sha256=self.card.index_sha256)
        self._match()
        self.labels = self.index.labels
        self.split = split
        self.size = self.card.image_size if size is None else int(size)
        if self.size < 1:
            raise InputError(f"image size must be 1 pixel or more, got {size}")
        self._span = range(self.index.n) if split is None else self.index.split_range(split)
        self._rows: np.ndarray | None = None  # None: the whole span, so that no worker holds a copy of it
        self._decoder = Decoder(self.path, self.index)

    def __getstate__(self) -> dict:
        # The card of a large set is large; another process reads it again, as it does the index.
        return {**self.__dict__, "card": self.card.sha256}

    def __setstate__(self, state: dict) -> None:
        card = read_card(state["path"])
        check_content(card, state["card"], state["path"])
        self.__dict__.update(state, card=card)

    def _match(self) -> None:
        """Refuse an index that belongs to another card."""
        known = {entry["name"] for entry in self.card.shards}
        if self.index.n != self.card.n_samples or not known.issuperset(self.index.shards):
            raise InputError(
                f"{self.index.path} and {self.path / 'dataset.json'} do not belong together: convert again"
            )

    @property
    def rows(self) -> np.ndarray:
        """Row numbers in the index, int64 (n,), in index order (or in the order given to `select`)."""
        if self._rows is None:
            return np.arange(self._span.start, self._span.stop, dtype=np.int64)
        return self._rows

    def rows_at(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers of positions 0..n-1: int64 of the same shape.

        Raises:
            InputError: for a position outside 0..n-1.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and (positions.min() < 0 or positions.max() >= len(self)):
            raise InputError(f"positions must be 0..{len(self) - 1}, got {positions.min()}..{positions.max()}")
        return positions + self._span.start if self._rows is None else self._rows[positions]

    def select(self, rows: np.ndarray) -> "ShardSet":
        """The same shard set with other rows, e.g. those of a fraction manifest: int64 (n,), in the order given.

        Raises:
            InputError: for a row that the index does not have.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.index.n):
            raise InputError(f"rows must be 0..{self.index.n - 1}, got {rows.min()}..{rows.max()}")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._rows = rows
        return other

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each run of rows from one tar, in the order of `rows` (for `Order` with a window)."""
        if not len(self):
            return []
        edges = np.flatnonzero(np.diff(self.index.shard[self.rows])) + 1
        return np.diff(np.r_[0, edges, len(self)]).tolist()

    def labels_matrix(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Labels of all n samples, int8 (n, L), columns in the order of `names` (None: all)."""
        return self.index.labels_matrix(names, self.rows)

    def images(self, positions: np.ndarray, size: int | None = None) -> torch.Tensor:
        """Decode a batch.

        Args:
            positions: int64 (B,), values 0..n-1, in any order, repeats allowed.
            size: S; None means `.size`.

        Returns:
            uint8 tensor (B, 1, S, S), 0..255.

        Raises:
            InputError: for a position outside 0..n-1 or an image that cannot be read.
        """
        rows = self.rows_at(positions)
        side = self.size if size is None else size
        out = torch.empty((len(rows), 1, side, side), dtype=torch.uint8)
        self._decoder.into(rows, out.numpy()[:, 0])
        return out

    def read_into(self, positions: np.ndarray, out: torch.Tensor) -> None:
        """As `images`, into a given contiguous uint8 CPU tensor (B, 1, S, S); releases the GIL while decoding."""
        self._decoder.into(self.rows_at(positions), out.numpy()[:, 0])

    def stored(self, position: int) -> bytes:
        """The file of one sample as it lies in the tar (JPEG or PNG); raises InputError for a wrong position."""
        return self._decoder.raw(int(self.rows_at(np.array([position]))[0]))

    def __len__(self) -> int:
        return len(self._span) if self._rows is None else len(self._rows)

    def __getitem__(self, position: int) -> dict:
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        row = self._row(position)
        image = torch.empty((1, self.size, self.size), dtype=torch.uint8)
        self._decoder.into(np.array([row]), image.numpy())
        return {
            "image": image,
            "key": self.index.key(row),
            "row": row,
            "labels": torch.from_numpy(self.index.labels_at(row)),
        }

    def _row(self, position: int) -> int:
        return self._span.start + int(position) if self._rows is None else int(self._rows[position])
