"""Records to and from one shard file, one module per file format."""
