"""From images or tiles through the encoder to published shards."""
