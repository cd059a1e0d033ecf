"""The Ray driver of a sweep: `python -m cxrdist.sweep OUT`, started by cxrdist.sweep.watchdog."""

import sys

from cxrdist.sweep import ray_driver  # so that workers find CellTask by its module, not in __main__

if __name__ == "__main__":
    sys.exit(ray_driver.main(sys.argv[1]))
