"""Self-supervised pretraining: `python -m cxrdist.pretrain RUN` is one rank of a run."""
