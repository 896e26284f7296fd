"""Bytes and pixels: sources, shards, statistics, augmentation, loader. Knows no Ray, no MLflow, no model."""
