"""A stage runs if and only if its key changed or its output is incomplete, whatever was changed and killed before."""

import json
import os
import random
import signal
import sys
import types

import pytest

from workflows import lock
from workflows.compute import InProcess
from workflows.config import RunConfig, UsageError, with_values
from workflows.plan import differences, plan
from workflows.run import run
from workflows.stage import Stage

READS = {"first": ("ingest.limit",), "second": ("loader.seed",), "third": ("train.epochs",)}
NEEDS = {"first": (), "second": ("first",), "third": ("first", "second")}
STAGES = tuple(Stage(n, version=1, module=f"tiny_{n}", needs=NEEDS[n], reads=READS[n]) for n in READS)
UNTRACKED = {"tracking.uri": "off"}


@pytest.fixture
def tiny(monkeypatch):
    """Three real stages: each writes what it was given; `ran` lists who ran, `deadly` names who is killed half-way."""
    world = types.SimpleNamespace(ran=[], deadly=None)

    def module(name):
        def stage_run(context):
            world.ran.append(name)
            (context.folder / "half").write_text("begun")
            if world.deadly == name:
                os.kill(os.getpid(), signal.SIGKILL)
            read = {key: context.inputs[key].record["key"] for key in NEEDS[name]}
            (context.folder / "whole").write_text(json.dumps(read))
            return {"result": name, "metrics": {"one": 1}, "units": 1}

        made = types.ModuleType(f"tiny_{name}")
        made.run = stage_run
        return made

    for name in READS:
        monkeypatch.setitem(sys.modules, f"tiny_{name}", module(name))
    return world


def execute(config, root, only=tuple(READS), **options):
    return run(STAGES, config, root, only=only, compute=lambda *_: InProcess(), **options)


def execute_and_die(config, root):
    """The same in a child process that may be killed."""
    child = os.fork()
    if child == 0:
        try:
            execute(config, root)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def expected(config, complete):
    """The stages that must run, by the rule alone: their ingredients have no complete output."""
    values = {"first": config.ingest.limit, "second": config.loader.seed, "third": config.train.epochs}
    made, due = {}, []
    for name in READS:
        made[name] = (values[name], *(made[n] for n in NEEDS[name]))
        if (name, made[name]) not in complete:
            due.append(name)
    return due, made


@pytest.mark.parametrize("seed", range(8))
def test_a_stage_runs_if_and_only_if_its_key_changed_or_its_output_is_incomplete(tiny, tmp_path, seed):
    rng, config, complete = random.Random(seed), with_values(RunConfig(), UNTRACKED), set()
    for _ in range(12):
        action = rng.choice(["change", "run", "kill"])
        if action == "change":
            key = rng.choice(["ingest.limit", "loader.seed", "train.epochs", "ray.num_cpus"])
            config = with_values(config, {key: rng.randint(1, 2)})
            continue
        due, made = expected(config, complete)
        tiny.ran.clear()
        if action == "kill" and due:
            tiny.deadly = rng.choice(due)
            execute_and_die(config, tmp_path)
            complete |= {(name, made[name]) for name in due[: due.index(tiny.deadly)]}
            tiny.deadly = None
            continue
        rows = execute(config, tmp_path)
        assert tiny.ran == due
        assert [row.stage for row in rows if row.state == "ran"] == due
        complete |= {(name, made[name]) for name in made}


def test_a_stage_alone_says_which_command_makes_its_missing_input(tiny, tmp_path):
    with pytest.raises(UsageError, match="run `alexnet first` first"):
        execute(with_values(RunConfig(), UNTRACKED), tmp_path, only=["second"])
    assert list(tmp_path.iterdir()) == []


def test_a_stage_alone_uses_what_is_stored(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    tiny.ran.clear()
    changed = with_values(config, {"train.epochs": 7})
    execute(changed, tmp_path, only=["third"])
    assert tiny.ran == ["third"]


def test_force_runs_a_finished_stage_again(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    tiny.ran.clear()
    execute(config, tmp_path, force=["second"])
    assert tiny.ran == ["second"]


def test_the_plan_names_the_keys_that_differ(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    assert [step.state for step in plan(STAGES, config, tmp_path)] == ["MISSING"] * 3
    execute(config, tmp_path)
    assert [step.state for step in plan(STAGES, config, tmp_path)] == ["CACHED"] * 3
    steps = plan(STAGES, with_values(config, {"loader.seed": 5}), tmp_path)
    assert [step.state for step in steps] == ["CACHED", "STALE", "STALE"]
    assert steps[1].reasons == ("loader.seed: 0 -> 5",)
    assert steps[2].reasons[0].startswith("input.second: ")


def test_an_output_begun_and_not_finished_is_partial(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    tiny.deadly = "second"
    execute_and_die(config, tmp_path)
    assert [step.state for step in plan(STAGES, config, tmp_path)] == ["CACHED", "PARTIAL", "MISSING"]


def test_differences_show_old_and_new():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": "x"}) == ("b: 2 -> 3", "c: null -> x")


def test_a_stage_is_never_run_by_two_processes(tiny, tmp_path):
    """The second is told who holds the lock; once the holder is dead, its lock is taken over."""
    config = with_values(RunConfig(), UNTRACKED)
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with lock.held(tmp_path / "first" / ".lock"):
            os.write(ready[1], b"x")
            os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(UsageError, match=f"pid {child}, since 20"):
        execute(config, tmp_path)
    assert tiny.ran == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert lock.is_dead(tmp_path / "first" / ".lock")
    execute(config, tmp_path)
    assert tiny.ran == list(READS)
    assert not (tmp_path / "first" / ".lock").exists()


def test_a_lock_of_another_host_is_only_broken_on_request(tmp_path):
    path = tmp_path / "stage" / ".lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": 1.0, "since": "2026-01-01T00:00:00"}))
    with pytest.raises(UsageError, match="host elsewhere, pid 7, since 2026-01-01"), lock.held(path):
        pass
    with lock.held(path, force=True):
        assert lock.holder(path)["pid"] == os.getpid()


def test_a_failed_stage_leaves_no_finished_output(tiny, tmp_path, monkeypatch):
    def fail(context):
        raise ValueError("no")

    monkeypatch.setattr(sys.modules["tiny_second"], "run", fail)
    config = with_values(RunConfig(), UNTRACKED)
    with pytest.raises(ValueError, match="no"):
        execute(config, tmp_path)
    assert [step.state for step in plan(STAGES, config, tmp_path)][0] == "CACHED"
    assert not list((tmp_path / "second").glob("*/stage.json"))


def test_a_refused_run_does_not_change_what_later_commands_use(tiny, tmp_path):
    first, second = (with_values(RunConfig(), {**UNTRACKED, "train.epochs": epochs}) for epochs in (1, 2))
    execute(first, tmp_path)
    before = (tmp_path / "config.toml").read_text()
    with lock.held(tmp_path / "third" / ".lock"), pytest.raises(UsageError, match="stage third is being run"):
        execute(second, tmp_path)
    assert (tmp_path / "config.toml").read_text() == before
    execute(second, tmp_path)
    assert "epochs = 2 " in (tmp_path / "config.toml").read_text()
    execute(first, tmp_path)
    assert (tmp_path / "config.toml").read_text() == before


def test_what_a_stage_at_work_reads_is_not_made_again(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    first = execute(config, tmp_path)[0]
    before = (tmp_path / "config.toml").read_text()
    with lock.held(tmp_path / "third" / ".lock", uses={"first": first.key}):
        with pytest.raises(UsageError, match=f"reads first {first.key}: wait for it"):
            execute(with_values(config, {"train.epochs": 7}), tmp_path, only=["first"], force=["first"])
        assert (first.path / "whole").exists()
    assert (tmp_path / "config.toml").read_text() == before


def test_a_running_stage_names_its_inputs_in_its_lock(tiny, tmp_path, monkeypatch):
    seen = []

    def look(context):
        seen.append(lock.in_use(tmp_path))
        return {"result": "", "metrics": {}, "units": 1}

    monkeypatch.setattr(sys.modules["tiny_third"], "run", look)
    rows = execute(with_values(RunConfig(), UNTRACKED), tmp_path)
    assert seen == [{(row.stage, row.key) for row in rows[:2]}]


def test_an_output_stays_readable_where_it_was_made_when_the_store_changes(tiny, tmp_path, monkeypatch):
    read = []

    def write(context):
        context.output.store.publish("shard", lambda file: file.write(b"x"))
        return {"result": "", "metrics": {}, "units": 1}

    def look(context):
        read.append(context.inputs["first"].store.read("shard"))
        return {"result": "", "metrics": {}, "units": 1}

    monkeypatch.setattr(sys.modules["tiny_first"], "run", write)
    monkeypatch.setattr(sys.modules["tiny_second"], "run", look)
    one, two = (with_values(RunConfig(), {**UNTRACKED, "store": str(tmp_path / name)}) for name in ("one", "two"))
    root = tmp_path / "runs"
    execute(one, root, only=["first"])
    for config, seed in ((two, 1), (with_values(RunConfig(), UNTRACKED), 2)):
        rows = execute(with_values(config, {"loader.seed": seed}), root, only=["first", "second"])
        assert [row.state for row in rows] == ["cached", "ran"]
    assert read == [b"x", b"x"]
    execute(two, root, only=["first"], force=["first"])
    assert [len(list(tmp_path.glob(f"{name}/first/*/shard"))) for name in ("one", "two")] == [0, 1]


def test_a_root_can_be_moved(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "moved")
    (step, *_) = plan(STAGES, config, tmp_path / "moved")
    assert step.output.store.url == str(step.output.folder) == str(tmp_path / "moved" / "first" / step.output.key)
