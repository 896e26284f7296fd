"""Encoded bytes become squares as Pillow makes them, and nothing incomplete passes."""

import io
import struct
import tarfile
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipelines.images import decode_jpeg, encode_jpeg, scaled_geometry, to_square
from pipelines.whole import DamagedImage

MAX_PIXELS = 10_000_000


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with edges and some grain."""
    random = np.random.default_rng([seed, width, height])
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse, np.int16) + random.integers(-12, 13, (height, width, 3))
    pixels[height // 3 : height // 2, : width // 2] = 255 - pixels[height // 3 : height // 2, : width // 2]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **({"quality": 90} if format == "JPEG" else {}) | options)
    return file.getvalue()


def by_pillow(image: Image.Image, size: int) -> np.ndarray:
    """The obvious way: resize everything, then cut."""
    width, height = image.size
    scale = size / min(width, height)
    scaled = (size if width <= height else round(scale * width), size if height <= width else round(scale * height))
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    resized = image.convert("RGB").resize(scaled, Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def difference(data: bytes, size: int) -> np.ndarray:
    square = to_square(data, size, MAX_PIXELS).pixels_HWC
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    return np.abs(square.astype(int) - by_pillow(Image.open(io.BytesIO(data)), size))


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (32, 32),
        (33, 32),
        (50, 40),
        (40, 50),
        (75, 50),
        (31, 45),
        (63, 69),
        (65, 64),
        (20, 30),
        (7, 9),
        (1, 1),
        (100, 33),
    ],
)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_squares_are_those_of_pillow(width, height, subsampling):
    for size in (32, 64):
        assert difference(encoded(picture(width, height), subsampling=subsampling), size).max() <= 2


def test_every_size_near_the_target_is_resized():
    """Among them those whose needed part has as many rows as the result, which torch would copy."""
    for height in range(60, 76):
        assert difference(encoded(picture(63, height)), 64).max() <= 2
        assert difference(encoded(picture(height, 63)), 64).max() <= 2


@pytest.mark.parametrize(("width", "height"), [(256, 300), (301, 257), (700, 520), (1030, 1100)])
def test_reduced_decoding_stays_near_pillow(width, height):
    data = encoded(picture(width, height))
    apart = difference(data, 64)
    assert apart.mean() <= 1
    assert apart.max() <= 16


def test_squares_of_real_images_are_those_of_pillow(real_data):
    apart, apart_reduced = [], []
    with tarfile.open(real_data / "imagenet-sample-500.tar") as archive:
        members = [member for member in archive if member.isfile()]
        for member in members[::4]:
            data = archive.extractfile(member).read()
            is_reduced = min(Image.open(io.BytesIO(data)).size) >= 1024
            (apart_reduced if is_reduced else apart).append(difference(data, 256))
    assert len(apart) > 100
    assert max(a.max() for a in apart) <= 2
    assert max(a.mean() for a in apart) <= 0.3
    assert all(a.mean() <= 1 and a.max() <= 16 for a in apart_reduced)


@pytest.mark.parametrize("archive", ["imagenet-sample-500.tar", "tiny-imagenet-subset.tar"])
def test_nothing_real_that_pillow_accepts_is_set_aside(real_data, archive):
    """The numbers that README publishes: 0 of 500 and of 14,100."""
    refused = {}
    with tarfile.open(real_data / archive) as members:
        for member in members:
            if member.name.endswith(".JPEG"):
                data = members.extractfile(member).read()
                Image.open(io.BytesIO(data)).load()
                try:
                    to_square(data, 64, 10**8)
                except DamagedImage as error:
                    refused[member.name] = str(error)
    assert refused == {}


def test_the_square_is_central():
    assert scaled_geometry(500, 375, 256) == (341, 256, 42, 0)
    assert scaled_geometry(375, 500, 256) == (256, 341, 0, 42)
    assert scaled_geometry(100, 100, 256) == (256, 256, 0, 0)


def test_very_long_images_cost_no_more_than_their_square():
    data = encoded(picture(4, 30_000))
    assert to_square(data, 64, MAX_PIXELS).pixels_HWC.shape == (64, 64, 3)
    assert difference(encoded(picture(10, 90)), 32).max() <= 2


def test_original_size_and_format_are_told():
    assert to_square(encoded(picture(50, 40)), 32, MAX_PIXELS)[1:4] == (50, 40, "jpeg")
    assert to_square(encoded(picture(50, 40), "PNG"), 32, MAX_PIXELS)[1:4] == (50, 40, "png")


# The oddities of ImageNet and of other sources


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_is_converted(progressive):
    """Pillow writes and reads it inverted, as Adobe does."""
    data = encoded(picture(50, 40).convert("CMYK"), progressive=progressive)
    assert simplejpeg.decode_jpeg_header(data)[2] == "CMYK"
    assert difference(data, 32).max() <= 2
    assert np.abs(to_square(data, 40, MAX_PIXELS).pixels_HWC - by_pillow(picture(50, 40), 40).astype(int)).mean() < 8


def test_gray_is_replicated():
    data = encoded(picture(50, 40).convert("L"))
    pixels = to_square(data, 32, MAX_PIXELS).pixels_HWC
    assert difference(data, 32).max() <= 2
    assert (pixels == pixels[..., :1]).all()


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = to_square(encoded(picture(50, 40), exif=exif), 32, MAX_PIXELS)
    plain = to_square(encoded(picture(50, 40)), 32, MAX_PIXELS)
    assert turned[1:] == plain[1:]
    assert np.array_equal(turned.pixels_HWC, plain.pixels_HWC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(50, 40), (40, 50)])
def test_a_tiffs_orientation_is_ignored(orientation, size):
    turned = to_square(encoded(picture(*size), "TIFF", tiffinfo={0x0112: orientation}), 32, MAX_PIXELS)
    plain = to_square(encoded(picture(*size), "PNG"), 32, MAX_PIXELS)
    assert turned[1:3] == plain[1:3] == size
    assert np.array_equal(turned.pixels_HWC, plain.pixels_HWC)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_png_of_any_mode_is_read_whatever_its_name(mode):
    data = encoded(picture(50, 40).convert(mode), "PNG")
    assert difference(data, 32).max() <= 2


def test_transparency_is_dropped():
    image = picture(50, 40)
    image.putalpha(Image.linear_gradient("L").resize((50, 40)))
    opaque = to_square(encoded(picture(50, 40), "PNG"), 32, MAX_PIXELS).pixels_HWC
    assert np.array_equal(to_square(encoded(image, "PNG"), 32, MAX_PIXELS).pixels_HWC, opaque)


def test_16_bit_gray_is_scaled_to_8_bit():
    levels = np.linspace(0, 65535, 40 * 50).astype(np.uint16).reshape(40, 50)
    pixels = to_square(encoded(Image.fromarray(levels), "PNG"), 40, MAX_PIXELS).pixels_HWC
    assert np.abs(pixels[:, :, 0] - levels[:, 5:45] / 257).max() <= 1.5


@pytest.mark.parametrize("format", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_read(format):
    assert to_square(encoded(picture(50, 40), format), 32, MAX_PIXELS)[1:4] == (50, 40, format.lower())


# What must not pass


def by_component(image: Image.Image) -> bytes:
    """A JPEG with a scan for each of Y, Cb and Cr, put together from three gray ones, which use the same tables."""
    grays = [encoded(plane) for plane in image.convert("YCbCr").split()]
    frame, scan = (grays[0].index(marker) for marker in (b"\xff\xc0", b"\xff\xda"))
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    head = grays[0][: frame + 2] + b"\0\x11" + grays[0][frame + 4 : frame + 9] + b"\3" + components
    tables = grays[0][frame + 13 : scan]
    scans = [b"\xff\xda\0\x08\1" + bytes([n + 1]) + b"\0\0\x3f\0" + g[scan + 10 : -2] for n, g in enumerate(grays)]
    return head + tables + b"".join(scans) + b"\xff\xd9"


def truncated_forms() -> dict[str, bytes]:
    image = picture(50, 40)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    return {
        "baseline": encoded(image),
        "progressive": encoded(image, progressive=True),
        "gray": encoded(image.convert("L"), exif=exif),
        "restarts": encoded(image, restart_marker_blocks=2),
        "cmyk": encoded(image.convert("CMYK")),
        "cmyk progressive": encoded(image.convert("CMYK"), progressive=True),
        "a scan for each component": by_component(image),
        "png": encoded(image, "PNG"),
        "png gray": encoded(image.convert("L"), "PNG"),
        "gif": encoded(image, "GIF"),
        "bmp": encoded(image, "BMP"),
        "gif of frames": encoded(image, "GIF", save_all=True, append_images=[picture(50, 40, 1)]),
        "webp": encoded(image, "WEBP"),
    }


@pytest.mark.parametrize("form", truncated_forms())
def test_truncation_at_any_byte_is_refused(form):
    data = truncated_forms()[form]
    whole = to_square(data, 32, MAX_PIXELS)
    assert not whole.mended
    passed = []
    with warnings.catch_warnings(action="ignore"):
        for length in range(len(data)):
            try:
                square = to_square(data[:length], 32, MAX_PIXELS)
                assert np.abs(square.pixels_HWC - whole.pixels_HWC.astype(int)).max() <= 2
                assert square.mended == "a JPEG without its end marker"
                passed.append(len(data) - length)
            except DamagedImage:
                pass
    assert passed == ([2, 1] if data[:2] == b"\xff\xd8" else [])  # the end marker alone


def test_a_truncated_jpeg_does_not_pass_with_an_end_marker():
    data = encoded(picture(50, 40))
    for length in range(700, len(data) - 40, 17):
        with pytest.raises(DamagedImage):
            to_square(data[:length] + b"\xff\xd9", 32, MAX_PIXELS)


def test_a_reduced_decoding_reads_to_the_end_too():
    data = encoded(picture(600, 600))
    assert to_square(data, 32, MAX_PIXELS).width == 600
    for length in (len(data) - 3, len(data) - 4, len(data) - 100, len(data) // 2):
        with pytest.raises(DamagedImage, match="Premature end"):
            to_square(data[:length], 32, MAX_PIXELS)


@pytest.mark.parametrize("colours", ["RGB", "CMYK"])
def test_harmless_stray_bytes_are_mended(colours):
    data = encoded(picture(50, 40).convert(colours))
    whole = to_square(data, 32, MAX_PIXELS).pixels_HWC.astype(int)
    scan = data.index(b"\xff\xda")
    table = data.index(b"\xff\xdb")
    for oddity in (
        data + b"trailing garbage",
        data[:-2] + b"\x00\x00\x00" + data[-2:],
        data[:table] + b"stray" + data[table:],
        data[:scan] + b"stray" + data[scan:],
        data[:table] + b"a lot of stray bytes" + data[table:scan] + b"and more" + data[scan:-2] + b"\x00" + data[-2:],
    ):
        assert oddity != data
        assert np.abs(to_square(oddity, 32, MAX_PIXELS).pixels_HWC - whole).max() <= 2


@pytest.mark.parametrize("blanks", [b"\n", b"\r\n", b"  \t\n"])
def test_blanks_before_a_jpeg_are_mended(blanks):
    data = encoded(picture(50, 40))
    whole, mended = to_square(data, 32, MAX_PIXELS), to_square(blanks + data, 32, MAX_PIXELS)
    assert np.array_equal(mended.pixels_HWC, whole.pixels_HWC)
    assert mended.mended == "a JPEG with blanks before its start"
    with pytest.raises(DamagedImage):
        to_square(blanks + data[:-20], 32, MAX_PIXELS)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("more", [b"more", b"\n", b"\0\0;"])
def test_bytes_behind_a_gif_are_told(frames, more):
    others = [picture(50, 40, seed) for seed in range(1, frames)]
    data = encoded(picture(50, 40), "GIF", save_all=True, append_images=others)
    whole, mended = to_square(data, 32, MAX_PIXELS), to_square(data + more, 32, MAX_PIXELS)
    assert np.array_equal(mended.pixels_HWC, whole.pixels_HWC)
    assert mended.mended == "a GIF with bytes behind its end"
    for harmless in (data + b"\0\0", data[:-1] + b"\0;"):  # padding, and an end of blocks too many
        assert not to_square(harmless, 32, MAX_PIXELS).mended


def test_a_cut_gif_does_not_pass_with_the_sign_of_an_end():
    data = encoded(picture(50, 40), "GIF")
    for length in range(30, len(data) - 2, 7):
        with pytest.raises(DamagedImage):
            to_square(data[:length] + b";", 32, MAX_PIXELS)


def test_picture_left_over_at_the_end_is_damage():
    data = encoded(picture(50, 40))
    with pytest.raises(DamagedImage, match="extraneous bytes"):
        to_square(data[:-2] + bytes(range(1, 60)) + data[-2:], 32, MAX_PIXELS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff\xd8", None),
        (b"<html>not an image</html>", "a web page, not the image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), None),
        (b"\xff\xd8\xff\xe0" + bytes(100), None),
    ],
)
def test_what_is_no_image_is_refused_with_the_same_reason_each_time(data, reason):
    with pytest.raises(DamagedImage, match=reason) as first:
        to_square(data, 32, MAX_PIXELS)
    with pytest.raises(DamagedImage) as second:
        to_square(data, 32, MAX_PIXELS)
    assert str(first.value) == str(second.value)
    assert "object at 0x" not in str(first.value)


def test_a_jpeg_whose_header_cannot_be_told_is_refused_in_words():
    """Cut before its tables, or with colours sampled by 1 x 4."""
    data = encoded(picture(16, 16))
    sampling = data.index(b"\xff\xc0") + 11
    for odd in (data[: data.index(b"\xff\xc4")], data[:sampling] + b"\x14" + data[sampling + 1 :]):
        with pytest.raises(DamagedImage, match="^the JPEG ends in its header, or samples its colours in a way not"):
            to_square(odd, 32, MAX_PIXELS)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_enormous_images_are_refused_before_they_are_decoded(format, monkeypatch):
    data = encoded(picture(300, 200), format)

    def decode(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(DamagedImage, match="300 x 200 px are more than ingest.max_pixels=59999"):
        to_square(data, 32, 59_999)


def test_a_png_that_unpacks_to_gigabytes_is_refused():
    data = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(DamagedImage, match="60000 x 60000"):
        to_square(bytes(data), 32, 100_000_000)


def test_stored_jpegs_decode_to_nearly_the_same():
    pixels = to_square(encoded(picture(300, 200)), 64, MAX_PIXELS).pixels_HWC
    data = encode_jpeg(pixels, 95)
    assert simplejpeg.decode_jpeg_header(data) == (64, 64, "YCbCr", "420")
    assert np.abs(decode_jpeg(data) - pixels.astype(int)).mean() < 6
    with pytest.raises(ValueError, match="Premature end"):
        decode_jpeg(data[:-2])
