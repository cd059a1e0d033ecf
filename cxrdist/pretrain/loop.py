"""The worker of a pretraining run: `python -m cxrdist.pretrain RUN`, alone or as one of torchrun's ranks.

Everything it needs to know is in RUN/config.toml; where to go on is found by looking into RUN/checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cxrdist.core import pixel_scale
from cxrdist.core.augment import Augment
from cxrdist.core.augment_params import load_size
from cxrdist.core.device import pick_device, set_threads, usable_cores
from cxrdist.core.distributed import Ranks, join, open_store, wait_for_all
from cxrdist.core.initialisation import describe, refuse_another
from cxrdist.core.shard_sets import expected
from cxrdist.pretrain.config import PretrainConfig, check_batch, from_dict, places_of, validate
from cxrdist.pretrain.logger import Logger
from cxrdist.pretrain.optim import learning_rate
from cxrdist.pretrain.samples import Pool, open_pools
from cxrdist.pretrain.state import TrainingState
from cxrdist.pretrain.trainer import Job
from results.run import Run
from results.tracking.beside import tracked
from shards import Order, ShardUnion, WeightedOrder
from shards.read.loader import Loader
from shards.read.order import rank_slice
from slurm.signals import StopRequest


def main(path: str | os.PathLike[str]) -> None:
    """Do, continue, or find done the run in a folder.

    Returns normally when the run is done or was stopped by a signal after saving; only done.json tells which.

    Raises:
        InputError: the configuration or the shard set cannot be used.
        FailedError: training broke off; the message names the step and the checkpoint that is kept.
    """
    stop = StopRequest().install()
    run = Run.open(path)
    if run.is_done:
        return
    config: PretrainConfig = from_dict(PretrainConfig, run.read_config())
    validate(config)
    device = pick_device(config.device)
    set_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    store = open_store()
    data = open_checked(config, run)  # before the ranks join: one node may copy its shards for longer than another
    if not wait_for_all(store, lambda: stop.requested):
        return
    with join(device, store) as ranks, tracked(run.path, config.track if ranks.is_first else None):
        train(config, run, ranks, stop, data)


def train(config: PretrainConfig, run: Run, ranks: Ranks, stop: StopRequest, data: Data | None = None) -> None:
    """The whole run on this rank, from what is found in its folder to the last file or a stop."""
    part = rank_slice(config.global_batch, ranks.rank, ranks.world)
    pool, order, augment = open_checked(config, run) if data is None else data
    steps = order.steps(config.epochs) if config.steps is None else config.steps
    per_epoch = order.n / config.global_batch
    job = Job(config, run, ranks, pool, augment)
    done = job.resume()
    logger = Logger(
        run, ranks, start=done.step, steps=steps, global_batch=config.global_batch, tensorboard=config.tensorboard
    )
    workers = default_workers(ranks) if config.workers is None else config.workers
    loader = Loader(
        pool.train, order, rank=ranks.rank, world=ranks.world, start_step=done.step, stop_step=steps,
        workers=workers, size=augment.in_size, pin=ranks.device.type == "cuda", partners=job.partners,
    )  # fmt: skip
    logger.say(job.describe(order, steps, workers, done))
    every = max(1, round(config.watch.every_epochs * per_epoch)) if config.watch.every_epochs > 0 else 0
    save_every = config.checkpoint.every_steps or max(1, math.ceil(per_epoch))
    began, saved_at = time.monotonic() - done.seconds, time.monotonic()
    try:
        if every and done.step and done.step % every == 0 and done.evaluated < done.step:
            job.evaluate(done, logger)  # the signal that stopped the run left no time for it
        for step, positions, images in batches(loader, done, steps, config):
            stopping = ranks.ask(stop.requested)
            rate = learning_rate(config.optim, config.global_batch, step, steps, per_epoch)
            loss, norm = job.step(step, part, positions, images, rate)
            done.step, done.seconds = step + 1, time.monotonic() - began
            done.order_sha256 = chain(done.order_sha256, positions)
            logger.advance()
            if done.step % config.log_every == 0 or done.step == steps or step == 0:
                values = {"loss": job.read(loss), "lr": rate, "epoch": done.step / per_epoch}
                measured = {} if norm is None else {"grad_norm": float(norm)}
                logger.step(done.step, loader.wait_seconds, **values, **measured)
            stopped = stopping.answer()
            better = False
            if every and (done.step % every == 0 or done.step == steps) and (not stopped or done.step == steps):
                better = job.evaluate(done, logger)
            late = time.monotonic() - saved_at > 60 * config.checkpoint.every_minutes
            if better or stopped or late or done.step % save_every == 0 or done.step == steps:
                job.save(done, logger, must=stopped)
                saved_at = time.monotonic()
                logger.restart_clock(done.step, loader.wait_seconds)
            if stopped and done.step < steps:
                logger.say(f"stopped at step {done.step} of {steps}, saved; the same command goes on from here")
                return
        job.finish(done, steps, logger)
    finally:
        job.settle(logger)
        logger.close()


def batches(loader: Loader, done: TrainingState, steps: int, config: PretrainConfig) -> Iterator[Any]:
    """The loader's batches from where the run stands, until the last step or the early stop."""
    patience = config.watch.patience
    if done.step >= steps or (patience is not None and done.without_gain >= patience):
        return
    for batch in loader:
        yield batch
        if patience is not None and done.without_gain >= patience:
            return


def chain(before: str, positions: np.ndarray) -> str:
    """Extend the hash over all positions seen by one global batch."""
    return hashlib.sha256(before.encode() + positions.astype("<i8").tobytes()).hexdigest()


Data = tuple[Pool, Order, Augment]


def open_checked(config: PretrainConfig, run: Run) -> Data:
    """As `open_data`; weights and shard set must be those that the run was made with."""
    refuse_another(run, config.init)
    return open_data(config, [expected(run, place) for place in places_of(config)])


def open_data(config: PretrainConfig, sha256: list[str | None] | None = None) -> Data:
    """Samples, their order, and the augmentation that fits their size; shards are staged first, if asked for.

    Args:
        config: of the run.
        sha256: hash of each shard set that must be there; None = any.

    Raises:
        InputError: no such shard set, or fewer images than a global batch holds.
    """
    places, weights = places_of(config), config.shard_weights
    pool = open_pools(places, config.pool, config.seed, weights=weights, stage=config.stage, sha256=sha256)
    facts = pool.facts
    check_batch(config, pool.train.sizes if isinstance(pool.train, ShardUnion) else [len(pool.train)])
    mean, std = pixel_scale.scale(config, describe(config.init), (facts.mean, facts.std))
    side = load_size(config.load_size, config.image_size, facts.image_size)
    augment = Augment(
        config.augment, side, config.image_size, pick_device(config.device),
        mean=mean, std=std, grey=facts.mean, seed=config.seed,
    )  # fmt: skip
    return pool, order_of(config, pool), augment


def order_of(config: PretrainConfig, pool: Pool) -> Order:
    """Which samples of the pool stand in which step's global batch."""
    if config.shard_weights is not None and isinstance(pool.train, ShardUnion):
        sizes = pool.train.sizes
        return WeightedOrder(sizes, config.shard_weights, seed=config.seed, global_batch=config.global_batch)
    return Order(
        len(pool.train),
        seed=config.seed,
        global_batch=config.global_batch,
        shard_sizes=pool.train.shard_sizes if config.window else None,
        window=config.window,
    )


def default_workers(ranks: Ranks) -> int:
    """Decoding threads of a rank: all its cores beside a GPU (16 at most), one beside a computing CPU."""
    if ranks.device.type != "cuda":
        return 1
    return max(1, min(16, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def run_worker(argv: list[str]) -> int:
    """The command line of a worker: one argument, the run's folder. Errors become one line and an exit code."""
    if len(argv) != 1:
        print("usage: python -m cxrdist.pretrain RUN", file=sys.stderr)
        return 2
    warnings.simplefilter("default")
    warnings.showwarning = _one_line
    try:
        main(Path(argv[0]))
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"cxrdist: {error}", file=sys.stderr, flush=True)
        return int(code)
    return 0


def _one_line(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    print(f"warning: {message}", file=file or sys.stderr, flush=True)
