"""The bench of the driver runs whole, on little."""

import pytest
from builders import jpeg, write_files

from workflows.bench.scale import run

pytestmark = pytest.mark.slow


def test_every_part_of_the_driver_and_every_task_is_measured(tmp_path, capsys):
    write_files(tmp_path / "images", {f"{name}/{i}.jpg": jpeg(i, 320, 240) for name in "ab" for i in range(8)})
    options = {"sizes": {"a few": (30, 70)}, "members": 500, "window_rows": 2100, "ray_tasks": 10}
    found = run(str(tmp_path / "images"), **options)
    seconds = found["driver"]["a few"]
    assert len(seconds) == 13
    assert all(value > 0 for name, value in seconds.items() if name.startswith("s: "))
    assert all(value > 0 for value in found["tasks"].values())
    assert found["tasks"]["window_shards"] == 3
    printed = capsys.readouterr().out
    assert all(part in printed for part in seconds)
