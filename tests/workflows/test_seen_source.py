"""What is known of a source changes when it is ingested, by no look at it; gone, it is known by what was ingested."""

import shutil
import sys
import time
import urllib.request

import pytest
import tiny
from builders import class_folders, jpeg, tar_bytes, write_files
from conftest import run_alexnet

from pipelines.storage import Folder
from workflows.compute.workers import InProcess
from workflows.config import UsageError, with_values
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.engine.seen_source import record_source, see_source, see_training
from workflows.workflow import STAGES


def look(config, root, anew=True):
    return see_source(config, places(config, root), anew)


def ingest(config, root):
    """As an ingest does once it has begun."""
    seen = look(config, root)
    record_source(config, places(config, root), seen)
    return seen


@pytest.mark.parametrize("damage", ["emptied", "no images", "cut off"])
def test_a_source_that_is_there_and_damaged_is_refused_although_it_is_known(tmp_path, damage):
    source = tmp_path / ("source.tar" if damage == "cut off" else "source")
    if damage == "cut off":
        source.write_bytes(tar_bytes(class_folders(images=4)))
    else:
        write_files(source, class_folders(images=4))
    config = tiny.config(source)
    ingest(config, tmp_path / "runs")
    if damage == "cut off":
        source.write_bytes(source.read_bytes()[:-20000])
    else:
        for path in list(source.rglob("*.jpg")):
            path.rename(path.with_suffix(".txt")) if damage == "no images" else path.unlink()
    with pytest.raises(UsageError, match="source"):
        look(config, tmp_path / "runs")


def test_a_source_that_is_gone_or_out_of_reach_is_known_by_what_was_last_seen(tmp_path):
    source = write_files(tmp_path / "source", class_folders(images=4))
    config = tiny.config(source)
    seen = ingest(config, tmp_path / "runs")
    source.rename(tmp_path / "elsewhere")
    found = look(config, tmp_path / "runs")
    assert (found.identity, found.facts) == (seen.identity, seen.facts)
    assert found.note == f"{source} is gone: what was ingested of it is used"


@pytest.mark.slow
def test_a_source_in_an_object_store_is_told_apart_the_same_way(s3_folder, s3_server, tmp_path):
    folder = Folder.at(s3_folder).child("source")
    for name, data in class_folders(images=2).items():
        folder.publish(name, lambda file, data=data: file.write(data))
    config = tiny.config(folder.url)
    seen = ingest(config, tmp_path)
    for entry in folder.files(recursive=True):
        folder.delete(entry.name)
    with pytest.raises(UsageError, match="is empty"):
        look(config, tmp_path)
    urllib.request.urlopen(urllib.request.Request(f"http://{s3_server}/moto-api/reset", method="POST")).close()
    assert look(config, tmp_path).identity == seen.identity


def test_a_look_takes_what_was_ingested_and_lists_nothing(tmp_path):
    source = write_files(tmp_path / "source", class_folders(images=4))
    config, root = tiny.config(source), tmp_path / "runs"
    seen = ingest(config, root)
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (source / "cat" / "more.jpg").write_bytes(jpeg(7))
    known = look(config, root, anew=False)
    assert (known.identity, known.facts) == (seen.identity, seen.facts)
    assert "touched since it was ingested: `alexnet plan`" in known.note
    changed = look(config, root)
    assert changed.identity != seen.identity
    assert "the source has changed since it was ingested: " in changed.note
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == kept
    shutil.rmtree(source)
    assert look(config, root, anew=False) == seen


def test_files_newer_than_what_was_made_of_them_are_said(tmp_path):
    """Where the listing and the sample see no difference: until it is ingested again."""
    source, root = tiny.write_source(tmp_path / "source"), tmp_path / "runs"
    config = tiny.config(source, tracking__uri="off")
    run(STAGES, config, root, only=["ingest"], compute=lambda *_: InProcess())
    assert look(config, root).note == ""
    time.sleep(0.05)
    file = max(source.rglob("*.jpg"))
    file.write_bytes(file.read_bytes())
    seen = look(config, root)
    assert "newer than what was ingested" in seen.note
    run(STAGES, config, root, only=["ingest"], compute=lambda *_: InProcess())
    assert look(config, root).note == seen.note  # nothing was to do
    run(STAGES, config, root, only=["ingest"], redo=["ingest"], compute=lambda *_: InProcess())
    assert look(config, root).note == ""


def test_what_one_root_ingested_is_known_in_another_of_the_same_store(tmp_path):
    tiny.write_source(tmp_path / "source")
    config = tiny.config(tmp_path / "source", store=str(tmp_path / "store"), tracking__uri="off")
    run(STAGES, config, tmp_path / "one", only=["ingest"], compute=lambda *_: InProcess())
    shutil.rmtree(tmp_path / "source")
    assert plan(STAGES, config, places(config, tmp_path / "two"), anew=True)[0].state == "CACHED"


@pytest.mark.slow
def test_a_source_that_lost_images_and_got_them_back_is_cached_again(tmp_path):
    """Whatever looked at it, and although the rest was ingested in between."""
    source, root = tiny.write_source(tmp_path / "source"), tmp_path / "runs"
    config = tiny.config(source, tracking__uri="off")

    def ingest_all():
        return run(STAGES, config, root, only=["ingest"], compute=lambda *_: InProcess())[0]

    whole = ingest_all()
    kept = tmp_path / "kept"
    shutil.copytree(source, kept)
    for path in list((source / "a").iterdir())[1:]:
        path.unlink()
    planned = run_alexnet("plan", "--root", root)
    assert "the source has changed since it was ingested: train 106 val 14 -> " in planned.stdout
    assert whole.key in run_alexnet("status", "--root", root).stdout
    assert ingest_all().key != whole.key
    shutil.rmtree(source)
    shutil.copytree(kept, source)
    again = ingest_all()
    assert (again.state, again.key) == ("cached", whole.key)
    assert whole.key in run_alexnet("status", "--root", root).stdout


def test_weights_that_are_gone_are_known_to_the_trainings_that_started_from_them(tmp_path):
    config = tiny.config("demo", train__init_from=str(tmp_path / "model"))
    where = places(config, tmp_path / "runs")
    with pytest.raises(UsageError, match="no model.safetensors there"):
        see_training(config, where, anew=True)
    Folder.at(tmp_path / "model").write("model.safetensors", b"weights")
    seen = see_training(config, where, anew=True)
    facts = {"stage": "train", "key": "0123", "ingredients": seen.identity, "inputs": {}}
    where.at_home("train", "0123").begin(facts, {"ignored": {"train.init_from": config.train.init_from}})
    shutil.rmtree(tmp_path / "model")
    gone = see_training(config, where, anew=True)
    assert (gone.identity, gone.note) == (seen.identity, f"{tmp_path / 'model'} is gone")


def test_the_code_of_a_network_of_ones_own_is_part_of_what_training_sees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "network_to_change.py"
    code.write_text("def net(spec): ...")
    config = with_values(tiny.config("demo"), {"net.kind": "module:network_to_change:net"})
    where = places(config, tmp_path / "runs")
    before = see_training(config, where, anew=True)
    facts = {"stage": "train", "key": "4567", "inputs": {}}
    where.at_home("train", "4567").begin(facts | {"ingredients": {"net.kind": config.net.kind} | before.identity}, {})
    code.write_text("def net(spec): return spec  # in another way")
    with pytest.raises(UsageError, match=r"network_to_change.py was changed since it was imported; start again"):
        see_training(config, where, anew=True)
    monkeypatch.delitem(sys.modules, "network_to_change")
    after = see_training(config, where, anew=True)
    assert before.identity != after.identity
    facts = {"stage": "train", "key": "0123", "inputs": {}}
    where.at_home("train", "0123").begin(facts | {"ingredients": {"net.kind": config.net.kind} | after.identity}, {})
    code.unlink()
    monkeypatch.delitem(sys.modules, "network_to_change")
    gone = see_training(config, where, anew=True)
    assert (gone.identity, gone.note) == (after.identity, "module:network_to_change:net is gone")
    with pytest.raises(UsageError, match="No module named 'network_to_change'"):
        see_training(config, places(config, tmp_path / "others"), anew=True)
