"""The bench of the trainer: what it measures is the full network, and every part of it runs."""

import pytest

from workflows.bench.trainer import PARTS, run

pytestmark = pytest.mark.slow


def test_every_part_is_measured_and_the_columns_exchange_what_the_specification_says(capsys):
    found = run(seconds_per_part=0.1, repeats=1)
    assert tuple(found["images_per_s"]) == PARTS
    assert all(rate > 0 for rate in found["images_per_s"].values())
    assert found["exchanged_bytes_per_image"] == 489_376
    assert found["batch_size"] == 64
    mib = found["training_mib"]
    assert 200 < mib["one_gpu_net"] < mib["ours"]
    assert mib["ours_two_ranks"] < 0.75 * mib["ours"]
    assert found["ms_per_part"].keys() == {"input", "forward", "backward", "update"}
    assert sum(found["ms_per_part"].values()) > 0  # each is a difference of medians, of too few turns here
    assert found["percent_of_product"] > 0
    assert {"cpu", "cores", "memory_gib"} <= found["hardware"].keys()
    assert found["commit"]
    printed = capsys.readouterr().out
    assert all(part in printed for part in (*PARTS, "ms_per_part"))
