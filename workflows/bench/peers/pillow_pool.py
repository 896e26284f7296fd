"""What one writes first: a process pool with Pillow, one JPEG a file in and out."""

import io
from pathlib import Path

from PIL import Image

from pipelines.sources.source import Source

SIZE_PX, QUALITY = 256, 95


def write_files(source: Source, folder: Path) -> list[str]:
    """The source's distinct images as files (for the peers, which read no archives), listed as often as it has them."""
    folder.mkdir()
    rows = source.splits["train"]
    keys = rows["key"].to_pylist()
    first = rows.slice(0, len(set(keys)))
    files: dict[str, str] = {}
    for number, (key, data) in enumerate(zip(first["key"].to_pylist(), source.reader.read(first), strict=True)):
        files[key] = str(folder / f"{number:06d}.jpg")
        Path(files[key]).write_bytes(data)
    return [files[key] for key in keys]


def prepare(folder: Path, paths: list[str]) -> None:
    """A task: decode, shorter side to 256 px, central square, JPEG."""
    folder.mkdir(exist_ok=True)
    for path in paths:
        (folder / Path(path).name).write_bytes(squared(Image.open(path).convert("RGB")))


def squared(image: Image.Image) -> bytes:
    """The central square as JPEG, the shorter side scaled to 256 px with Pillow's antialiased triangle."""
    scale = SIZE_PX / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    x, y = (image.width - SIZE_PX) // 2, (image.height - SIZE_PX) // 2
    encoded = io.BytesIO()
    image.crop((x, y, x + SIZE_PX, y + SIZE_PX)).save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()
