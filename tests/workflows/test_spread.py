"""How images are spread over devices: none idles, none has two loaders, and no task is long."""

import pytest

from workflows.compute.spread import TASK_IMAGES, spread
from workflows.compute.workers import Resources


@pytest.mark.parametrize(
    ("nodes", "num_images", "device", "cpus_each", "num_parts"),
    [
        (((2, 0),), 498, "cpu", 1, 2),
        (((2, 0),), 2993, "cpu", 1, 6),
        (((2, 0),), 50_000, "cpu", 1, 100),
        (((64, 0),), 50_000, "cpu", 1, 128),
        (((64, 0),), 200, "cpu", 1, 4),  # batches
        (((16, 1),), 200, "cuda", 16, 1),
        (((16, 1),), 50_000, "cuda", 16, 3),
        (((16, 8),), 50_000, "cuda", 2, 8),
        (((16, 2), (8, 1), (32, 0)), 150_000, "cuda", 8, 9),
    ],
)
def test_each_device_has_one_task_at_a_time_with_its_share_of_the_cores(
    nodes, num_images, device, cpus_each, num_parts
):
    have = Resources(nodes)
    found = spread(have, num_images, batch_size=64)
    assert found == (device, cpus_each, num_parts)
    assert num_images / num_parts <= TASK_IMAGES[device]
    assert have.num_places(cpus_each, use_gpu=device == "cuda") == (have.gpus or have.cpus)


def test_of_those_who_share_a_ray_each_has_its_part_of_the_devices():
    assert spread(Resources(((16, 4),), sharers=2), 50_000, 64) == ("cuda", 4, 4)
    assert spread(Resources(((16, 0),), sharers=4), 2000, 64) == ("cpu", 1, 4)
