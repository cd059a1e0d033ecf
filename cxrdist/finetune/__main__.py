"""One fine-tuning trial: `python -m cxrdist.finetune RUN`."""

import sys
from pathlib import Path

from slurm.importing import large_modules

with large_modules():
    from cxrdist.finetune.trial import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"cxrdist: {Path(sys.argv[1])}: {error}", file=sys.stderr)
        sys.exit(code)
