"""Mirrors runs to Weights & Biases or MLflow, from their files, in a process beside the training."""
