"""Images as byte ranges: members of archives, or whole files in folders. Read in place, nothing is extracted."""

import gzip
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.storage import Folder

_OPEN_FILES = 64  # archives that one reader keeps open
_REQUESTS = 16  # requests in flight to an object store, where each waits for the network


@dataclass(frozen=True)
class ArchiveReader:
    """A row's `file` is an archive in `folder`; its image is the bytes [offset, offset + size)."""

    folder: Folder

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        ranges = zip(rows["file"].to_pylist(), rows["offset"].to_pylist(), rows["size"].to_pylist(), strict=True)
        return map(_unzipped, self._read_local(ranges) if self.folder.is_local else self._read_remote(ranges))

    def _read_remote(self, ranges) -> Iterator[bytes]:
        files: dict[str, Any] = {}  # opening asks the store for the size; these hold no connection

        def read(name: str, offset: int, size: int) -> bytes:
            file = files.get(name) or files.setdefault(name, self.folder.open(name))
            return self.content(file.read_at, name, offset, size)

        return _ahead(lambda where: read(*where), ranges)

    def _read_local(self, ranges) -> Iterator[bytes]:
        files = OrderedDict[str, pa.NativeFile]()  # least recently used first
        try:
            for name, offset, size in ranges:
                if name not in files and len(files) == _OPEN_FILES:
                    files.popitem(last=False)[1].close()
                file = files[name] = files.pop(name, None) or self.folder.open(name)
                yield self.content(file.read_at, name, offset, size)
        finally:
            for file in files.values():
                file.close()

    def content(self, read_at: Callable[[int, int], bytes], name: str, offset: int, size: int) -> bytes:
        """The image of one row, from a function of size and offset that reads its archive."""
        return self.whole(read_at(size, offset), name, offset, size)

    def whole(self, data: bytes, name: str, offset: int, size: int) -> bytes:
        if len(data) != size:
            raise ValueError(f"{self.folder.where(name)} ends inside the image at offset {offset} ({size} bytes)")
        return data


@dataclass(frozen=True)
class FileReader:
    """A row's `file` is a folder within `folder`, its key the path from there to one image."""

    folder: Folder

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        paths = (
            f"{folder}/{key}" if folder else key
            for folder, key in zip(rows["file"].to_pylist(), rows["key"].to_pylist(), strict=True)
        )
        return map(self.folder.read, paths) if self.folder.is_local else _ahead(self.folder.read, paths)


def _unzipped(data: bytes) -> bytes:
    """Some images in the ILSVRC-2010 archives are compressed with gzip, under their plain names."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data  # damaged: whoever decodes it says so


def _ahead(read, requests) -> Iterator[bytes]:
    """`read` of each request in order, several at a time."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        waiting = deque[Future[bytes]]()
        for request in requests:
            waiting.append(pool.submit(read, request))
            if len(waiting) == _REQUESTS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
