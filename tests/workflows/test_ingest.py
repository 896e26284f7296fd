"""Ingest beyond the crashes: damage is found and mended, and what cannot be ingested is refused and leaves nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import simplejpeg
import tiny
from builders import class_folders, jpeg, tar_bytes, write_files
from conftest import run_alexnet

from pipelines.manifest import MANIFEST, Manifest
from pipelines.shards import sizes_in
from pipelines.storage import Folder
from workflows.compute.workers import InProcess
from workflows.config import UsageError
from workflows.console import Console
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.engine.stage import Context
from workflows.stages import ingest
from workflows.tracking.tracker import Untracked
from workflows.workflow import STAGES


def prepare(folder: Path, *stages: str, **settings) -> Path:
    """The stages' output for `folder/source`, made in this process; the folder of the first."""
    config = tiny.config(folder / "source", tracking__uri="off", **settings)
    rows = run(STAGES, config, folder / "runs", only=stages, compute=lambda *_: InProcess())
    return rows[0].folder.local_path()


def context_of(config, root: Path) -> Context:
    """What ingest would be given now."""
    step = plan(STAGES, config, places(config, root))[0]
    return Context(config, root, step.output, step.ingredients, {}, InProcess(), Untracked(), Console())


def shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("data/*.tfrecord")}


@pytest.mark.slow
def test_a_damaged_shard_is_found_by_verify_and_only_that_one_is_written_anew(tmp_path):
    tiny.write_source(tmp_path / "source")
    folder = prepare(tmp_path, "ingest")
    before, digest = shards(folder), Manifest.load(Folder.at(folder)).digest
    damaged = folder / "data" / min(before)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    at_root = ("--root", tmp_path / "runs")
    verified = run_alexnet("verify", *at_root)
    assert verified.returncode == 1, verified.stderr
    assert verified.stdout.count(".tfrecord:") == 1
    assert damaged.name in verified.stdout
    assert "ingest is PARTIAL" in run_alexnet("verify", *at_root).stderr
    again = run_alexnet("ingest", *at_root)
    assert (again.returncode, again.stdout.count("ran")) == (0, 1), again.stderr
    changed = [name for name, inode in shards(folder).items() if before[name] != inode]
    assert changed == [damaged.name]
    assert run_alexnet("verify", *at_root).returncode == 0
    assert Manifest.load(Folder.at(folder)).digest == digest


@pytest.mark.slow
def test_each_file_that_is_gone_is_told_once_pictures_too(tmp_path):
    tiny.write_source(tmp_path / "source")
    folder = prepare(tmp_path, "ingest", "stats")
    (folder / "_quarantine.parquet").unlink()
    (picture,) = (tmp_path / "runs").glob("stats/*/figures/channels.png")
    picture.unlink()
    verified = run_alexnet("verify", "--root", tmp_path / "runs")
    assert verified.returncode == 1, verified.stderr
    assert sum("_quarantine.parquet" in line for line in verified.stdout.splitlines()) == 1
    assert f"{picture} is gone, which stage stats made" in verified.stdout
    assert verified.stdout.count("1 damaged: ") == 2
    assert "writes anew what is damaged" in verified.stdout


@pytest.mark.slow
def test_an_edited_manifest_is_found_by_verify_and_written_anew(tmp_path):
    tiny.write_source(tmp_path / "source")
    folder = prepare(tmp_path, "ingest")
    before, content = shards(folder), json.loads((folder / "_manifest.json").read_text())
    (folder / "_manifest.json").write_text(json.dumps({**content, "size_px": 64}))
    assert run_alexnet("verify", "--root", tmp_path / "runs").returncode == 1
    prepare(tmp_path, "ingest")
    assert shards(folder) == before
    assert json.loads((folder / "_manifest.json").read_text())["digest"] == content["digest"]


@pytest.mark.slow
def test_many_files_that_are_no_images_leave_nothing(tmp_path):
    """While the first bad shard is seen, tasks on Ray are still writing others."""
    write_files(tmp_path / "fake", {f"{name}/{i}.jpg": b"no picture" for name in "ab" for i in range(150)})
    settings = {"ingest.source": tmp_path / "fake", "ingest.rows_per_shard": 2, "ray.num_cpus": 2}
    given = [f"--set={name}={value}" for name, value in settings.items()]
    refused = run_alexnet("ingest", "--root", tmp_path / "runs", "--set=tracking.uri=off", *given)
    assert refused.returncode == 2, refused.stderr
    assert "is a readable image" in refused.stderr.splitlines()[-1]
    assert not list((tmp_path / "runs").glob("ingest/*/*"))
    assert not [path for path in (tmp_path / "runs" / "ingest").iterdir() if path.is_dir()]


def test_a_source_that_changes_between_plan_and_run_is_refused(tmp_path):
    write_files(tmp_path / "source", class_folders(images=4))
    context = context_of(tiny.config(tmp_path / "source"), tmp_path / "runs")
    (tmp_path / "source" / "cat" / "more.jpg").write_bytes(jpeg(7))
    with pytest.raises(ValueError, match="has changed since this run was planned"):
        ingest.run(context)
    assert not context.folder.exists()


def test_a_shard_on_a_disk_that_is_not_the_driver_s_is_refused(tmp_path):
    tiny.write_source(tmp_path / "source")
    folder = prepare(tmp_path, "ingest")
    record = Manifest.load(Folder.at(folder)).splits["train"][0]
    store = Folder.at(folder)
    ingest._check_visible(store, store.size, [record])
    for there in (replace(record, bytes=record.bytes + 1), replace(record, name="data/train-99999-of-99999.tfrecord")):
        for size_of in (store.size, sizes_in(store).get):
            with pytest.raises(UsageError, match="--set store="):
                ingest._check_visible(store, size_of, [record, there])


def test_a_shard_that_vanishes_before_the_end_is_missed(tmp_path):
    written = ingest_losing(tmp_path, 2)
    assert len(written) > 3


def test_a_machine_that_writes_elsewhere_is_noticed_with_its_first_shard(tmp_path):
    written = ingest_losing(tmp_path, 0)
    assert len(written) == 1


def ingest_losing(folder: Path, lost: int) -> list[str]:
    """Refused, since one shard, by number, is gone when its task is done; the shards that were written until then."""
    write_files(folder / "source", class_folders(images=40))
    context, written = context_of(tiny.config(folder / "source"), folder / "runs"), []

    class Losing(InProcess):
        def map(self, function, items, num_gpus=0):
            for done in super().map(function, items, num_gpus):
                written.append(done[1][0].name)
                if len(written) == lost + 1:
                    context.folder.delete(written[lost])
                yield done

    with pytest.raises(UsageError, match="is not in .* as this machine sees it"):
        ingest.run(replace(context, compute=Losing()))
    assert context.folder.size(MANIFEST) is None
    return written


def test_shards_that_other_versions_wrote_are_kept_and_said_to_be_or_refused(tmp_path, capsys):
    tiny.write_source(tmp_path / "source")
    folder = prepare(tmp_path, "ingest")
    (folder / "stage.json").unlink()
    (folder / "_manifest.json").unlink()
    part = min((folder / "parts").iterdir())
    part.write_text(part.read_text().replace(f"simplejpeg {simplejpeg.__version__}", "simplejpeg 1.8.0"))
    with pytest.raises(UsageError, match=r"1 shards were written with simplejpeg 1.8.0.*alexnet ingest --redo ingest"):
        prepare(tmp_path, "ingest", ingest__mixed_versions=False)
    before = shards(folder)
    capsys.readouterr()
    prepare(tmp_path, "ingest")
    said = capsys.readouterr().err
    assert "1 shards were written with simplejpeg 1.8.0" in said
    assert shards(folder) == before
    assert sorted(Manifest.load(Folder.at(folder)).libraries.values()) == [1, len(before) - 1]


def test_statistics_of_no_training_images_are_refused(tmp_path):
    images = {f"{split}/{name}/{i}.jpg": jpeg(i) for split in ("train", "val") for name in "ab" for i in range(3)}
    write_files(tmp_path / "source", images | {name: b"no picture" for name in images if name.startswith("train")})
    with pytest.raises(UsageError, match="no training images"):
        prepare(tmp_path, "ingest", "stats", ingest__max_bad=1)


def test_statistics_come_with_pictures(tmp_path):
    tiny.write_source(tmp_path / "source")
    prepare(tmp_path, "ingest", "stats")
    drawn = (tmp_path / "runs").glob("stats/*/figures/*.png")
    assert sorted(path.stem for path in drawn) == ["channels", "classes", "mean_image"]


class Busy(InProcess):
    """Someone else works in the source meanwhile: after the first shards."""

    def __init__(self, meanwhile):
        self.meanwhile = meanwhile

    def map(self, function, items, num_gpus=0):
        for number, result in enumerate(super().map(function, items)):
            if number == 1:
                self.meanwhile()
            yield result


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ["of the same size", "of another size", "gone"])
def test_of_a_source_that_changes_while_it_is_read_nothing_is_kept(tmp_path, packed, how):
    source = tiny.write_source(tmp_path / "source")
    if packed:
        (tmp_path / "source.tar").write_bytes(tar_bytes(contents(source)))
        source = tmp_path / "source.tar"
    changed = source if packed else max(source.rglob("*.jpg"))

    def meanwhile() -> None:
        data = changed.read_bytes()
        changed.unlink()
        if how != "gone":
            changed.write_bytes(bytes(len(data)) if how == "of the same size" else data[: len(data) // 2])

    config = tiny.config(source, tracking__uri="off", ingest__rows_per_shard=20)
    with pytest.raises(UsageError, match="the source changed while it was read"):
        run(STAGES, config, tmp_path / "runs", only=["ingest"], compute=lambda *_: Busy(meanwhile))
    assert not list((tmp_path / "runs").rglob("*.tfrecord"))
    assert not list((tmp_path / "runs").rglob("manifest*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}
