"""How many images per second the trainers take: ours in every placement, the plain PyTorch one, ours cut down.

The full network, on the GPU where there is one. Batches are synthetic, but for `loader` (ours alone) and `end_to_end`
(ours, and the loader before it). Every turn is a process of its own, since the allocator is set before it starts.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from model.networks import train_macs
from model.specs import AlexNetSpec
from workflows.bench.common import ROOT, interleaved, stamped, table
from workflows.compute.machine import KEEP_FREED_MEMORY

PARTS = ("ours", "ours_two_ranks", "plain", "plain_same_allocator", "no_norm", "one_gpu_net", "loader", "end_to_end")
GPU_PARTS = (*PARTS, "ours_tf32", "ours_float32")  # there, ours is in bf16


def run(
    images: str | None = None,
    seconds_per_part: float = 12.0,
    repeats: int = 3,
    threads: int = 2,
    parts: tuple[str, ...] = (),
) -> dict:
    """images_per_s of each part, the median of the repeats, on `threads` cores; `images` are what the loader reads.

    training_mib is what parameters, activations and gradients add at the peak, in one process or in each of two ranks.
    With `ours` comes where its step's time goes and how near it is to the machine's rate of one large matrix product,
    with `ours_two_ranks` what the columns send each other.
    """
    import torch

    from workflows.bench.loader_data import write_tfrecords

    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = parts or (GPU_PARTS if device == "cuda" else PARTS)
    facts: dict[str, Any] = {"training_mib": {}}
    with tempfile.TemporaryDirectory() as folder:
        if {"loader", "end_to_end"} & set(parts):
            write_tfrecords(images or "demo", Path(folder))
        turns = {name: partial(_turn, name, seconds_per_part, threads, folder, device, facts) for name in parts}
        images_per_s = interleaved(turns, repeats)
    if "product_tflops" in facts:
        tflops = images_per_s["ours"] * 2 * train_macs(AlexNetSpec()) / 1e12
        facts["percent_of_product"] = round(100 * tflops / facts["product_tflops"], 1)
    print(table(images_per_s, "images/s", "plain" if "plain" in parts else parts[0]))
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    rounded = {name: round(rate, 2) for name, rate in images_per_s.items()}
    return stamped({"images_per_s": rounded, **facts, "device": device, "threads": threads, "repeats": repeats})


def _turn(
    name: str, seconds: float, threads: int, folder: str, device: str, facts: dict[str, Any]
) -> tuple[int, float]:
    """Images and seconds of one turn, which may find facts too; two ranks have half of the threads each."""
    world = 2 if name == "ours_two_ranks" else 1
    allocator = {} if device == "cuda" or name in ("plain", "loader") else KEEP_FREED_MEMORY
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads // world)), "PYTHONPATH": str(ROOT), **allocator}
    with tempfile.TemporaryDirectory() as meeting:
        command = [sys.executable, "-m", "workflows.bench.trainer_turn", name, str(seconds), folder, device, meeting]
        ranks = [
            subprocess.Popen([*command, str(world), str(rank)], env=environment, stdout=subprocess.PIPE, text=True)
            for rank in range(world)
        ]
        outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError(f"the turn of {name} failed; its message is above")
    found = json.loads(outputs[0])
    facts.update(found["facts"])
    if name not in ("loader", "end_to_end"):  # whose batches are more than one
        facts["training_mib"][name] = max(found["training_mib"], facts["training_mib"].get(name, 0))
    return found["images"], found["seconds"]
