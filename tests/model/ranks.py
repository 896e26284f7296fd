"""Runs a function of a test file on several ranks, each a fresh process, and returns what each returned.

Run as a program it is one of those ranks.
"""

import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(function, world: int, device: str | None = None) -> list:
    """`function(rank, world) -> anything torch.save can hold`, on `world` ranks; with a device, function(…, device).

    They meet over gloo, or over NCCL where each has a GPU of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            inspect.getfile(function),
            function.__name__,
            folder,
            device or "",
            str(world),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(world)]
        codes = [rank.wait(timeout=300) for rank in ranks]
        assert not any(codes), f"ranks ended with {codes}"
        import torch

        files = [Path(folder) / f"rank{rank}.pt" for rank in range(world)]
        return [torch.load(file, weights_only=False, map_location="cpu") for file in files]


def main(file: str, function: str, folder: str, device: str, world: int, rank: int) -> None:
    import torch
    import torch.distributed as dist

    sys.path.insert(0, str(Path(__file__).parent))
    module_spec = importlib.util.spec_from_file_location("of_a_rank", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    store = dist.FileStore(f"{folder}/store", world)
    has_own_gpu = device == "cuda" and torch.cuda.device_count() >= world
    if device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    backend = "nccl" if has_own_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    torch.save(getattr(module, function)(rank, world, *[device] * bool(device)), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:]))
