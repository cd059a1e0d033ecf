"""One rank of a pretraining run: `python -m cxrdist.pretrain RUN`, alone or started by torchrun."""

import sys

from slurm.importing import large_modules

with large_modules():
    from cxrdist.pretrain.loop import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
