"""First code of every process the launcher starts: `python -m slurm.shield MODULE ARGS...`.

SLURM sends USR1, USR2 and TERM to every process of a job step. torchrun's agent would die of them and take the ranks
down before they saved. This shield ignores them and then runs MODULE in the same process. Ignored signals stay
ignored in the processes that MODULE starts, until a worker installs its own handlers (slurm.signals.StopRequest); the
launcher repeats a stop signal until the workers act on it, so none is lost while they are still importing.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys

from slurm import by_node, meeting
from slurm.importing import large_modules
from slurm.inherited import AGENT, LAUNCHER, forget_ranks
from slurm.signals import die_with_parent

SHIELDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
TORCHRUN = "torch.distributed.run"


def main() -> None:
    """Shield this process, then become MODULE."""
    for number in SHIELDED:
        signal.signal(number, signal.SIG_IGN)
    # The launcher blocks the signals around the start, so that none hits the unshielded interpreter.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SHIELDED)
    launcher = os.environ.pop(LAUNCHER, "")
    die_with_parent(signal.SIGINT, int(launcher) if launcher else None)
    forget_ranks()  # whatever is started here is not itself a rank of another group
    module, *args = sys.argv[1:]
    sys.argv = [module, *args]
    if module == TORCHRUN:
        os.environ[AGENT] = str(os.getpid())
        with large_modules():
            torchrun = importlib.import_module(TORCHRUN)
        by_node.register()
        # Keep it from catching TERM: it would give the ranks 30 seconds and kill them, saved or not.
        if "--signals-to-handle" in torchrun.get_args_parser().format_help():
            args = ["--signals-to-handle=SIGINT,SIGHUP,SIGQUIT", *args]
        torchrun.main([_at_free_port(word, args) for word in args])
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _at_free_port(word: str, args: list[str]) -> str:
    """Fill in the rendezvous port. Done late, since another process may take it before torchrun does."""
    option, _, endpoint = word.partition("=")
    if option != "--rdzv-endpoint":
        return word
    return f"{option}={meeting.resolve(endpoint, first=any('is_host=1' in other for other in args))}"


if __name__ == "__main__":
    main()
