"""How the sums of shards are cut into tasks."""

import pytest

from workflows.stages.stats import MAX_TASKS, tasks


@pytest.mark.parametrize("num_shards", [0, 1, 1251, MAX_TASKS, MAX_TASKS + 1, 14_650])
def test_every_shard_is_in_one_task_and_there_are_not_too_many(num_shards):
    shards = list(range(num_shards))
    cut = tasks(shards)
    assert [shard for task in cut for shard in task] == shards
    assert len(cut) <= MAX_TASKS
    assert len(cut) == num_shards or num_shards > MAX_TASKS
