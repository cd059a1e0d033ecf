"""The learning: SimCLR pretraining, fine-tuning and what is measured along the way.

Importing this package loads neither torch nor timm; its modules do, where they need them.
"""
