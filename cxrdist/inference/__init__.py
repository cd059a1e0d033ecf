"""Looking into trained networks: embeddings, predictions, heat maps, maps of a shard set."""
