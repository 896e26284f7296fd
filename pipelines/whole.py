"""Whether an encoded image is complete: decoders alone let some truncated files pass.

What is odd but lacks nothing of the picture is mended and told: stray bytes in a JPEG, a JPEG without its end marker,
bytes behind the end of a GIF.
"""

import io
import re
from collections.abc import Iterator

import simplejpeg

FOUR_INKS = ("CMYK", "YCCK")
_MAX_PADDING_BYTES = 16
_JPEG_END = b"\xff\xd9"
_PNG_END = b"IEND\xae\x42\x60\x82"  # the last chunk and its CRC
_SCAN, _FRAMES = 0xDA, (0xC0, 0xC1, 0xC2)  # markers of JPEG
_ALONE = (0x00, 0xFF, *range(0xD0, 0xD8))  # behind 0xff, what begins no segment


class DamagedImage(ValueError):
    """These bytes are no complete image that can be stored; the text is the reason, the same on every run."""


def whole_file(data: bytes, format: str) -> tuple[bytes, str]:
    """The same image, known to be complete, and what was odd in it; DamagedImage where something is missing."""
    from PIL import Image

    if format == "jpeg":
        return _whole_jpeg(data)
    if format == "gif":
        return data, _oddity_of_gif(data)
    if format == "png":
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()  # the chunks and their CRCs, but for the last
        if _PNG_END not in data:
            raise DamagedImage("the PNG has no end")
    if format == "bmp" and len(data) < int.from_bytes(data[2:6], "little"):
        raise DamagedImage("the BMP is shorter than it says")
    return data, ""


def _whole_jpeg(data: bytes) -> tuple[bytes, str]:
    """The JPEG without stray bytes and with its end, once libjpeg decodes that without a warning.

    libjpeg tells its first warning only, so that nothing but a decoding without any proves that no data are lost.
    """
    complaint = _complaint(data)
    if complaint is None:
        return data, ""
    tidy = _tidy_header(data)
    said = _complaint(tidy) or ""
    if "Premature end of JPEG file" in said and _has_all_scans(tidy):
        ended = tidy.removesuffix(b"\xff") + _JPEG_END
        if _complaint(ended) is None:
            return ended, "a JPEG without its end marker"
    tidy = _tidy_end(tidy, said)
    if _complaint(tidy) is not None:
        raise DamagedImage(complaint)
    return tidy, "a JPEG with stray bytes"


def _complaint(data: bytes) -> str | None:
    """What libjpeg says first of this JPEG, reading all of it; None where it has nothing to say.

    DamagedImage where not even its header can be told.
    """
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        native = "CMYK" if colours in FOUR_INKS else "RGB"
        simplejpeg.decode_jpeg(data, colorspace=native, min_factor=8)
    except KeyError as error:  # simplejpeg has no name for the sampling
        raise DamagedImage("the JPEG ends in its header, or samples its colours in a way not read here") from error
    except ValueError as error:
        return str(error)
    return None


def _tidy_header(data: bytes) -> bytes:
    """Without bytes between the segments before the first scan."""
    segments, position = [data[:2]], 2
    while (start := data.find(b"\xff", position)) >= 0:
        marker, length = data[start + 1 : start + 2], int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == b"\xda":
            return b"".join(segments) + data[start:]
        position = start + 1 if marker in (b"\x00", b"\xff") else start + 2 + length
        segments.append(data[start:position] if position > start + 1 else b"")
    return data


def _tidy_end(data: bytes, complaint: str) -> bytes:
    """Without a little padding before the end marker.

    More of it is usually picture, left over because something before it is corrupt.
    """
    match = re.search(r"(\d+) extraneous bytes before marker 0xd9", complaint)
    if not match or int(match[1]) > _MAX_PADDING_BYTES:
        return data
    end = data.rfind(_JPEG_END)
    return data[: end - int(match[1])] + data[end:]


def _has_all_scans(data: bytes) -> bool:
    """Whether there are scans for the last bit of every coefficient of every component.

    A JPEG that was cut between two of its scans is one of lower quality to libjpeg, or one without colours.
    """
    missing: dict[int, set[int]] = {}  # of each component, the coefficients
    for marker, body in _segments(data):
        if marker in _FRAMES:
            missing = {component: set(range(64)) for component in body[6::3]}
        elif marker == _SCAN and len(body) >= 4 and body[-1] & 15 == 0:  # bits that are left for later scans
            for component in body[1 : 1 + 2 * body[0] : 2]:
                missing.get(component, set()).difference_update(range(body[-3], body[-2] + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments of a JPEG."""
    position = 2
    while 0 <= (position := data.find(b"\xff", position)) < len(data) - 3:
        marker = data[position + 1]
        length = 0 if marker in _ALONE else int.from_bytes(data[position + 2 : position + 4], "big")
        if length:
            yield marker, data[position + 4 : position + 2 + length]
        position += 1 if marker == 0xFF else 2 + length


def _oddity_of_gif(data: bytes) -> str:
    """Empty where nothing is odd; DamagedImage where the GIF has no end."""
    try:
        end = _end_of_gif(data)
    except IndexError as error:
        raise DamagedImage("the GIF has no end") from error
    return "a GIF with bytes behind its end" if data[end:].strip(b"\0") else ""


def _end_of_gif(data: bytes) -> int:
    """The place behind the mark that ends a GIF; IndexError where it is not reached."""
    position = 13 + _size_of_colours(data[10])
    while (kind := data[position]) != 0x3B:
        if kind == 0x21:  # an extension
            position = _behind_blocks(data, position + 2)
        elif kind == 0x2C:  # a frame
            position = _behind_blocks(data, position + 11 + _size_of_colours(data[position + 9]))
        elif kind == 0:  # an end of blocks too many
            position += 1
        else:
            raise IndexError
    return position + 1


def _size_of_colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: bytes, position: int) -> int:
    while data[position]:
        position += 1 + data[position]
    return position + 1
