"""What every kind of training stands on: networks and their files, augmentation, random numbers, ranks, checkpoints."""
