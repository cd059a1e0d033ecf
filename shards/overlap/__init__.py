"""What two shard sets share: images and patients."""
