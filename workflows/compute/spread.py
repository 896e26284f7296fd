"""How the images of a split are spread over the devices: one task, and so one loader, a device at a time."""

from typing import NamedTuple

from pipelines.names import Device
from workflows.compute.workers import Resources

TASK_IMAGES: dict[Device, int] = {"cpu": 500, "cuda": 20_000}  # about a minute's, so that a lost task costs no more


class Spread(NamedTuple):
    """Tasks that each look at a share of the images, on one device, with the cores that are its own."""

    device: Device
    cpus_each: int
    num_parts: int


def spread(have: Resources, num_images: int, batch_size: int) -> Spread:
    """On GPUs a task has one of them and its share of that machine's cores; on CPUs each core has a task of its own.

    One task on two cores would need half as much time again as two tasks on a core each (measured). No device idles
    while the last tasks run, unless there are fewer batches than devices.
    """
    use_gpu = have.gpus > 0
    device: Device = "cuda" if use_gpu else "cpu"
    places = max(1, have.num_places(1, use_gpu) // have.sharers)
    rounds = -(-num_images // (places * TASK_IMAGES[device]))
    num_parts = max(1, min(places * rounds, -(-num_images // batch_size)))
    return Spread(device, have.cpus_each(places, use_gpu), num_parts)
