"""The `cxrdist` command: finds the subcommand's file, builds its options from a dataclass, one line per error.

Every subcommand is a file jobs/NAME.py with `HELP`, `Config` (or `CONFIGS`, one per second word), `POSITIONALS`
and `run(config)`. Only the file that is asked for is imported, and none of them imports torch, ray or pandas at
module level, so `cxrdist --help` and the login-node commands answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from jobs._options import EPILOG, UsageError, parse_options
from slurm.inherited import forget_ranks

# Order is the order of a study, which is also the order of `cxrdist --help`.
COMMANDS: dict[str, str] = {
    "demo": "the whole chain on one machine in minutes, on generated X-rays or your own shards",
    "shard": "turn a published dataset into tar shards with an index",
    "verify": "check a shard set: hashes, counts, images, patients shared between splits",
    "pretrain": "pretrain an encoder with SimCLR or VICReg on one or many GPUs",
    "finetune": "train one classifier from an initialisation on a fraction of the labels",
    "evaluate": "test a fine-tuned run on another shard set",
    "ensemble": "average the predictions of runs that learnt from the same labels",
    "sweep": "run a grid of fine-tunings with Ray Tune, resuming what is missing",
    "study": "run a whole study from one file, here or on SLURM; its status; its report",
    "submit": "run pretrain, finetune, sweep, shard or a chain of them on SLURM",
    "runs": "all runs below a folder: settings, state, AUROC, age and cost",
    "status": "queue state, step, speed and time left of runs",
    "logs": "print or follow a run's log",
    "cancel": "cancel a submitted run",
    "collect": "unite the results of any number of runs in one Parquet file",
    "table": "make a paper table from collected results",
    "plot": "make a figure from collected results",
    "report": "write one self-contained HTML report of a study",
    "methods": "a paragraph for a paper's methods section, and its BibTeX, from the runs",
    "explain": "heat maps of what a fine-tuned model looked at",
    "embed": "write encoder features of a shard set to Parquet",
    "compare-embeddings": "what several encoders make of the same images: probes, shortcuts, CKA, maps",
    "explore": "one HTML page to browse an embedding of a shard set",
    "predict": "score image files with a fine-tuned model",
    "export": "a trained network as ONNX, plain PyTorch weights, or a folder that timm loads",
    "specs": "the named experiments that --config NAME takes",
    "init-profile": "write a commented profile for this cluster, from what sinfo says",
    "completion": "print a script that completes commands and options in bash or zsh",
    "track": "send runs that are there to Weights & Biases or MLflow",
    "doctor": "what this machine and a SLURM profile can do, and what is missing",
    "drill": "prove on your own cluster that a run survives",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 unusable input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("CXRDIST_DEBUG") == "1"
    words = [word for word in words if word != "--debug"]
    forget_ranks()
    _print_anything()
    try:
        return _dispatch(words)
    except SystemExit as stop:  # argparse's own --help and --print_config end this way
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print("cxrdist: interrupted; the same command goes on from what is complete", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `cxrdist table ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _print_anything() -> None:
    """Have names that are not valid text (bytes of a file's name that are not UTF-8) printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    code = getattr(error, "exit_code", None)
    text = " ".join(str(error).split()) or type(error).__name__
    if code is not None:
        print(f"cxrdist: {text}", file=sys.stderr)
        return int(code)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        print(f"cxrdist: {error.strerror or text}{where}", file=sys.stderr)
        return 1
    print(
        f"cxrdist: unexpected {type(error).__name__}: {text} (This is a bug in cxrdist; rerun with --debug for a "
        "traceback)",
        file=sys.stderr,
    )
    return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"cxrdist {version('cxrdist')}")
        return 0
    name = words[0]
    module = _load(name)
    if hasattr(module, "main"):  # a command whose words are not a dataclass (submit passes most of them on)
        return int(module.main(words[1:]) or 0)
    return int(module.run(_parse(name, module, words[1:])) or 0)


def _overview() -> str:
    lines = ["usage: cxrdist COMMAND [options]      (cxrdist COMMAND --help lists a command's options)", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}} {text}" for name, text in COMMANDS.items() if _exists(name)]
    return "\n".join([*lines, "", "  --debug    show the traceback of an error", "", EPILOG])


def _exists(name: str) -> bool:
    return importlib.util.find_spec(module_name(name)) is not None


def module_name(name: str) -> str:
    """The module of a command."""
    return f"jobs.{name.replace('-', '_')}"


def _load(name: str) -> ModuleType:
    if name not in COMMANDS or not _exists(name):
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"no command {name!r}{hint} (cxrdist --help lists them)")
    return importlib.import_module(module_name(name))


def parse(name: str, words: Sequence[str]) -> Any:
    """Return the Config instance that `cxrdist NAME WORDS` would run with.

    Raises:
        UsageError: unknown option or key, wrong type, missing option, unreadable --config (exit code 2).
    """
    return _parse(name, _load(name), list(words))


def _parse(name: str, module: ModuleType, words: list[str]) -> Any:
    configs: Mapping[str, type] | None = getattr(module, "CONFIGS", None)
    if configs is None:
        return parse_options(f"cxrdist {name}", module.Config, getattr(module, "POSITIONALS", ()), module.HELP, words)
    choices = "|".join(configs)
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: cxrdist {name} {choices} [options]\n\n{module.HELP}\n")
        for key, summary in module.SUMMARIES.items():
            print(f"  {key:<13} {summary}")
        raise SystemExit(0 if words else 2)
    if words[0] not in configs:
        raise UsageError(f"cxrdist {name}: {words[0]!r} is not one of {choices}")
    positionals = getattr(module, "POSITIONALS", ())
    return parse_options(f"cxrdist {name} {words[0]}", configs[words[0]], positionals, module.HELP, words[1:])


if __name__ == "__main__":
    sys.exit(main())
