"""An index of a tar archive, or of a tar of tars, made by reading headers only: member, offset, size.

The headers are parsed here rather than by `tarfile`, which spends some 50 us and 1 kB on a member, and ImageNet has 1.3
to 15 million. Understands ustar, GNU (long names, binary sizes) and pax; anything else, such as a truncated archive, is
an error that names the offset. So is an end mark in the middle, at which other readers stop without a word.
"""

import posixpath
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.cache import Indexes, InTasks
from pipelines.sources.compressed import refuse_compressed
from pipelines.sources.members import names_array, require_unique, table_of_members, with_empty_folders
from pipelines.storage import Folder

_BLOCK = 512
_FAR_BYTES, _NEAR_BYTES, _REMOTE_BYTES = 4096, 1 << 20, 8 << 20  # read at once: after a long step, after short ones
_NEAR = 1 << 15  # a step of at most so many bytes is short; by network one that a request spans
_ZEROS = bytes(_BLOCK)
_END_BYTES = 22 * _BLOCK  # at most: the mark, and what fills a record of 20 blocks
_FILE, _LONG_NAME, _LONG_LINK, _PAX, _NO_CONTENT, _SKIPPED = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"123456", b"gVM"
_HARD_LINK, _LINK, _FOLDER = b"1", b"2", b"5"
_NO_LINKS = "pack the files themselves (tar --dereference --hard-dereference)"
_DANGLING = b"dangling"  # in the schema's metadata: links that lead to no file, a line each


class _Part(NamedTuple):
    """A tar in the archive: where it begins and ends, and what its paths begin with."""

    start: int
    end: int
    prefix: bytes


class _Listed(NamedTuple):
    """What headers of the archive, or of a part, say."""

    start: int
    index: pa.Table
    links: dict[bytes, bytes]
    folders: list[bytes]
    inner: list[_Part]


def open_index(folder: Folder, name: str, cache: Indexes) -> pa.Table:
    """Columns path, offset, size of every regular file, in archive order; a tar inside is entered, not listed.

    Links come after them, each with the offset and size of the file that it leads to.
    """
    entry = folder.entry(name)
    mapped = cache.mapped(entry.size if entry else 0)
    return cache.table(["tar with folders"], folder, [entry], lambda: index_tar(folder, name, mapped))


def index_tar(folder: Folder, name: str, mapped: InTasks = map) -> pa.Table:
    """The index; tars in the archive are gone through by a mapped function, in any order."""
    whole = _list_part(folder, name)
    parts = sorted([whole, *mapped(partial(_list_part, folder, name), whole.inner)], key=lambda part: part.start)
    index, where = pa.concat_tables([part.index for part in parts]), folder.where(name)
    links = {path: target for part in parts for path, target in part.links.items()}
    if whole.inner:
        index = index.sort_by("offset")
        if whole.index.num_rows or len({part.prefix for part in whole.inner}) < len(whole.inner):
            require_unique(index, where)
    if links:
        index = _with_links(index, links, where)
        require_unique(index, where)
    folders = [folder for part in parts for folder in part.folders] + [part.prefix for part in whole.inner]
    return with_empty_folders(index, names_array(folders).to_pylist())


def _list_part(folder: Folder, name: str, part: _Part | None = None) -> _Listed:
    """A tar in the archive with all that is in it; or the archive, with the tars in it yet to be listed."""
    where, inner = folder.where(name), list[_Part]()
    links, folders = dict[bytes, bytes](), list[bytes]()
    with folder.open(name) as file:
        start, end, prefix = part or _Part(0, file.size(), b"")
        window = _Window(file, folder.is_local, where)
        if part is None:
            refuse_compressed(folder, name, window.read(0, _BLOCK))
        members = _members(window, start, end, prefix, links, folders, None if part else inner)
        index = table_of_members(members, where)
    return _Listed(start, index, links, folders, inner)


class Member(NamedTuple):
    path: str
    offset: int
    size: int
    text: bytes  # the content, where it was asked for


def members_with_text(folder: Folder, name: str, is_wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The regular files in archive order, with the content of those that are wanted: small ones, read on the way."""
    links: dict[bytes, bytes] = {}
    with folder.open(name) as file:
        window = _Window(file, folder.is_local, folder.where(name))
        for raw, offset, size in _members(window, 0, file.size(), b"", links, []):
            path = raw.decode("utf-8", "backslashreplace")
            yield Member(path, offset, size, window.read(offset, size) if is_wanted(path) else b"")
            if links:
                raise ValueError(f"{window.where} holds links, such as the one after {path}; {_NO_LINKS}")


def dangling_links(index: pa.Table) -> list[str]:
    """Names of the links in the archive that lead to no file in it."""
    return (index.schema.metadata or {}).get(_DANGLING, b"").decode().splitlines()


def _with_links(index: pa.Table, links: dict[bytes, bytes], where: str) -> pa.Table:
    target_of, ends = {posixpath.normpath(path): target for path, target in links.items()}, []
    for end in target_of:
        passed = set()
        while end in target_of and end not in passed:  # a loop leads to no file
            passed.add(end)
            end = target_of[end]
        ends.append(end)
    files = pc.replace_substring_regex(index["path"], r"(^|/)(\./)+", r"\1")  # as in "tar cf a.tar ."
    row, paths = pc.index_in(names_array(ends), files), names_array(list(links))
    found = index.take(row.drop_null()).set_column(0, "path", paths.filter(pc.is_valid(row)))
    lost = pc.is_null(row)
    for path, end in zip(paths.filter(lost).to_pylist(), names_array(ends).filter(lost).to_pylist(), strict=True):
        if end == "." or pc.any(pc.starts_with(files, f"{end}/")).as_py():
            raise ValueError(f"{where} holds links to folders, such as {path!r} to {end!r}; {_NO_LINKS}")
    dangling = "\n".join(ascii(path)[1:-1] for path in paths.filter(lost).to_pylist())
    return pa.concat_tables([index, found]).replace_schema_metadata({_DANGLING: dangling})


class _Window:
    """The part of a file that was read last: small steps read a megabyte ahead, long jumps only a header's worth."""

    def __init__(self, file, is_local: bool, where: str):
        self.where = where
        self._file, self._is_local = file, is_local
        self._data, self._start = b"", 0

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at `offset`; fewer than `size` at the end of the file."""
        start = offset - self._start
        if start < 0 or start + size > len(self._data):
            step = start - len(self._data) + size
            near, ahead = (_NEAR, _NEAR_BYTES) if self._is_local else (_REMOTE_BYTES, _REMOTE_BYTES)
            self._data = self._file.read_at(max(size, ahead if 0 <= step <= near else _FAR_BYTES), offset)
            self._start, start = offset, 0
        return self._data[start : start + size]


def _members(
    window: _Window,
    position: int,
    end: int,
    prefix: bytes,
    links: dict[bytes, bytes],
    folders: list[bytes],
    inner: list[_Part] | None = None,
) -> Iterator[tuple[bytes, int, int]]:
    """(path, offset of the content, its size) of each regular file between two offsets.

    Links go to `links`, folders to `folders`; tars are entered, or go to `inner`.
    """
    long_name = long_link = b""
    pax: dict[bytes, bytes] = {}
    while True:
        header = window.read(position, _BLOCK)
        if position + _BLOCK > end or len(header) < _BLOCK:
            raise ValueError(f"{window.where} is truncated: no end mark at offset {position}; fetch it again")
        if header == _ZEROS:
            _require_end(window, position, end)
            return
        _check(header, window.where, position)
        kind, content = header[156:157], position + _BLOCK
        size = 0 if kind in _NO_CONTENT else int(pax.get(b"size", 0)) or _number(header[124:136])
        position = content + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind == _LONG_NAME:
            long_name = window.read(content, size).partition(b"\0")[0]
        elif kind == _LONG_LINK:
            long_link = window.read(content, size).partition(b"\0")[0]
        elif kind == _PAX:
            pax = _pax_fields(window.read(content, size))
        elif kind not in _SKIPPED:
            path = pax.get(b"path") or long_name or _name(header)
            if kind in _FILE and path.endswith(b".tar"):
                part = _Part(content, content + size, prefix + path.removeprefix(b"./") + b"/")
                if inner is None:
                    yield from _members(window, *part, links, folders)
                else:
                    inner.append(part)
            elif kind in _FILE and not path.endswith(b"/"):  # the oldest tars mark a folder so
                yield prefix + path, content, size
            elif kind in (_FOLDER, *_FILE):
                folders.append(prefix + path)
            elif kind in (_HARD_LINK, _LINK):
                target = pax.get(b"linkpath") or long_link or header[157:257].partition(b"\0")[0]
                around = posixpath.dirname(path) if kind == _LINK else b""
                links[prefix + path] = posixpath.normpath(posixpath.join(prefix, around, target))
            long_name, long_link, pax = b"", b"", {}


def _require_end(window: _Window, position: int, end: int) -> None:
    """The end is two blocks of zeros, and behind them nothing but zeros that fill a record."""
    found = window.read(position, min(end - position, _END_BYTES + _BLOCK))
    zeros = len(found) - len(found.lstrip(b"\0"))
    if zeros < len(found):
        raise ValueError(
            f"{window.where} has an end mark at offset {position}, and more behind it, at {position + zeros}: two "
            "archives in one file, or a damaged one; fetch it again, or unpack each and name the folder"
        )
    if len(found) < 2 * _BLOCK:
        raise ValueError(f"{window.where} is truncated in its end mark at offset {position}; fetch it again")
    if end - position > _END_BYTES:
        raise ValueError(
            f"{window.where} holds only zeros from offset {position} on, {end - position:,} bytes: a download that "
            "stopped, in a file that was made as long as the whole; fetch it again"
        )


def _check(header: bytes, where: str, position: int) -> None:
    """The header's sum over its bytes, with blanks in place of the sum itself, must be the one it states."""
    try:
        is_header = _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 32
    except ValueError:
        is_header = False
    if not is_header:
        raise ValueError(f"{where} is no tar archive or is damaged: there is no header at offset {position}")
    if header[156:157] == b"S":
        raise ValueError(
            f"{where}: the member at offset {position} is stored sparse; pack the archive without --sparse"
        )


def _number(field: bytes) -> int:
    """Octal digits, or binary where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    return int(field.strip(b" \0") or b"0", 8)


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[345] and header[257:263] == b"ustar\0":
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _pax_fields(data: bytes) -> dict[bytes, bytes]:
    """Records of the form "LENGTH KEY=VALUE\\n"."""
    fields = {}
    while data:
        length = int(data.partition(b" ")[0])
        key, _, value = data[:length].partition(b" ")[2].partition(b"=")
        fields[key] = value[:-1]
        data = data[length:]
    return fields
