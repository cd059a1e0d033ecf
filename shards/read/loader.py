"""Batches of decoded images in the order of an `Order`, decoded ahead by threads.

Threads, not processes: reading and decoding release the GIL, so threads share the index, the open tars and the batch
itself, nothing is copied between processes, and memory does not grow with their number. What a step yields depends on
the step alone; workers change only how soon it is ready.

Legend: G global batch, B local batch (G / world), S side in pixels.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from shards.errors import InputError
from shards.read.dataset import ShardSet
from shards.read.order import Order, rank_slice
from shards.read.union import ShardUnion

Batch = tuple[int, np.ndarray, torch.Tensor]


class Loader:
    """Iterates (step, positions int64 (G,), images uint8 tensor (B, 1, S, S)) for steps start_step..stop_step-1.

    `images` are those of `positions[rank_slice(G, rank, world)]`. Every iteration starts at `start_step` again, and
    leaving it early stops the threads. Attribute `wait_seconds` is the time the consumer has waited for images.
    """

    def __init__(
        self,
        shardset: ShardSet | ShardUnion,
        order: Order,
        *,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        stop_step: int,
        workers: int = 2,
        size: int | None = None,
        prefetch: int = 4,
        pin: bool = False,
        partners: Callable[[int, np.ndarray], np.ndarray] | None = None,
    ):
        """Set up; threads start with the iteration.

        Args:
            shardset: source of the images; `order.n` must be its length.
            order: which positions a step holds.
            rank: this process among `world`.
            world: number of processes sharing each global batch.
            start_step: first step, >= 0.
            stop_step: step to stop before.
            workers: decoding threads; 0 decodes in the calling thread, when asked for the batch.
            size: S; None means the shard set's.
            prefetch: batches decoded ahead of the consumer, >= 1.
            pin: put the images into page-locked memory, for copies to a GPU that do not block.
            partners: for a step and its positions (G,), other positions (G,) whose images follow behind; images are
                then (2B, 1, S, S).

        Raises:
            InputError: when the order is for another number of samples, the batch does not split evenly, or a
                number is out of range.
        """
        if order.n != len(shardset):
            raise InputError(f"the order is for {order.n} samples, the shard set has {len(shardset)}")
        if workers < 0 or prefetch < 1 or start_step < 0:
            raise InputError(f"workers {workers} and start_step {start_step} must be >= 0, prefetch {prefetch} >= 1")
        self.shardset, self.order = shardset, order
        self.start_step, self.stop_step = start_step, stop_step
        self.workers, self.prefetch, self.pin = workers, prefetch, pin
        self.size = shardset.size if size is None else size
        self.wait_seconds = 0.0
        self._part, self._partners = rank_slice(order.global_batch, rank, world), partners

    def __len__(self) -> int:
        return max(0, self.stop_step - self.start_step)

    def __iter__(self) -> Iterator[Batch]:
        return self._ahead() if self.workers else self._here()

    def _here(self) -> Iterator[Batch]:
        for step in range(self.start_step, self.stop_step):
            began = time.perf_counter()
            positions = self.order.positions(step)
            images = self._empty()
            self.shardset.read_into(self._local(step, positions), images)
            self.wait_seconds += time.perf_counter() - began
            yield step, positions, images

    def _ahead(self) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="shards")
        queue: deque[tuple[int, np.ndarray, torch.Tensor, list[Future]]] = deque()
        following = self.start_step
        try:
            while queue or following < self.stop_step:
                while following < self.stop_step and len(queue) < self.prefetch:
                    queue.append(self._submit(pool, following))
                    following += 1
                step, positions, images, parts = queue.popleft()
                began = time.perf_counter()
                for part in parts:
                    part.result()
                self.wait_seconds += time.perf_counter() - began
                if following < self.stop_step:
                    queue.append(self._submit(pool, following))
                    following += 1
                yield step, positions, images
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> tuple[int, np.ndarray, torch.Tensor, list[Future]]:
        """Start decoding a step, in pieces small enough to keep all threads busy on the batch needed first."""
        positions, images = self.order.positions(step), self._empty()
        local = self._local(step, positions)
        piece = max(8, -(-len(local) // (4 * self.workers)))
        parts = [
            pool.submit(self.shardset.read_into, local[at : at + piece], images[at : at + piece])
            for at in range(0, len(local), piece)
        ]
        return step, positions, images, parts

    def _local(self, step: int, positions: np.ndarray) -> np.ndarray:
        """The samples that this rank reads, its partners' behind them."""
        if self._partners is None:
            return positions[self._part]
        return np.concatenate([positions[self._part], self._partners(step, positions)[self._part]])

    def _empty(self) -> torch.Tensor:
        batch = (self._part.stop - self._part.start) * (1 if self._partners is None else 2)
        return torch.empty((batch, 1, self.size, self.size), dtype=torch.uint8, pin_memory=self.pin)
