"""Reading shard sets: index, images, sample order, label fractions, staging."""
