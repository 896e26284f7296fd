"""The bench of ingest runs whole, on few images: what the reports are written from."""

import json

import pytest
from builders import jpeg, write_files

from workflows.bench.common import write_json
from workflows.bench.ingest import run

pytestmark = pytest.mark.slow


def test_every_part_is_measured_and_the_result_says_on_what(tmp_path, capsys):
    write_files(tmp_path / "images", {f"{name}/{i}.jpg": jpeg(i, 320, 240) for name in "ab" for i in range(8)})
    result = tmp_path / "result.json"
    short = {"seconds_per_part": 0.2, "repeats": 1, "shards_per_core": 1, "rows_per_shard": 8}
    write_json(result, run(str(tmp_path / "images"), **short))
    found = json.loads(result.read_text())
    parts = {"ours", "decode_only", "ray_data", "ray_data_batches", "pillow_pool", "stats", "stats_decode_only"}
    assert parts <= found["images_per_s"].keys()
    assert all(rate > 0 for rate in found["images_per_s"].values())
    assert {"cpu", "cores", "memory_gib"} <= found["hardware"].keys()
    assert found["commit"]
    assert found["date"]
    assert (found["source"], found["repeats"]) == ("images", 1)
    printed = capsys.readouterr().out
    assert all(part in printed for part in parts)
