import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pixel_reference
import pytest
import shard_builder
import torch

from pipelines.loader import TrainLoader
from pipelines.shard_table import read_written, write_shard_table
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder

SIGMA = np.array([121.78006, 37.09389, 19.72083])
VECTORS = np.array([[-0.56351, -0.71258, 0.41796], [-0.57618, -0.02354, -0.81698], [-0.59200, 0.70120, 0.39731]])
LISTED = {"train": [40, 33, 40, 17, 40, 30]}
QUARANTINED = (3, 50, 51, 199)  # of 200 listed
SIZE_PX, CROP_PX, BATCH, EPOCHS = 48, 40, 16, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Folder and manifest, written once for each combination of format and encoding."""
    made = {}

    def get(format="tfrecord", encoding="jpeg"):
        if (format, encoding) not in made:
            target = tmp_path_factory.mktemp(f"{format}-{encoding}")
            made[format, encoding] = shard_builder.write_shards(
                target, LISTED, format, encoding, SIZE_PX, quarantined=QUARANTINED
            )
        return made[format, encoding]

    return get


def loader(
    shards, batch_size=BATCH, crop_px=CROP_PX, epochs=EPOCHS, replica=0, num_replicas=1, part=0, num_parts=1,
    eigenvalues=SIGMA**2, eigenvectors=VECTORS, light=(), device="cpu", **fields,
):  # fmt: skip
    spec = LoaderSpec(**{"window_shards": 2, "threads": 2, **fields})
    folder, manifest = shards
    return TrainLoader(
        folder, manifest, spec, crop_px=crop_px, batch_size=batch_size, epochs=epochs,
        eigenvalues=eigenvalues, eigenvectors=eigenvectors, light=light,
        replica=replica, num_replicas=num_replicas, part=part, num_parts=num_parts, device=device,
    )  # fmt: skip


def taken(batches) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [(batch.images_BCHW.cpu().numpy().copy(), batch.labels_B.cpu().numpy(), batch.ids_B) for batch in batches]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def joined(*replicas):
    """Batches of several replicas or parts, put together."""
    return [
        tuple(np.concatenate(columns) for columns in zip(*batches, strict=True))
        for batches in zip(*replicas, strict=True)
    ]


def test_an_epoch_holds_every_stored_sample_once_with_its_label(shards, device):
    for epoch in range(2):
        batches = taken(loader(shards(), device=device).epoch(epoch))
        ids = np.concatenate([batch[2] for batch in batches])
        assert sorted(ids) == [i for i in range(200) if i not in QUARANTINED]
        assert all((batch[1] == batch[2] % 3).all() for batch in batches)
        assert [len(batch[2]) for batch in batches] == [16] * 12 + [4]


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_do_not_depend_on_threads(shards, threads, device):
    assert_same(
        taken(loader(shards(), device=device, threads=threads).epoch(1)),
        taken(loader(shards(), device=device).epoch(1)),
    )


@pytest.mark.parametrize("count", [2, 3, 16])
def test_replicas_and_parts_of_them_tile_each_batch(shards, count, device):
    whole = taken(loader(shards(), device=device).epoch(1))
    replicas = [taken(loader(shards(), device=device, replica=i, num_replicas=count).epoch(1)) for i in range(count)]
    assert_same(joined(*replicas), whole)
    parts = [
        taken(loader(shards(), device=device, replica=1, num_replicas=count, part=i, num_parts=2).epoch(1))
        for i in range(2)
    ]
    assert_same(joined(*parts), replicas[1])


def test_parquet_and_tfrecord_give_the_same_batches(shards, device):
    for encoding in ("jpeg", "raw"):
        pairs = [taken(loader(shards(format, encoding), device=device).epoch(0)) for format in ("parquet", "tfrecord")]
        assert_same(*pairs)


def test_jpeg_and_raw_share_order_and_augmentation(shards, device):
    jpeg, raw = (taken(loader(shards(encoding=encoding), device=device).epoch(0)) for encoding in ("jpeg", "raw"))
    for one, other in zip(jpeg, raw, strict=True):
        assert np.array_equal(one[2], other[2])
        assert abs(one[0] - other[0]).mean() < 6  # what JPEG loses of the grain


def test_epochs_differ_in_order_unless_reshuffle_is_off(shards):
    def ids_and_pixels(epoch, **fields):
        batches = taken(loader(shards(), **fields).epoch(epoch))
        return np.concatenate([b[2] for b in batches]), np.concatenate([b[0] for b in batches])

    assert not np.array_equal(ids_and_pixels(0)[0], ids_and_pixels(1)[0])
    (ids, pixels), (ids_later, pixels_later) = (ids_and_pixels(epoch, reshuffle=False) for epoch in (0, 1))
    assert np.array_equal(ids, ids_later)
    assert not np.array_equal(pixels, pixels_later)


RESUMED = """
import sys, numpy as np
from pipelines.manifest import Manifest
from test_loader import loader, taken, Folder
folder = Folder.at(sys.argv[1])
running = loader((folder, Manifest.load(folder)), device=sys.argv[3])
for step in map(int, sys.argv[4:]):
    batches = taken(running.epoch(2, start_step=step))
    columns = {f"{i}_{j}": column for i, batch in enumerate(batches) for j, column in enumerate(batch)}
    np.savez(f"{sys.argv[2]}/{step}.npz", **columns)
"""


def test_resume_continues_the_same_batches_in_a_new_process(shards, tmp_path, device):
    """Stopped at any of 10 random steps."""
    folder, manifest = shards()
    whole = taken(loader((folder, manifest), device=device).epoch(2))
    steps = random.Random(0).sample(range(len(whole) + 1), 10)
    run_python(RESUMED, str(folder.local_path()), str(tmp_path), device, *map(str, steps))
    for step in steps:
        stored = np.load(tmp_path / f"{step}.npz")
        batches = [tuple(stored[f"{i}_{j}"] for j in range(3)) for i in range(len(stored.files) // 3)]
        assert_same(batches, whole[step:])


def test_resume_with_another_number_of_replicas_sees_the_same_samples(shards, device):
    whole = taken(loader(shards(), device=device).epoch(2))
    two = [taken(loader(shards(), device=device, replica=i, num_replicas=2).epoch(2, start_step=5)) for i in range(2)]
    five = [taken(loader(shards(), device=device, replica=i, num_replicas=5).epoch(2, start_step=5)) for i in range(5)]
    assert_same(joined(*two), whole[5:])
    assert_same(joined(*five), whole[5:])


def test_all_replicas_take_the_same_number_of_steps(shards, device):
    """The last batch has 4 samples: some of 16 replicas get none, and still a batch."""
    running = [loader(shards(), device=device, replica=i, num_replicas=16) for i in (0, 15)]
    sizes = [[len(batch.ids_B) for batch in one.epoch(0)] for one in running]
    assert [len(one) for one in sizes] == [running[0].steps_per_epoch] * 2 == [13, 13]
    assert sizes[1][-1] == 0
    (*_, last) = running[1].epoch(0)
    assert last.images_BCHW.shape == (0, 3, CROP_PX, CROP_PX)


def test_leaving_an_epoch_early_leaves_nothing_behind(shards, device):
    running, whole = loader(shards(), device=device), taken(loader(shards(), device=device).epoch(1))
    left = running.epoch(0)
    next(left)
    assert_same(taken(running.epoch(1)), whole)
    with pytest.raises(ValueError, match="take one at a time"):
        next(left)


def test_batches_stay_as_they_were_while_they_are_held(shards, device):
    held = list(loader(shards(), device=device).epoch(0))
    copies = taken(loader(shards(), device=device).epoch(0))
    assert_same(taken(held), copies)


def test_what_reaches_conv1_is_the_sum_of_2012(shards, device):
    """(pixel + noise - mean image) / 1.1, to 1e-3 grey levels; / 1 once the lighting is off."""
    encoding = "jpeg" if device == "cpu" else "raw"  # another decoder, other pixels
    shards, size = shards(encoding=encoding), (SIZE_PX, SIZE_PX, 3)
    mean_image_CHW = np.random.default_rng(1).uniform(90, 140, (3, CROP_PX, CROP_PX)).astype(np.float32)
    for epoch in (0, 3):
        running = loader(shards, device=device, light=((2, 0.0),), crop_chunk=4)
        position = 0
        for batch in running.epoch(epoch):
            input_BCHW = (batch.images_BCHW.cpu() - torch.from_numpy(mean_image_CHW)) * running.input_scale(epoch)
            positions = np.arange(position, position + len(batch.ids_B))
            drawn = running._augmentation.draw(epoch, batch.ids_B, positions)
            assert drawn.shift_B3.any() == (epoch < 2)
            for index, id in enumerate(batch.ids_B):
                stored = np.frombuffer(shard_builder.stored(int(id), SIZE_PX, encoding), np.uint8)
                stored = stored if encoding == "jpeg" else stored.reshape(size)
                values = [column[index] for column in drawn]
                pixels_CHW = pixel_reference.augmented(stored, *values, crop_px=CROP_PX)
                expected = (pixels_CHW - mean_image_CHW) / (1.1 if epoch < 2 else 1)
                np.testing.assert_allclose(input_BCHW[index].numpy(), expected, atol=1e-3)
            position += len(batch.ids_B)


@pytest.mark.parametrize(("id", "row"), [(20, 0), (27, 6), (39, 18)])
def test_a_bad_record_names_shard_row_and_id(tmp_path, id, row, device):
    damaged = shard_builder.stored(id, SIZE_PX, "jpeg")
    shards = shard_builder.write_shards(
        tmp_path, {"train": [20, 20]}, size_px=SIZE_PX, quarantined=(22,), images={id: damaged[: len(damaged) // 2]}
    )
    with pytest.raises(
        ValueError, match=rf"train-00001-of-00002.tfrecord row {row} \(id {id}\) cannot be decoded.*remature"
    ):
        taken(loader(shards, device=device).epoch(0))


def test_a_shard_that_is_not_the_manifests_stops_the_epoch(tmp_path):
    folder, manifest = shard_builder.write_shards(tmp_path, {"train": [10, 10]}, size_px=SIZE_PX)
    path = tmp_path / manifest.splits["train"][1].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00001-of-00002.tfrecord.*row 4"):
        taken(loader((folder, manifest)).epoch(0))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train-00001-of-00002.tfrecord"):
        taken(loader((folder, manifest)).epoch(0))


def test_a_saved_position_is_refused_where_batches_would_differ(shards):
    saved = loader(shards()).fingerprint
    loader(shards(), threads=4, replica=1, num_replicas=2).check_fingerprint(saved)
    for change, named in [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 32}, "batch_size was 16, is 32"),
        ({"crop_px": 32}, "crop_px was 40, is 32"),
        ({"crop_chunk": 32}, "crop_chunk was 1, is 32"),
        ({"window_shards": 3}, "window_shards was 2, is 3"),
        ({"lighting": "off"}, "lighting was sigma, is off"),
    ]:
        with pytest.raises(ValueError, match=named):
            loader(shards(), **change).check_fingerprint(saved)
    with pytest.raises(ValueError, match="manifest was"):
        loader(shards("parquet")).check_fingerprint(saved)
    with pytest.raises(ValueError, match=r"light was \[\], is \[\[2, 0.0\]\]"):
        loader(shards(), light=((2, 0.0),)).check_fingerprint(saved)
    loader(shards(), epochs=8).check_fingerprint(saved)


def test_a_saved_position_is_not_refused_for_the_last_bit_of_an_eigenvector(shards):
    values = np.array([900.0, 90.0, 0.0])
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    saved = loader(shards(), eigenvalues=values, eigenvectors=vectors).fingerprint
    other = np.nextafter(vectors, 2)
    other[:, 2] *= -1  # the direction of a component that is not there
    loader(shards(), eigenvalues=np.nextafter(values, 1000), eigenvectors=other).check_fingerprint(saved)
    with pytest.raises(ValueError, match="lighting_levels was"):
        loader(shards(), eigenvalues=values, eigenvectors=-vectors).check_fingerprint(saved)


def test_without_lighting_shards_crop_and_batch_size_are_enough(shards):
    folder, manifest = shards()
    spec = LoaderSpec(lighting="off", window_shards=2)
    plain = TrainLoader(folder, manifest, spec, crop_px=CROP_PX, batch_size=BATCH)
    told = loader(shards(), lighting="off")
    assert_same(taken(plain.epoch(3, 2)), taken(told.epoch(3, 2)))
    told.check_fingerprint(plain.fingerprint)


def test_wrong_settings_are_refused(shards):
    with pytest.raises(ValueError, match="lighting=sigma needs the eigenvalues and eigenvectors of the training pix"):
        loader(shards(), eigenvalues=None)
    with pytest.raises(ValueError, match="holds no images of split 'train'"):
        loader((shards()[0], replace(shards()[1], splits={})))
    with pytest.raises(ValueError, match="batch size is 0"):
        loader(shards(), batch_size=0)
    with pytest.raises(ValueError, match="step 14 of an epoch of 13 steps"):
        loader(shards()).epoch(0, start_step=14)


def test_timings_add_up(shards):
    running = loader(shards())
    started = time.perf_counter()
    for _ in running.epoch(0):
        time.sleep(0.005)
    elapsed, timings = time.perf_counter() - started, running.timings
    assert (timings.num_batches, timings.num_images) == (13, 196)
    assert 13 * 0.005 <= timings.computing_s < elapsed
    assert 0 < timings.waiting_s <= elapsed - timings.computing_s
    assert 0 < timings.reading_s + timings.decoding_s <= timings.waiting_s


def test_shards_in_an_object_store_are_read_through_the_same_code(shards, s3_folder):
    local, manifest = shards()
    remote = Folder.at(s3_folder)
    for record in manifest.records():
        remote.publish(record.name, lambda file, name=record.name: file.write(local.read(name)))
    assert_same(taken(loader((remote, manifest)).epoch(0)), taken(loader((local, manifest)).epoch(0)))


RESUME_IN_A_LARGE_EPOCH = """
import sys
from pipelines.manifest import Manifest
from test_loader import loader, Folder

def bytes_read():
    return int(open("/proc/self/io").readline().split()[1])

folder = Folder.at(sys.argv[1])
manifest = Manifest.load(folder)
next(loader((folder, manifest), batch_size=128, window_shards=1).epoch(0))  # all is imported now
before = bytes_read()
running = loader((folder, manifest), batch_size=128, epochs=90, window_shards=8)
next(running.epoch(7, start_step=running.steps_per_epoch // 2))
print(bytes_read() - before, running.num_samples)
"""


def test_resuming_in_the_middle_of_1_3_million_samples_reads_two_windows(tmp_path):
    """1,251 shards of 1,024 rows, which are names of one file; only the windows in use and next are read."""
    folder, manifest = shard_builder.write_shards(tmp_path, {"train": [1024]}, size_px=SIZE_PX)
    (first,) = read_written(folder)
    names = [f"data/train-{i:05d}-of-01251.tfrecord" for i in range(1251)]
    shards = [replace(first, name=name, first_id=1024 * i) for i, name in enumerate(names)]
    for name in names:
        os.link(tmp_path / first.name, tmp_path / name)
    write_shard_table(folder, shards)
    replace(manifest, splits={"train": tuple(shard.record for shard in shards)}).save(folder)
    num_bytes, num_samples = run_python(RESUME_IN_A_LARGE_EPOCH, str(tmp_path)).split()
    assert int(num_samples) == 1_281_024
    assert int(num_bytes) <= 2 * 8 * (tmp_path / first.name).stat().st_size * 1.01


def run_python(program: str, *arguments: str) -> str:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [here, here.parent, here.parent.parent]))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout
