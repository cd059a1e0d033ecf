"""Fine-tuning on labelled fractions, and its test: `python -m cxrdist.finetune RUN` is one trial."""
