"""An index of a zip, made from its directory alone; and the reader of its members, stored or deflated, in place.

The directory is parsed here rather than by `zipfile`, which spends a kilobyte on a member. It stands at the end, so a
download that stopped has none; and it says where it begins, so bytes before or between are seen.
"""

import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from pipelines.sources.cache import Indexes
from pipelines.sources.members import table_of_members, with_empty_folders
from pipelines.sources.ranges import ArchiveReader
from pipelines.sources.source import Unreadable
from pipelines.storage import Folder

_END = struct.Struct("<4s4x2H2LH")  # mark, members (here, in all), bytes and offset of the directory, comment's length
_LOCATOR = struct.Struct("<4s4xQ4x")  # stands before it where numbers are too large; where the end in 64 bits is
_END_64 = struct.Struct("<4s20x4Q")  # mark, members (here, in all), bytes and offset of the directory
_ENTRY = struct.Struct("<4s4x2H8x2L3H8xL")  # mark, flags, method, sizes packed and not, lengths, offset
_HEADER = struct.Struct("<4s2x2H4xL8x2H")  # before each member: mark, flags, method, CRC, lengths of name and extra
_MAX_COMMENT = 0xFFFF
_FULL = 0xFFFFFFFF  # the number is in the extra field of 64-bit numbers, which has this mark:
_NUMBERS_64 = 1
_IS_ENCRYPTED, _IS_FOLLOWED, _IS_UTF8 = 1, 1 << 3, 1 << 11  # followed by its CRC, which was not known before
_STORED, _DEFLATED = 0, 8
_ROOM = 1024  # for a member's header and name, which are read along with its content


@dataclass(frozen=True)
class ZipReader(ArchiveReader):
    """A row's offset is that of a member's header, its size that of the content as it is packed."""

    def content(self, read_at: Callable[[int, int], bytes], name: str, offset: int, size: int) -> bytes:
        data = read_at(_ROOM + size, offset)
        if len(data) < _HEADER.size or data[:4] != b"PK\3\4":
            raise ValueError(f"{self.folder.where(name)}: no member begins at offset {offset}; fetch it again")
        _, flags, method, crc, *lengths = _HEADER.unpack_from(data)
        start = _HEADER.size + sum(lengths)
        packed = data[start : start + size] if start <= _ROOM else read_at(size, offset + start)
        packed = self.whole(packed, name, offset, size)
        if flags & _IS_FOLLOWED:
            crc = _crc_behind(read_at(8, offset + start + size))
        return _checked(packed if method == _STORED else _inflated(packed), crc)


def _crc_behind(data: bytes) -> int:
    """Of what follows a member: perhaps a mark, then the CRC."""
    return int.from_bytes(data[4:8] if data[:4] == b"PK\7\x08" else data[:4], "little")


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
    except zlib.error as error:
        return Unreadable(f"the zip archive is damaged there: {error}")


def _checked(data: bytes, crc: int) -> bytes:
    if isinstance(data, Unreadable) or zlib.crc32(data) == crc:
        return data
    return Unreadable("the zip archive is damaged there: its checksum is another")


def open_zip_index(folder: Folder, name: str, cache: Indexes) -> pa.Table:
    """Columns path, offset, size of every file, in the order of the directory; see `ZipReader`."""
    return cache.table(["zip with folders"], folder, [folder.entry(name)], lambda: index_zip(folder, name))


def index_zip(folder: Folder, name: str) -> pa.Table:
    where = folder.where(name)
    with folder.open(name) as file:
        directory = _find_directory(file, where)
        data = file.read_at(directory.size, directory.offset)
    folders: list[str] = []
    return with_empty_folders(table_of_members(_members(data, directory, where, folders), where), folders)


class _Directory(NamedTuple):
    members: int
    size: int
    offset: int


def _find_directory(file: pa.NativeFile, where: str) -> _Directory:
    """From the mark at the end of the archive, or from the one with 64-bit numbers before it."""
    length = file.size()
    tail = file.read_at(min(length, _END.size + _MAX_COMMENT), max(0, length - _END.size - _MAX_COMMENT))
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise ValueError(f"{where} is no zip archive or is truncated: no end mark; fetch it again")
    _, _, *numbers, comment = _END.unpack_from(tail, found)
    end = length - len(tail) + found
    if end + _END.size + comment != length:
        raise ValueError(
            f"{where} has {length} bytes, and {end + _END.size + comment} by its end mark: truncated, or with more "
            "behind it; fetch it again"
        )
    if found >= _LOCATOR.size and tail[found - _LOCATOR.size :][:4] == b"PK\6\7":
        end = _LOCATOR.unpack_from(tail, found - _LOCATOR.size)[1]
        large = file.read_at(_END_64.size, min(end, length))
        if large[:4] != b"PK\6\6" or len(large) < _END_64.size:
            raise ValueError(f"{where} is damaged at offset {end}; fetch it again")
        _, _, *numbers = _END_64.unpack(large)
    directory = _Directory(*numbers)
    if directory.offset + directory.size != end:
        raise ValueError(
            f"{where}: its directory should end at offset {directory.offset + directory.size} but ends at {end}: part "
            "of an archive in several files, or one with other bytes before it; fetch it again, or unpack it"
        )
    return directory


class _Member(NamedTuple):
    path: str
    is_encrypted: bool
    method: int
    packed: int  # bytes
    offset: int
    end: int  # of its entry in the directory


def _members(data: bytes, directory: _Directory, where: str, folders: list[str]) -> Iterator[tuple[bytes, int, int]]:
    """(path, offset, packed size) of each file; folders go to `folders`."""
    position = count = 0
    while position < len(data):
        member = _member(data, position)
        if member is None or member.offset + _HEADER.size + member.packed > directory.offset:
            raise ValueError(f"{where} is damaged at offset {directory.offset + position}; fetch it again")
        if member.is_encrypted or member.method not in (_STORED, _DEFLATED):
            raise _not_read(member, where)
        position, count = member.end, count + 1
        if member.path.endswith("/"):
            folders.append(member.path)
        else:
            yield member.path.encode(), member.offset, member.packed
    if count != directory.members:
        raise ValueError(f"{where} has {count} members, and its end says {directory.members}; fetch it again")


def _member(data: bytes, position: int) -> _Member | None:
    """The entry at a position of the directory; None where there is none."""
    if data[position : position + 4] != b"PK\1\2" or len(data) - position < _ENTRY.size:
        return None
    _, flags, method, packed, full, name_bytes, extra_bytes, comment_bytes, offset = _ENTRY.unpack_from(data, position)
    start = position + _ENTRY.size
    name, extra = data[start : start + name_bytes], data[start + name_bytes : start + name_bytes + extra_bytes]
    path = _text(name, is_utf8=bool(flags & _IS_UTF8)).replace("\\", "/")
    _, packed, offset = _large_numbers(extra, full, packed, offset)
    end = start + name_bytes + extra_bytes + comment_bytes
    return _Member(path, bool(flags & _IS_ENCRYPTED), method, packed, offset, end)


def _text(name: bytes, is_utf8: bool) -> str:
    """Many writers store UTF-8 without saying so; what is none is of the code page that the format began with."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("utf-8" if is_utf8 else "cp437", "backslashreplace")


def _not_read(member: _Member, where: str) -> ValueError:
    kind = "encrypted" if member.is_encrypted else f"packed by method {member.method}"
    unpacked = re.sub(r"(?i)\.zip$", "", where) + "-unpacked"
    by_python = not member.is_encrypted and member.method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    command = "python3 -m zipfile -e {} {}" if by_python else "unzip -q {} -d {}"
    command = command.format(shlex.quote(where), shlex.quote(unpacked))
    return ValueError(
        f"{where}: {member.path!r} is {kind}, which is not read in place; run `{command}`, and name {unpacked}"
    )


def _large_numbers(extra: bytes, *numbers: int) -> Iterator[int]:
    """The numbers, those that are full taken from the extra field in their order."""
    while len(extra) >= 4:
        mark, size = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if mark == _NUMBERS_64:
            large = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return (next(large, number) if number == _FULL else number for number in numbers)
    return iter(numbers)
