"""Kept spelling of `python -m slurm.shield`: sbatch files that users wrote by hand, and queued jobs, name it."""

from slurm.shield import main

if __name__ == "__main__":
    main()
