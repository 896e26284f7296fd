import numpy as np
import pytest
import shard_builder
import torch
from pixel_reference import decoded, views_one_by_one

from pipelines.evaluation import CentreCrops, eval_batches, stored_ids
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


@pytest.fixture(scope="module")
def whole_CHW(shards, device) -> dict[int, np.ndarray]:
    """The whole images by id; JPEGs as the device itself decodes them, which on a GPU is its own reference."""
    encoding = shards[1].encoding
    if encoding == "jpeg" and device == "cuda":
        alone = eval_batches(*shards, "val", crop_px=SIZE_PX, batch_size=1, threads=1, device=device)
        return {int(batch.ids_B[0]): batch.images_BCHW[0].cpu().numpy() for batch in alone}
    found = {}
    for id in (int(id) for record in shards[1].splits["val"] for id in stored_ids(record)):
        stored = np.frombuffer(shard_builder.stored(id, SIZE_PX, encoding), np.uint8)
        image = decoded(stored if encoding == "jpeg" else stored.reshape(SIZE_PX, SIZE_PX, 3))
        found[id] = image.transpose(2, 0, 1)
    return found


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7, 100])
def test_every_sample_comes_once_for_any_number_of_workers(shards, num_workers, device):
    """82 samples: of 100 workers some get none."""
    taken = [
        batch
        for worker in range(num_workers)
        for batch in batches(shards, device=device, worker=worker, num_workers=num_workers)
    ]
    ids = np.concatenate([batch.ids_B for batch in taken])
    assert ids.tolist() == [i for i in range(85) if i not in QUARANTINED]
    assert ids.tolist() == np.concatenate([stored_ids(record) for record in shards[1].splits["val"]]).tolist()
    assert (np.concatenate([batch.labels_B.cpu() for batch in taken]) == ids % 3).all()
    assert all(0 < len(batch.ids_B) <= 16 for batch in taken)


def test_two_parts_of_each_batch_are_the_batch(shards, device):
    """82 samples in batches of 9: the last one has a row, and its second part none."""
    whole = batches(shards, device=device, batch_size=9)
    halves = zip(
        *(batches(shards, device=device, batch_size=9, part=part, num_parts=2) for part in range(2)), strict=True
    )
    for batch, (first, second) in zip(whole, halves, strict=True):
        assert torch.equal(batch.crops_BCHW, torch.cat([first.crops_BCHW, second.crops_BCHW]))
        assert batch.ids_B.tolist() == [*first.ids_B, *second.ids_B]
    assert abs(len(first.ids_B) - len(second.ids_B)) == 1


def test_one_view_is_the_central_crop(shards, whole_CHW, device):
    for batch in batches(shards, device=device):
        for image_CHW, id in zip(batch.images_BCHW.cpu().numpy(), batch.ids_B, strict=True):
            assert (image_CHW == whole_CHW[int(id)][:, 4:44, 4:44]).all()


@pytest.mark.parametrize("kind", ["ten", "nine"])
def test_all_views_of_an_image_are_cut_from_what_was_decoded_once(kind, shards, whole_CHW, device):
    for batch in batches(shards, device=device, views=kind):
        for views_VCHW, id in zip(batch.images_BCHW.cpu().numpy(), batch.ids_B, strict=True):
            np.testing.assert_array_equal(views_VCHW, views_one_by_one(whole_CHW[int(id)], CROP_PX, kind))


def test_an_image_as_large_as_the_input_is_looked_at_once_and_for_the_ten_mirrored_too(shards, whole_CHW, device):
    for kind, count in (("ten", 2), ("nine", 1)):
        (batch, *_) = eval_batches(*shards, "val", crop_px=SIZE_PX, batch_size=4, threads=1, views=kind, device=device)
        assert batch.images_BCHW.shape == (4, count, 3, SIZE_PX, SIZE_PX)
        whole = whole_CHW[int(batch.ids_B[0])]
        for view_CHW, expected in zip(batch.images_BCHW[0].cpu().numpy(), (whole, whole[:, :, ::-1]), strict=False):
            np.testing.assert_array_equal(view_CHW, expected)


def test_a_split_without_images_gives_no_batch(shards):
    assert batches(shards, split="test") == []


def test_centre_crops_of_one_shard_after_the_other_are_those_of_the_split(shards, device):
    folder, manifest = shards
    crops = CentreCrops(manifest.encoding, SIZE_PX, CROP_PX, batch_size=16, threads=2, device=device)
    records = manifest.splits["val"]
    found = [batch for record in records for batch in crops.of_shard(folder, record, read_shard(folder, record))]
    assert [len(batch.ids_B) for batch in found] == [16, 16, 7, 16, 15, 12]
    for name in ("crops_BCHW", "labels_B", "ids_B"):
        parts = [
            np.concatenate([torch.as_tensor(getattr(b, name)).cpu() for b in taken])
            for taken in (found, batches(shards, device=device))
        ]
        assert (parts[0] == parts[1]).all()
