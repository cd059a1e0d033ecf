"""Benchmarks: `python -m benches` runs all that need no GPU, `python -m benches --gpu` those that do."""
