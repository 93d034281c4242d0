"""The archive on disk: shards, manifests, writing, reading and verifying."""
