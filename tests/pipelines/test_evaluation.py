import numpy as np
import pytest
import shard_builder
import torch
from pixel_reference import decoded

from pipelines.batches import Batch
from pipelines.evaluation import CentreCrops, eval_batches, stored_ids, ten_views
from pipelines.shards import read_shard

SIZE_PX, CROP_PX = 48, 40
QUARANTINED = (3, 40, 41)


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def shards(request, tmp_path_factory):
    return shard_builder.write_shards(
        tmp_path_factory.mktemp(request.param),
        {"val": [40, 0, 33, 12]},
        encoding=request.param,
        size_px=SIZE_PX,
        quarantined=QUARANTINED,
    )


def batches(shards, split="val", batch_size=16, threads=2, **arguments):
    return list(eval_batches(*shards, split, crop_px=CROP_PX, batch_size=batch_size, threads=threads, **arguments))


def pixels(shards, id: int) -> np.ndarray:
    encoding = shards[1].encoding
    stored = np.frombuffer(shard_builder.stored(id, SIZE_PX, encoding), np.uint8)
    return decoded(stored if encoding == "jpeg" else stored.reshape(SIZE_PX, SIZE_PX, 3)).transpose(2, 0, 1)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7, 100])
def test_every_sample_comes_once_for_any_number_of_workers(shards, num_workers):
    """82 samples: of 100 workers some get none."""
    taken = [
        batch for worker in range(num_workers) for batch in batches(shards, worker=worker, num_workers=num_workers)
    ]
    ids = np.concatenate([batch.ids_B for batch in taken])
    assert ids.tolist() == [i for i in range(85) if i not in QUARANTINED]
    assert ids.tolist() == np.concatenate([stored_ids(record) for record in shards[1].splits["val"]]).tolist()
    assert (np.concatenate([batch.labels_B for batch in taken]) == ids % 3).all()
    assert all(0 < len(batch.ids_B) <= 16 for batch in taken)


def test_one_view_is_the_central_crop(shards):
    for batch in batches(shards):
        for image_CHW, id in zip(batch.images_BCHW.numpy(), batch.ids_B, strict=True):
            assert (image_CHW == pixels(shards, int(id))[:, 4:44, 4:44]).all()


def test_ten_views_are_corners_and_centre_then_their_mirrors(shards):
    for batch in batches(shards, views=10):
        assert batch.images_BCHW.shape[1:] == (10, 3, CROP_PX, CROP_PX)
        for views_VCHW, id in zip(batch.images_BCHW.numpy(), batch.ids_B, strict=True):
            whole = pixels(shards, int(id))
            for view, (y, x) in enumerate([(0, 0), (0, 8), (4, 4), (8, 0), (8, 8)]):
                crop = whole[:, y : y + CROP_PX, x : x + CROP_PX]
                assert (views_VCHW[view] == crop).all()
                assert (views_VCHW[view + 5] == crop[:, :, ::-1]).all()


def test_views_at_the_papers_sizes():
    image = torch.arange(256 * 256, dtype=torch.float32).reshape(1, 1, 256, 256)
    corners = ten_views(image, 224)[0, :5, 0, 0, 0].long()
    assert [(int(c) // 256, int(c) % 256) for c in corners] == [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]


def test_a_split_without_images_gives_no_batch(shards):
    assert batches(shards, split="test") == []


def test_centre_crops_of_one_shard_after_the_other_are_those_of_the_split(shards):
    folder, manifest = shards
    crops = CentreCrops(manifest.encoding, SIZE_PX, CROP_PX, batch_size=16, threads=2)
    records = manifest.splits["val"]
    found = [batch for record in records for batch in crops.of_shard(folder, record, read_shard(folder, record))]
    assert [len(batch.ids_B) for batch in found] == [16, 16, 7, 16, 15, 12]
    for name in Batch._fields:
        parts = [np.concatenate([np.asarray(getattr(b, name)) for b in taken]) for taken in (found, batches(shards))]
        assert (parts[0] == parts[1]).all()
