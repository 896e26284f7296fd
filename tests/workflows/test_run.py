"""A stage runs if and only if its key changed or its output is incomplete, whatever was changed and killed before."""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import types
from dataclasses import replace

import crash
import pytest

from workflows.commands.verifying import verified
from workflows.compute.workers import InProcess
from workflows.config import RunConfig, UsageError, with_values
from workflows.console import Console
from workflows.engine import lock
from workflows.engine.outputs import places
from workflows.engine.plan import differences, plan
from workflows.engine.run import run
from workflows.engine.stage import Stage

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
            context.folder.write("half", "begun")
            if world.deadly == name:
                os.kill(os.getpid(), signal.SIGKILL)
            read = {key: context.inputs[key].record["key"] for key in NEEDS[name]}
            context.folder.write("whole", json.dumps(read))
            return {"result": name, "metrics": {"one": 1}, "units": 1, "files": ("whole",)}

        made = types.ModuleType(f"tiny_{name}")
        made.run = stage_run
        return made

    for name in READS:
        monkeypatch.setitem(sys.modules, f"tiny_{name}", module(name))
    return world


def execute(config, root, only=tuple(READS), **options):
    return run(STAGES, config, root, only=only, compute=lambda *_: InProcess(), **options)


def execute_and_die(config, root, **options):
    """The same in a child process that may be killed."""
    child = os.fork()
    if child == 0:
        try:
            execute(config, root, **options)
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


def states(config, root):
    return [step.state for step in plan(STAGES, config, places(config, root))]


def test_a_redo_makes_a_stage_and_all_after_it_again(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    tiny.ran.clear()
    execute(config, tmp_path, redo=["second"])
    assert tiny.ran == ["second", "third"]
    assert states(config, tmp_path) == ["CACHED"] * 3
    assert not list(tmp_path.glob("*/*.redo"))


def test_after_a_redo_alone_what_follows_is_stale_for_every_command(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    execute(config, tmp_path, only=["first"], redo=["first"])
    steps = plan(STAGES, config, places(config, tmp_path))
    assert [step.state for step in steps] == ["CACHED", "STALE", "STALE"]
    assert steps[1].reasons == ("first was made again",)
    assert steps[2].reasons == ("first was made again", "second is to be made again")
    with pytest.raises(UsageError, match="needs the output of second, which is STALE"):
        execute(config, tmp_path, only=["third"])
    tiny.ran.clear()
    execute(config, tmp_path)
    assert tiny.ran == ["second", "third"]


def test_what_is_mended_after_a_look_at_it_makes_nothing_stale(tiny, tmp_path):
    """As `verify` does with an ingest of which some shards are damaged."""
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    plan(STAGES, config, places(config, tmp_path))[0].output.reopen()
    assert states(config, tmp_path) == ["PARTIAL", "CACHED", "CACHED"]
    tiny.ran.clear()
    execute(config, tmp_path)
    assert tiny.ran == ["first"]


def test_a_file_that_is_not_as_a_stage_recorded_it_is_found_and_refused_with_the_way_out(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    rows = execute(config, tmp_path)
    planned = plan(STAGES, config, places(config, tmp_path))
    assert [found.problems for found in verified(planned, map)] == [{}, {}, {}]
    rows[0].folder.write("whole", "else")
    rows[2].folder.delete("whole")
    first, second, third = verified(planned, map)
    assert (list(first.problems), second.problems, list(third.problems)) == (["whole"], {}, ["whole"])
    assert "is not the file that stage first made (sha256 " in first.problems["whole"][0]
    assert "is gone, which stage third made" in third.problems["whole"][0]
    with pytest.raises(UsageError, match="whole is not the file .*: `alexnet first --redo first` makes it again"):
        execute(config, tmp_path, only=["second"], redo=["second"])
    execute(config, tmp_path, only=["first"], redo=["first"])
    assert not next(verified(plan(STAGES, config, places(config, tmp_path)), map)).problems


def test_a_removed_output_makes_what_was_made_of_it_stale(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    plan(STAGES, config, places(config, tmp_path))[0].output.delete()
    assert states(config, tmp_path) == ["MISSING", "STALE", "STALE"]
    tiny.ran.clear()
    execute(config, tmp_path)
    assert tiny.ran == list(READS)


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_redo_that_does_not_finish_leaves_the_old_output(tiny, tmp_path, monkeypatch, how):
    config = with_values(RunConfig(), UNTRACKED)
    old = execute(config, tmp_path)[1].folder.read("whole")
    record = places(config, tmp_path).finished("second")[0][1]
    if how == "killed":
        tiny.deadly = "second"
        execute_and_die(config, tmp_path, redo=["second"])
        tiny.deadly = None
    else:
        monkeypatch.setattr(sys.modules["tiny_second"], "run", lambda context: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(config, tmp_path, redo=["second"])
        monkeypatch.undo()
    steps = plan(STAGES, config, places(config, tmp_path))
    assert [step.state for step in steps] == ["CACHED"] * 3
    assert (steps[1].output.record, steps[1].output.folder.read("whole")) == (record, old)


def test_a_killed_redo_goes_on_where_it_stopped_unless_its_inputs_were_made_again(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    tiny.deadly = "second"
    execute_and_die(config, tmp_path, redo=["second"])
    tiny.deadly = None
    (beside,) = tmp_path.glob("second/*.redo")
    (beside / "half").write_text("kept")
    monkey = sys.modules["tiny_second"].run
    seen = []
    sys.modules["tiny_second"].run = lambda context: seen.append(context.folder.size("half")) or monkey(context)
    tiny.deadly = "second"
    execute_and_die(config, tmp_path, redo=["second"])
    tiny.deadly = None
    execute(config, tmp_path, only=["second"], redo=["second"])
    assert seen == [5]
    tiny.deadly = "second"
    execute_and_die(config, tmp_path, redo=["second"])
    tiny.deadly = None
    execute(config, tmp_path, redo=["first"])
    assert seen == [5, None]


def test_a_move_that_was_cut_off_is_made_by_the_next_run(tiny, tmp_path):
    """The new output is whole beside the old one, of which nothing or a part is left."""
    config = with_values(RunConfig(), UNTRACKED)
    folder = execute(config, tmp_path)[2].folder.local_path()
    for left in ("nothing", "a part", "all"):
        beside = folder.with_name(folder.name + ".redo")
        shutil.copytree(folder, beside)
        (beside / "whole").write_text(f"new, {left}")
        if left != "all":
            (folder / "stage.json").unlink()
        if left == "nothing":
            shutil.rmtree(folder)
        assert states(config, tmp_path) == ["CACHED"] * 3
        row = execute(config, tmp_path)[2]
        assert (row.state, row.folder.local_path()) == ("cached", folder)
        assert (folder / "whole").read_text() == f"new, {left}"
        assert not beside.exists()


def test_a_redo_of_what_is_being_read_waits_beside_it_for_the_next_run(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    first = execute(config, tmp_path)[0]
    third = places(config, tmp_path).output("third", "f" * 16)
    with in_a_child(lambda: lock.held(third, uses={"first": first.key})):
        made = execute(config, tmp_path, only=["first"], redo=["first"])[0]
        assert first.folder.size("whole") is not None
        assert made.folder.url == first.folder.url + ".redo"
        with pytest.raises(UsageError, match=f"first {first.key} is being read"):
            execute(config, tmp_path, only=["first"], redo=["first"])
    assert execute(config, tmp_path, only=["first"])[0].folder == first.folder
    assert not list(tmp_path.glob("first/*.redo"))


@contextlib.contextmanager
def in_a_child(holding):
    """The block runs while a child process is inside the context that `holding` makes."""
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with holding():
            os.write(ready[1], b"x")
            os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        yield child
    finally:
        os.write(release[1], b"x")
        os.waitpid(child, 0)


def test_the_plan_names_the_keys_that_differ(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    assert states(config, tmp_path) == ["MISSING"] * 3
    execute(config, tmp_path)
    assert states(config, tmp_path) == ["CACHED"] * 3
    steps = plan(STAGES, with_values(config, {"loader.seed": 5}), places(config, tmp_path))
    assert [step.state for step in steps] == ["CACHED", "STALE", "STALE"]
    assert steps[1].reasons == ("loader.seed: 0 -> 5",)
    assert steps[2].reasons[0].startswith("input.second: ")


def test_an_output_begun_and_not_finished_is_partial(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    tiny.deadly = "second"
    execute_and_die(config, tmp_path)
    assert states(config, tmp_path) == ["CACHED", "PARTIAL", "MISSING"]


def test_differences_show_old_and_new():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": "x"}) == ("b: 2 -> 3", "c: null -> x")


def test_networks_of_two_kinds_differ_in_their_kind_and_in_what_both_have():
    alexnet = {"net.kind": "alexnet", "net.input_px": 64, "net.fc": [256, 256]}
    mine = {"net.kind": "module:mine:net", "net.input_px": 48, "net.code": "1b82"}
    kind = "net.kind: alexnet -> module:mine:net"
    assert differences(alexnet, mine) == (kind, "net.input_px: 64 -> 48")
    assert differences(mine, mine | {"net.code": "a444"}) == ("net.code: 1b82 -> a444",)
    before_kinds = {"net.fc": [256, 256]}
    assert differences(before_kinds, alexnet) == ("net.kind: null -> alexnet", "net.input_px: null -> 64")


def test_outputs_of_an_older_version_of_a_stage_are_said_to_be(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    newer = (replace(STAGES[0], version=2), *STAGES[1:])
    step = plan(newer, config, places(config, tmp_path))[0]
    assert step.state == "STALE"
    assert step.reasons == ("version: 1 -> 2 (of the stage: its files or results are others now)",)


def test_two_processes_make_an_output_once_and_share_it(tiny, tmp_path):
    """The second waits for the first, which is named, and then takes what that made; its own stages run meanwhile."""
    said, log = [], tmp_path / "log"
    one, two = (with_values(RunConfig(), {**UNTRACKED, "train.epochs": epochs}) for epochs in (1, 2))
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        run_first = sys.modules["tiny_first"].run

        def slow(context):
            os.write(ready[1], b"x")
            os.read(go_on[0], 1)
            with log.open("a") as file:
                file.write("first\n")
            return run_first(context)

        sys.modules["tiny_first"].run = slow
        try:
            execute(one, tmp_path / "runs")
        finally:
            os._exit(0)
    os.read(ready[0], 1)

    class Releasing(Console):
        def say(self, text):
            said.append(text)
            if "waiting for it" in text:
                os.write(go_on[1], b"x")

    rows = execute(two, tmp_path / "runs", console=Releasing())
    os.waitpid(child, 0)
    assert [row.state for row in rows][0] == "cached"
    assert "first" not in tiny.ran
    assert f"pid {child}, since 20" in next(text for text in said if "waiting" in text)
    assert len(list((tmp_path / "runs" / "third").glob("*/stage.json"))) == 2
    assert not list((tmp_path / "runs").glob("*/*.lock"))


def test_the_lock_of_a_killed_process_is_taken_over(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    output = plan(STAGES, config, places(config, tmp_path))[0].output
    with in_a_child(lambda: lock.held(output)) as child:
        os.kill(child, signal.SIGKILL)
        crash.wait_until(lock.of(output).is_dead, "its death")
        execute(config, tmp_path)
    assert tiny.ran == list(READS)
    assert not list(tmp_path.glob("*/*.lock"))


def test_a_failed_stage_leaves_no_finished_output(tiny, tmp_path, monkeypatch):
    def fail(context):
        raise ValueError("no")

    monkeypatch.setattr(sys.modules["tiny_second"], "run", fail)
    config = with_values(RunConfig(), UNTRACKED)
    with pytest.raises(ValueError, match="no"):
        execute(config, tmp_path)
    assert states(config, tmp_path)[0] == "CACHED"
    assert not list((tmp_path / "second").glob("*/stage.json"))


def test_a_refused_run_does_not_change_what_later_commands_use(tiny, tmp_path):
    first, second = (with_values(RunConfig(), {**UNTRACKED, "train.epochs": epochs}) for epochs in (1, 2))
    execute(first, tmp_path)
    before = (tmp_path / "config.toml").read_text()

    def refuse(planned):
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        execute(second, tmp_path, check=refuse)
    assert (tmp_path / "config.toml").read_text() == before
    execute(second, tmp_path)
    assert "epochs = 2 " in (tmp_path / "config.toml").read_text()
    execute(first, tmp_path)
    assert (tmp_path / "config.toml").read_text() == before


def test_a_running_stage_names_its_inputs_in_its_lock(tiny, tmp_path, monkeypatch):
    seen, config = [], with_values(RunConfig(), UNTRACKED)

    def look(context):
        seen.append(lock.in_use(places(config, tmp_path)))
        return {"result": "", "metrics": {}, "units": 1}

    monkeypatch.setattr(sys.modules["tiny_third"], "run", look)
    rows = execute(config, tmp_path)
    assert seen == [{(row.stage, row.key) for row in rows}]


def test_an_output_stays_readable_where_it_was_made_when_the_store_changes(tiny, tmp_path, monkeypatch):
    read = []

    def write(context):
        context.folder.write("shard", b"x")
        return {"result": "", "metrics": {}, "units": 1}

    def look(context):
        read.append(context.inputs["first"].folder.read("shard"))
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
    execute(two, root, only=["first"], redo=["first"])
    assert [len(list(tmp_path.glob(f"{name}/first/*/shard"))) for name in ("one", "two")] == [0, 1]


def test_a_root_can_be_moved(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "moved")
    step, *_ = plan(STAGES, config, places(config, tmp_path / "moved"))
    assert step.state == "CACHED"
    assert step.output.folder.url == str(tmp_path / "moved" / "first" / step.output.key)


def test_two_roots_with_one_store_know_the_same(tiny, tmp_path):
    config = with_values(RunConfig(), {**UNTRACKED, "store": str(tmp_path / "store")})
    execute(config, tmp_path / "one")
    tiny.ran.clear()
    assert [row.state for row in execute(config, tmp_path / "two")] == ["cached"] * 3
    tiny.deadly = "third"
    changed = with_values(config, {"train.epochs": 7})
    execute_and_die(changed, tmp_path / "one")
    assert states(changed, tmp_path / "two") == ["CACHED", "CACHED", "PARTIAL"]
    shutil.rmtree(tmp_path / "one")
    tiny.deadly = None
    assert [row.state for row in execute(changed, tmp_path / "two")] == ["cached", "cached", "ran"]


def test_a_store_that_is_gone_does_not_stop_a_root_that_once_used_it(tiny, tmp_path):
    stored = with_values(RunConfig(), {**UNTRACKED, "store": str(tmp_path / "store")})
    execute(stored, tmp_path / "runs")
    shutil.rmtree(tmp_path / "store")
    config = with_values(RunConfig(), UNTRACKED)
    assert states(config, tmp_path / "runs") == ["MISSING"] * 3
    assert [row.state for row in execute(config, tmp_path / "runs")] == ["ran"] * 3


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"stage": "first"}', "ÿ"])
@pytest.mark.parametrize("name", ["stage.json", "begun.json"])
def test_a_damaged_record_is_named_and_what_it_stood_for_is_taken_up_again(tiny, tmp_path, name, text):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    output = plan(STAGES, config, places(config, tmp_path))[1].output
    (output.folder.local_path() / name).write_bytes(text.encode("latin-1"))
    step = plan(STAGES, config, places(config, tmp_path))[1]
    if name == "stage.json":
        assert step.state == "PARTIAL"
        assert f"{output.folder.where(name)} is damaged" in step.reasons[0]
    other = with_values(config, {"loader.seed": 9})
    assert states(other, tmp_path)[0] == "CACHED"
    tiny.ran.clear()
    execute(config, tmp_path)
    assert tiny.ran == (["second"] if name == "stage.json" else [])


def test_the_record_of_another_output_is_not_taken_for_this_one_s(tiny, tmp_path):
    config = with_values(RunConfig(), UNTRACKED)
    execute(config, tmp_path)
    other = with_values(config, {"loader.seed": 9})
    mine = plan(STAGES, config, places(config, tmp_path))[1].output.folder.local_path()
    theirs = plan(STAGES, other, places(other, tmp_path))[1].output.folder.local_path()
    shutil.copytree(mine, theirs)
    step = plan(STAGES, other, places(other, tmp_path))[1]
    assert step.state == "PARTIAL"
    assert f"it is that of second {mine.name}" in step.reasons[0]


@pytest.mark.parametrize("change", ["another's", "gone"])
def test_what_a_stage_reads_must_be_what_its_maker_wrote(tiny, tmp_path, monkeypatch, change):
    def write(context):
        context.folder.write("numbers", b"ours")
        return {"result": "", "metrics": {}, "units": 1, "files": ("numbers",)}

    monkeypatch.setattr(sys.modules["tiny_first"], "run", write)
    config = with_values(RunConfig(), UNTRACKED)
    folder = execute(config, tmp_path)[0].folder
    folder.write("numbers", b"else") if change == "another's" else folder.delete("numbers")
    with pytest.raises(UsageError, match=r"first/\w+/numbers is .*`alexnet first --redo first` makes it again"):
        execute(with_values(config, {"loader.seed": 9}), tmp_path)
    execute(with_values(config, {"loader.seed": 9}), tmp_path, redo=["first"])


def test_a_key_that_is_new_and_has_its_default_makes_nothing_stale(tiny, tmp_path):
    """Records from a time when `loader.seed` did not exist; what was begun then is gone on with, too."""
    config = with_values(RunConfig(), UNTRACKED)
    old = tuple(replace(stage, reads=()) if stage.name == "second" else stage for stage in STAGES)
    run(old, config, tmp_path, only=list(READS), compute=lambda *_: InProcess())
    assert states(config, tmp_path) == ["CACHED"] * 3
    assert states(with_values(config, {"loader.seed": 9}), tmp_path) == ["CACHED", "STALE", "STALE"]
    plan(STAGES, config, places(config, tmp_path))[2].output.reopen()
    assert states(config, tmp_path) == ["CACHED", "CACHED", "PARTIAL"]
    tiny.ran.clear()
    execute(config, tmp_path)
    assert tiny.ran == ["third"]
    assert states(config, tmp_path) == ["CACHED"] * 3


def test_the_record_says_how_it_was_made_in_all_attempts(tiny, tmp_path, monkeypatch):
    stages = tuple(
        replace(s, reads=("loader.*",), ignores=("loader.threads",)) if s.name == "second" else s for s in STAGES
    )
    one, two = (with_values(RunConfig(), {**UNTRACKED, "loader.threads": threads}) for threads in (1, 2))
    made = sys.modules["tiny_second"].run
    monkeypatch.setattr(sys.modules["tiny_second"], "run", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(stages, one, tmp_path, only=list(READS), compute=lambda *_: InProcess())
    how = {"made_with": {"device": "cpu"}}
    monkeypatch.setattr(sys.modules["tiny_second"], "run", lambda context: made(context) | how)
    run(stages, two, tmp_path, only=list(READS), compute=lambda *_: InProcess())
    record = places(two, tmp_path).finished("second")[0][1]
    assert [attempt["ignored"] for attempt in record["attempts"]] == [{"loader.threads": 1}, {"loader.threads": 2}]
    assert record["made_with"] == {"device": "cpu"}
