"""What the golden tests look at, made below one folder by the commands a user types.

Names of files and commands are contracts (docs/architecture.md); no module of the packages is named here but those
that queued jobs name too, so that moving the others changes nothing here.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import shlex
import sys
from functools import cached_property
from pathlib import Path

from jobs import cli
from tests.cxrdist.forked import run_forked
from tests.golden.inputs import LAYOUTS
from tests.golden.studies import FORMATS, STUDIES, TABLES

PRETRAIN = (
    "--arch test_resnet --image_size 32 --global_batch 16 --steps 20 --seed 3 --device cpu --precision float32 "
    "--workers 0 --tensorboard false --log_every 1 --head.dim 16 --head.hidden 32 --optim.lr 0.02 "
    "--watch.every_epochs 1 --watch.samples 32"
)
RANKS = (1, 2)

FINETUNE = (
    "--label_fraction 0.5 --global_batch 16 --epochs 3 --min_steps 1 --seed 5 --device cpu --threads 1 --workers 1 "
    "--precision float32 --optim.lr 0.001"
)
TRIALS = {
    "linear": "--mode linear",
    "linear_mlp": "--mode linear --head.kind mlp --head.hidden 16",
    "full": "--mode full --class_weights pos_weight --eval_shards {nih}",
    "last_n": "--mode last_n --last_n 2 --optim.name sgd",
    "two_stage": "--mode two_stage --head_epochs 1",
}
"""Trial -> its options; all begin with the encoder that one rank pretrained."""

PROFILE = """\
partition = "gpu"
account = "radiology"
gpus_per_node = "a100:2"
cpus_per_rank = 8
mem = "0"
time = "0-12"
signal_delay_s = 180
setup = ["module load cuda"]

[env]
NCCL_SOCKET_IFNAME = "ib0"

[sbatch]
qos = "long"
"""

SWEEP = """\
[axes]
mode = ["linear", "full"]
seed = [0, 1]

[finetune]
arch = "test_resnet"
image_size = 32
"""

CHAIN = """\
profile = "{home}/cluster.toml"

[[stage]]
name = "shards"
run = "shard nih --src {home}/sources/nih --out {home}/chain/nih --size 32"
parts = 4
profile = "local"

[[stage]]
name = "simclr"
needs = ["shards"]
run = "pretrain --shards {home}/chain/nih --out {home}/chain/simclr --global_batch 64"
nodes = 2

[[stage]]
name = "sweep"
needs = ["shards", "simclr"]
run = "sweep --config {home}/sweep.toml --shards {home}/chain/nih --init {home}/chain/simclr --out {home}/chain/sweep"

[[stage]]
name = "table"
needs = ["sweep"]
run = "table label-efficiency {home}/chain/sweep --out {home}/chain/table.md"
profile = "local"
time = "10"
"""

SUBMISSIONS = {
    "pretrain": "pretrain --shards {shards} --out {home}/queued/simclr --global_batch 48 --nodes 4 --min_nodes 2",
    "finetune": "finetune --shards {shards} --out {home}/queued/trial --after 12,13 --job_name trial",
    "sweep": "sweep --config {home}/sweep.toml --shards {shards} --out {home}/queued/sweep --nodes 2",
    "array": "shard nih --src {home}/sources/nih --out {home}/queued/nih --parts 4",
    "chain": "chain {home}/chain.toml",
}
"""Name -> words after `cxrdist submit`. (A request made without the command line is compared in tests/slurm.)"""


class Products:
    """Everything golden; each part is made when it is first asked for."""

    def __init__(self, home: Path) -> None:
        """Make nothing yet; `home` must be empty."""
        self.home = home

    @cached_property
    def sets(self) -> dict[str, Path]:
        """Converter -> its shard set."""
        found = {}
        for name, (write, options) in LAYOUTS.items():
            write(self.home / "sources" / name)
            found[name] = self.home / "sets" / name
            places = ["--src", str(self.home / "sources" / name), "--out", str(found[name])]
            command("shard", name, *places, *options.split(), "--workers", "1")
        return found

    @cached_property
    def results(self) -> dict[str, Path]:
        """Study -> its collected results."""
        found = {}
        for name, write in STUDIES.items():
            write(self.home / "studies" / name)
            found[name] = self.home / f"{name}.parquet"
            command("collect", str(self.home / "studies" / name), "--out", str(found[name]))
        return found

    @cached_property
    def tables(self) -> dict[str, str]:
        """File name (cost.tex) -> text of a table."""
        return {
            f"{name}.{ending}": command(
                "table", name, str(self.results[study]), *options.split(), "--format", form_name
            )
            for name, (study, options) in TABLES.items()
            for form_name, ending in FORMATS.items()
        }

    @cached_property
    def sbatch(self) -> dict[str, str]:
        """Submission -> what its dry run prints, the places of this machine replaced."""
        for name, text in (("cluster", PROFILE), ("sweep", SWEEP), ("chain", CHAIN)):
            (self.home / f"{name}.toml").write_text(text.replace("{home}", str(self.home)))
        found = {}
        for name, words in SUBMISSIONS.items():
            profile = () if name == "chain" else ("--profile", str(self.home / "cluster.toml"))
            filled = words.format(home=self.home, shards=self.sets["medmnist"])
            text = command("submit", *filled.split(), *profile, "--dry_run")
            text = text.replace(shlex.quote(sys.executable), "/opt/env/bin/python")
            found[name] = text.replace(str(self.home), "/home/golden")
        return found

    @cached_property
    def pretrained(self) -> dict[int, Path]:
        """Number of ranks -> run folder of a pretraining on so many."""
        found = {}
        for ranks in RANKS:
            found[ranks] = run = self.home / f"pretrain-{ranks}"
            words = ["--shards", str(self.sets["medmnist"]), "--out", str(run), *PRETRAIN.split()]
            command("submit", "prepare", "pretrain", *words)
            _forked(_pretrain, str(run), nproc=ranks, log=run.with_suffix(".log"))
        return found

    @cached_property
    def trials(self) -> dict[str, Path]:
        """Trial -> its run folder."""
        found = {name: self.home / f"trial-{name}" for name in TRIALS}
        shared = ["--shards", str(self.sets["medmnist"]), "--init", str(self.pretrained[1]), *FINETUNE.split()]
        trials = [
            ["finetune", "--out", str(found[name]), *shared, *options.format(nih=self.sets["nih"]).split()]
            for name, options in TRIALS.items()
        ]
        _forked(_each, trials, nproc=1, log=self.home / "trials.log")
        return found


def command(*words: str) -> str:
    """What `cxrdist WORDS` prints to its standard output."""
    printed, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        code = cli.main(list(words))
    assert code == 0, f"cxrdist {shlex.join(words)}: {told.getvalue()}"
    return printed.getvalue()


def _forked(work, *args, nproc: int, log: Path) -> None:
    code, told = run_forked(work, *args, nproc=nproc, log=log)
    assert code == 0, told[-3000:]


def _pretrain(run: str) -> int:
    """`python -m cxrdist.pretrain RUN`, in a process that has imported torch already."""
    sys.argv[1:] = [run]
    try:
        runpy.run_module("cxrdist.pretrain", run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _each(commands: list[list[str]]) -> int:
    """Run commands one after the other; the first exit code that is not 0."""
    return next((code for words in commands if (code := cli.main(words))), 0)
