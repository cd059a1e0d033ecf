"""From published datasets to shard sets: one file a dataset, and the engine they share."""
