import numpy as np
import pixel_reference
import pytest
import shard_builder
import torch

from pipelines.augment import Parameters
from pipelines.decode import MAX_UNDER_WAY, Decoder, UndecodableImage

SIZE_PX, CROP_PX = 48, 40


def images(encoding: str, count: int = 8) -> list[np.ndarray]:
    stored = [np.frombuffer(shard_builder.stored(seed, SIZE_PX, encoding), np.uint8) for seed in range(count)]
    return stored if encoding == "jpeg" else [image.reshape(SIZE_PX, SIZE_PX, 3) for image in stored]


def parameters(count: int, size_px=SIZE_PX, crop_px=CROP_PX, seed=0) -> Parameters:
    random = np.random.default_rng(seed)
    y_B, x_B = random.integers(0, size_px - crop_px + 1, (2, count))
    mirror_B = random.integers(0, 2, count).astype(np.int32)
    return Parameters(y_B, x_B, mirror_B, np.zeros((count, 3), np.float32))


def decoder(encoding: str, size_px=SIZE_PX, crop_px=CROP_PX, device="cpu") -> Decoder:
    return Decoder(encoding, size_px, crop_px, max_images=256, threads=2, device=device)


def decode(decoder: Decoder, images: list[np.ndarray], drawn: Parameters) -> np.ndarray:
    decoder.start(images, drawn)
    return decoder.finish().cpu().numpy()


def reference(images: list[np.ndarray], drawn: Parameters, crop_px=CROP_PX) -> np.ndarray:
    return np.stack(
        [pixel_reference.augmented(*values, crop_px=crop_px) for values in zip(images, *drawn, strict=True)]
    )


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_dali_equals_the_numpy_twin_for_200_samples(encoding):
    stored = images(encoding, 200)
    drawn = parameters(200)
    ours = decode(decoder(encoding), stored, drawn)
    assert ours.shape == (200, 3, CROP_PX, CROP_PX)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, reference(stored, drawn))


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize(("size_px", "crop_px"), [(256, 224), (32, 24), (37, 30), (24, 24)])
def test_every_offset_reaches_its_pixels(encoding, size_px, crop_px):
    """Offsets travel as fractions of float32; and decoding a region equals decoding everything, then cutting."""
    stored = np.frombuffer(shard_builder.stored(0, size_px, encoding), np.uint8)
    stored = stored if encoding == "jpeg" else stored.reshape(size_px, size_px, 3)
    offsets = np.arange(size_px - crop_px + 1)
    count = len(offsets)
    for y_B, x_B in [(offsets, offsets[::-1]), (offsets, np.zeros_like(offsets))]:
        drawn = Parameters(y_B, x_B, np.zeros(count, np.int32), np.zeros((count, 3), np.float32))
        ours = decode(decoder(encoding, size_px, crop_px), [stored] * count, drawn)
        assert (ours == reference([stored] * count, drawn, crop_px)).all()


def test_real_photographs_equal_the_twin(real_data):
    import tarfile

    from pipelines.images import encode_jpeg, to_square

    with tarfile.open(real_data / "imagenet-sample-500.tar") as archive:
        files = [archive.extractfile(member).read() for member in archive if member.isfile()][:60]
    stored = [np.frombuffer(encode_jpeg(to_square(data, 256, 10**8).pixels_HWC, 95), np.uint8) for data in files]
    drawn = parameters(60, 256, 224)
    np.testing.assert_array_equal(decode(decoder("jpeg", 256, 224), stored, drawn), reference(stored, drawn, 224))


def test_what_was_handed_out_stays_as_it_was():
    stored, running, handed_out = images("jpeg"), decoder("jpeg"), []
    for step in range(12):
        running.start(stored, parameters(8, seed=step))
        if step >= MAX_UNDER_WAY - 1:
            handed_out.append(running.finish())
    for step, images_BCHW in enumerate(handed_out):
        np.testing.assert_array_equal(images_BCHW.numpy(), reference(stored, parameters(8, seed=step)))


def test_an_image_that_cannot_be_decoded_is_named_and_the_next_run_works():
    stored, running = images("jpeg"), decoder("jpeg")
    damaged = [*stored[:5], stored[5][: len(stored[5]) // 2], *stored[6:]]
    running.start(damaged, parameters(8))
    running.start(stored, parameters(8, seed=1))
    with pytest.raises(UndecodableImage, match=r"(?i)premature|corrupt|truncated") as caught:
        running.finish()
    assert caught.value.index == 5
    np.testing.assert_array_equal(decode(running, stored, parameters(8)), reference(stored, parameters(8)))


def test_a_new_pass_forgets_what_the_last_one_left_under_way():
    stored, running = images("jpeg"), decoder("jpeg")
    running.start(stored, parameters(8, seed=1))
    running.start([stored[0][:50]], parameters(1))
    running.begin()
    np.testing.assert_array_equal(decode(running, stored, parameters(8)), reference(stored, parameters(8)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_s_engine_differs_from_the_cpu_by_less_than_a_grey_level():
    stored, drawn = images("jpeg", 200), parameters(200)
    on_gpu, on_cpu = (decode(decoder("jpeg", device=device), stored, drawn).astype(int) for device in ("cuda", "cpu"))
    assert abs(on_gpu - on_cpu).mean() < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_raw_pixels_are_the_same_on_a_gpu():
    stored, drawn = images("raw", 200), parameters(200)
    assert (decode(decoder("raw", device="cuda"), stored, drawn) == reference(stored, drawn)).all()


def test_an_image_decodes_to_the_same_wherever_it_stands_in_a_run(device):
    """Alone, first and last of 256, and in the middle of a run of another length."""
    stored = images("jpeg", 256)
    one, drawn = stored[3], parameters(1)
    repeated = Parameters(*(np.repeat(column, 256, axis=0) for column in drawn))
    alone = decode(decoder("jpeg", device=device), [one], drawn)[0]
    for places, count in (((0, 255), 256), ((40, 99), 100)):
        run = [one if place in places else stored[place] for place in range(count)]
        found = decode(decoder("jpeg", device=device), run, Parameters(*(column[:count] for column in repeated)))
        assert all((found[place] == alone).all() for place in places)


def test_work_beside_it_changes_no_pixel(device):
    """On a GPU: nothing is cut from what the engine has yet to write, however long other work holds the card."""
    stored, drawn = images("jpeg", 256), parameters(256)
    running, busy = decoder("jpeg", device=device), torch.rand((8192 if device == "cuda" else 64,) * 2, device=device)
    expected = decode(running, stored, drawn)
    for _ in range(10):
        for _ in range(MAX_UNDER_WAY):
            running.start(stored, drawn)
        for _ in range(MAX_UNDER_WAY):
            busy = torch.softmax(busy @ busy, dim=0)
            assert (running.finish().cpu().numpy() == expected).all()
