"""Images as byte ranges: members of archives, or whole files in folders. Read in place, nothing is extracted."""

import gzip
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.contents import Identity
from pipelines.storage import FileEntry, Folder

T = TypeVar("T")
Q = TypeVar("Q")
_OPEN_FILES = 64  # archives that one reader keeps open
_FEW_FILES = 16
_REQUESTS = 8  # in flight to an object store, where each waits for the network
_RUN_BYTES = 8 << 20  # of neighbours that one request reads
_HOLE_BYTES = 4096  # between two members of a run: a header and what fills its block
_BEHIND_BYTES = 1024  # a member of a zip has its header and name before the content


class _Range(NamedTuple):
    """One image: the bytes [offset, offset + size) of an archive."""

    archive: str
    offset: int
    size: int


@dataclass(frozen=True)
class ArchiveReader:
    """A row's `file` is an archive in `folder`; its image is the bytes [offset, offset + size).

    In an object store neighbours are read with one request, as long as they are asked for in the archive's order.
    """

    folder: Folder

    def blocks(self, rows: pa.Table) -> np.ndarray | None:
        if self.folder.is_local:
            return None
        file, offset = rows["file"].combine_chunks(), rows["offset"].to_numpy()
        per_file = int(offset.max(initial=0)) // _RUN_BYTES + 1
        return file.indices.to_numpy().astype(np.int64) * per_file + offset // _RUN_BYTES

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        columns = (rows[name].to_pylist() for name in ("file", "offset", "size"))
        ranges = map(_Range, *columns)
        return map(_unzipped, self._read_local(ranges) if self.folder.is_local else self._read_remote(ranges))

    def files(self, rows: pa.Table) -> Iterator[tuple[str, list[Identity]]]:
        return identities(self.folder, archives(rows))

    def _read_remote(self, ranges: Iterable[_Range]) -> Iterator[bytes]:
        open_once = _once(self.folder.open)  # opening asks the store for the size; open files hold no connection

        def read(run: list[_Range]) -> list[bytes]:
            start, end = run[0].offset, run[-1].offset + run[-1].size + _BEHIND_BYTES
            file = open_once(run[0].archive)
            data = memoryview(file.read_at(end - start, start))

            def read_at(size: int, offset: int) -> bytes:
                inside = offset + size <= end
                return bytes(data[offset - start : offset - start + size]) if inside else file.read_at(size, offset)

            return [self.content(read_at, *member) for member in run]

        return chain.from_iterable(_ahead(read, _runs(ranges)))

    def _read_local(self, ranges: Iterable[_Range]) -> Iterator[bytes]:
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

    def files(self, rows: pa.Table) -> Iterator[tuple[str, Iterable[Identity]]]:
        """On a disk each file is looked at, not read. A store would have to list all: there sizes are compared only."""
        for name in archives(rows) if self.folder.is_local else ():
            place = self.folder.child(name) if name else self.folder
            keys = rows.filter(pc.equal(rows["file"].cast(pa.string()), name))["key"]
            paths = chain.from_iterable(chunk.to_pylist() for chunk in keys.iterchunks())
            yield place.where(), (place.identity(FileEntry(path, 0, 0)) for path in paths)

    def read(self, rows: pa.Table) -> Iterator[bytes]:
        columns = zip(*(rows[name].to_pylist() for name in ("file", "key", "size")), strict=True)
        files = ((f"{folder}/{key}" if folder else key, size) for folder, key, size in columns)
        read = self._read_as_listed
        return map(_unzipped, map(read, files) if self.folder.is_local else _ahead(read, files))

    def _read_as_listed(self, file: tuple[str, int]) -> bytes:
        name, size = file
        data = self.folder.read(name)
        if len(data) != size:
            raise ValueError(
                f"{self.folder.where(name)} has {len(data):,} bytes and had {size:,} when it was listed: it was "
                "replaced meanwhile; run it again"
            )
        return data


def archives(rows: pa.Table) -> list[str]:
    return rows["file"].unique().to_pylist()


def identities(folder: Folder, names: Sequence[str]) -> Iterator[tuple[str, list[Identity]]]:
    """These files of a folder, as they are now; many are listed, not asked for one by one."""
    if len(names) > _FEW_FILES:
        around = {name.rpartition("/")[0] for name in names}
        places = [(f"{place}/", folder.child(place)) if place else ("", folder) for place in around]
        listed = {prefix + file.name: file for prefix, place in places for file in place.files()}
        entries = {name: listed[name]._replace(name=name) for name in names if name in listed}
    else:
        entries = {name: entry for name in names if (entry := folder.entry(name))}
    for name, entry in entries.items():
        yield folder.where(name), [folder.identity(entry)]


def _unzipped(data: bytes) -> bytes:
    """Some images in the ILSVRC-2010 archives are compressed with gzip, under their plain names."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data  # damaged: whoever decodes it says so


def _runs(ranges: Iterable[_Range]) -> Iterator[list[_Range]]:
    """Cut into runs of neighbours, of _RUN_BYTES at most unless one image is larger."""
    run: list[_Range] = []
    for member in ranges:
        if run and not _continues(run, member):
            yield run
            run = []
        run.append(member)
    if run:
        yield run


def _continues(run: list[_Range], member: _Range) -> bool:
    archive, offset, size = run[-1]
    hole = member.offset - offset - size
    bytes_with_it = member.offset + member.size - run[0].offset
    return member.archive == archive and 0 <= hole <= _HOLE_BYTES and bytes_with_it <= _RUN_BYTES


def _once(function: Callable[[str], T]) -> Callable[[str], T]:
    """The function, called once for each name, whichever threads ask."""
    lock, found = threading.Lock(), dict[str, T]()

    def asked(name: str) -> T:
        with lock:
            if name not in found:
                found[name] = function(name)
            return found[name]

    return asked


def _ahead(read: Callable[[Q], T], requests: Iterable[Q]) -> Iterator[T]:
    """`read` of each request in order, several at a time."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        waiting = deque[Future[T]]()
        for request in requests:
            waiting.append(pool.submit(read, request))
            if len(waiting) == _REQUESTS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
