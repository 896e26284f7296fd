"""Where bytes live: a `Folder` is a local path or any URL that pyarrow.fs opens, behind one small set of verbs.

A name becomes visible only when its content is complete: locally by a hidden temporary file, fsync and rename; in an
object store by one upload under the final name. Local folders never load pyarrow.fs, so S3 starts only for its users.
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from pipelines.hub import SCHEME, open_hub
from pipelines.patience import Patient, PatientFile, patient

if TYPE_CHECKING:
    from pyarrow import NativeFile

T = TypeVar("T")
OnDangling = Callable[[str], None]
_TEMPORARY_SUFFIX = ".part"  # a temporary is named .<name>.<32 hex digits>.part
_WAYS_OUT = {  # of errors that only writing meets
    errno.ENOSPC: "make room there, or name another disk",
    errno.EDQUOT: "make room in your quota there, or name another disk",
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f`), or name another file system",
    errno.EROFS: "nothing can be written there: name another folder",
}
_SERVER = re.compile(r"(?:(?![^/@]*:\d+/)[^/@]*:[^@]*@)?[^/]*")  # a password may hold "/"
_ESCAPED = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})  # what of a name would be taken for a part of the URL
_SECRET = "key|secret|token|passw|pwd|sig|credential"
_NO_SECRET = "viewStateShareKey="  # MLflow's name of a view
_URL_SECRETS = (  # what stands before @ with a password or towards a web server, and options that are secrets by name
    (re.compile(r"(?<=://)(?![^/@\s'\"]*:\d+/)[^/@\s'\"]+:[^@\s'\"]+(?=@)"), "***"),
    (re.compile(r"(?<=http://|ttps://)[^/@\s'\"]+(?=@)"), "***"),
    (re.compile(rf"(?i)(?<=[?&])(?!{_NO_SECRET})([\w.-]*(?:{_SECRET})[\w.-]*)=[^&\s'\"]+"), r"\1=***"),
)


def redacted(text: str) -> str:
    """The text with *** in place of the secrets of all URLs in it: passwords, keys, tokens, signatures."""
    for pattern, instead in _URL_SECRETS if "://" in text else ():
        text = pattern.sub(instead, text)
    return text


def without_redactions(url: str) -> str:
    """A URL whose secrets were redacted, as one that leaves them to the environment."""
    url = re.sub(r"(?<=://)[^/@]*\*\*\*@", "", url)
    path, question, options = url.partition("?")
    kept = "&".join(option for option in options.split("&") if not option.endswith("=***"))
    return path + (question + kept if kept else "")


class FileEntry(NamedTuple):
    name: str  # relative to the folder, parts joined by "/"
    size: int
    mtime_ns: int


@lru_cache(maxsize=64)
def _client(server: str):
    """The file system of a server or bucket (with the URL's ?options), and the path of its root.

    A process has one of each: a client opens its connections once and keeps them.
    """
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    try:
        filesystem, root = open_hub(server) if server.startswith(SCHEME) else FileSystem.from_uri(server)
    except ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{reason}; use a path, or a URL such as s3://bucket/folder") from error
    return Patient(filesystem), root


@contextlib.contextmanager
def writing(path: "str | Path") -> Iterator[None]:
    """Errors of the file system that come of writing name the file, and say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _WAYS_OUT:
            error.filename = error.filename or str(path)
            error.add_note(_WAYS_OUT[error.errno])
        raise


@dataclass(frozen=True)
class Folder:
    """A folder: an absolute local path or a URL such as s3://bucket/prefix?endpoint_override=host:port&scheme=http."""

    url: str

    @staticmethod
    def at(url_or_path: "str | Path") -> "Folder":
        text = os.fspath(url_or_path)
        if text.startswith("file://"):
            text = unquote(urlsplit(text).path)
        return Folder(text if "://" in text else str(Path(text).expanduser().absolute()))

    @property
    def is_local(self) -> bool:
        return "://" not in self.url

    def local_path(self) -> Path:
        assert self.is_local, self.url
        return Path(self.url)

    def child(self, name: str) -> "Folder":
        """The folder (or file) `name` inside this one; a URL keeps its ?options."""
        if self.is_local:
            return Folder(str(Path(self.url) / name))
        path, question, options = self.url.partition("?")
        return Folder(f"{path.rstrip('/')}/{name.translate(_ESCAPED)}{question}{options}")

    def split(self) -> tuple["Folder", str]:
        """The folder around this one, and this one's name in it; a bucket has no name and no folder around it."""
        path, question, options = self.url.partition("?")
        parent, _, name = path.rstrip("/").rpartition("/")
        if parent.endswith(":/"):
            return self, ""
        return Folder(f"{parent or '/'}{question}{options}"), name if self.is_local else unquote(name)

    def where(self, name: str = "") -> str:
        """`name` in this folder for messages: a URL without user, password and ?options."""
        url = self.child(name).url if name else self.url
        return url if self.is_local else unquote(re.sub(r"://[^/@]*@", "://", redacted(url.partition("?")[0])))

    def open(self, name: str) -> "NativeFile | PatientFile":
        """A random-access file; FileNotFoundError names it."""
        if self.is_local:
            import pyarrow as pa

            return pa.OSFile(str(self.local_path() / name), "rb")
        filesystem, path = self._remote(name)
        try:
            return PatientFile(filesystem.open_input_file(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no such file: {self.where(name)}") from error

    def read(self, name: str) -> bytes:
        if self.is_local:
            return (self.local_path() / name).read_bytes()
        with self.open(name) as file:
            return file.read()

    def sha256(self, name: str) -> str:
        """Hexadecimal digest of the file's bytes; FileNotFoundError where there is none."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self.open(name) as file:
            data = file.read_at(size, offset)
        if len(data) != size:
            raise ValueError(f"{self.where(name)} ends {size - len(data)} bytes short of offset {offset} + {size}")
        return data

    def size(self, name: str) -> int | None:
        """Bytes of the file; None where there is no such file."""
        entry = self.entry(name)
        return entry.size if entry else None

    def entry(self, name: str) -> FileEntry | None:
        if self.is_local:
            path = self.local_path() / name
            return FileEntry(name, path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        filesystem, path = self._remote(name)
        info = filesystem.get_file_info(path)
        return FileEntry(name, info.size, info.mtime_ns or 0) if info.is_file else None

    def identity(self, entry: FileEntry) -> tuple[str | int, ...]:
        """What tells a listed file from every other, and from itself once it is replaced: place, size and times.

        On a disk also its number, and when it was last touched in any way, which no copy preserves.
        """
        if not self.is_local:
            return redacted(self.child(entry.name).url), entry.size, entry.mtime_ns
        path = f"{self.url}/{entry.name}"
        stat = os.stat(path)
        return path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino

    def exists(self) -> bool:
        """Whether there is a folder here; in an object store, whether anything is in it."""
        return self.local_path().is_dir() if self.is_local else bool(self._remote_infos())

    def files(self, recursive: bool = False) -> list[FileEntry]:
        """The files here, sorted by name; unfinished ones left out, and none where the folder does not exist."""
        return sorted(self.walk(recursive))

    def walk(self, recursive: bool = True, on_dangling: OnDangling = lambda name: None) -> Iterator[FileEntry]:
        """The same files one by one, in no order: for listings too long to hold; links that lead nowhere are told."""
        return (entry for entry in self._all_files(recursive, on_dangling) if not _is_temporary(entry.name))

    def folders(self) -> list[str]:
        """Names of the folders directly inside, sorted."""
        if self.is_local:
            if not self.local_path().is_dir():
                return []
            with os.scandir(self.url) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        return sorted(info.base_name for info in self._remote_infos() if not info.is_file)

    def free_bytes(self) -> int | None:
        """Space left on the disk that holds (or will hold) this folder; None for an object store."""
        if not self.is_local:
            return None
        path = self.local_path()
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def publish(self, name: str, write: Callable[[BinaryIO], T]) -> T:
        """Call `write` with a binary file; `name` appears, or is replaced, once that is complete, and else never."""
        if not self.is_local:
            return self._publish_remote(name, write)
        with writing(self.local_path() / name):
            return self._publish_local(name, write)

    def write(self, name: str, data: bytes | str) -> None:
        """The file `name` with this content (text as UTF-8), complete or not at all."""
        content = data.encode() if isinstance(data, str) else data
        self.publish(name, lambda file: file.write(content))

    @contextlib.contextmanager
    def as_local(self, *names: str) -> Iterator[Path]:
        """The folder on this machine's disk: itself, or for an object store a passing copy of these files (or all)."""
        if self.is_local:
            yield self.local_path()
            return
        with tempfile.TemporaryDirectory() as scratch:
            for name in names or [entry.name for entry in self.files(recursive=True)]:
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.read(name))
            yield Path(scratch)

    def move(self, target: "Folder", last: str) -> None:
        """All files go to `target`, which must not be there; in an object store, where they go one by one, `last` last.

        A crash on the way leaves this folder whole, or gone.
        """
        if self.is_local:
            self.local_path().rename(target.local_path())
            _fsync_folder(target.local_path().parent)
            return
        for entry in sorted(self.files(recursive=True), key=lambda entry: entry.name == last):
            filesystem, path = self._remote(entry.name)
            filesystem.copy_file(path, target._remote(entry.name)[1])
        self.delete(last)
        self.delete_all()

    def delete(self, name: str) -> None:
        """Remove a file; no error where there is none."""
        if self.is_local:
            (self.local_path() / name).unlink(missing_ok=True)
        elif self.size(name) is not None:
            filesystem, path = self._remote(name)
            filesystem.delete_file(path)

    def delete_all(self) -> None:
        """Remove the folder and all that is in it."""
        if self.is_local:
            shutil.rmtree(self.local_path(), ignore_errors=not self.local_path().exists())
        else:
            filesystem, path = self._remote()
            filesystem.delete_dir_contents(path, missing_dir_ok=True)

    def stale_temporaries(self) -> list[str]:
        """Unfinished files that no living process writes any more; an object store shows none."""
        names = [entry.name for entry in self._all_files(recursive=True) if _is_temporary(entry.name)]
        return sorted(name for name in names if not _is_locked(self.local_path() / name)) if self.is_local else []

    def remove_stale_temporaries(self) -> list[str]:
        stale = self.stale_temporaries()
        for name in stale:
            self.delete(name)
        return stale

    def _publish_local(self, name: str, write: Callable[[BinaryIO], T]) -> T:
        final = self.local_path() / name
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
        try:
            with open(temporary, "xb", buffering=1 << 20) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # ends with its process: tells a leftover from work in progress
                result = write(file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(final.parent)
        return result

    def _publish_remote(self, name: str, write: Callable[[BinaryIO], T]) -> T:
        """The content is completed in a nameless local file first: pyarrow commits even an upload that is dropped."""
        filesystem, path = self._remote(name)
        with tempfile.TemporaryFile() as file:
            with writing(f"{tempfile.gettempdir()}/{name}"):
                result = write(file)
                file.flush()
            is_empty = os.fstat(file.fileno()).st_size == 0  # which mmap refuses
            content = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            try:
                patient(_upload, filesystem, path, content)
            except BaseException:
                if not is_empty and self.size(name) == 0:  # interrupted before the first byte
                    self.delete(name)
                raise
        return result

    def _remote(self, name: str = ""):
        """The client of this URL, and the path of `name` for it."""
        place, question, options = self.url.partition("?")
        scheme, _, place = place.partition("://")
        server = _SERVER.match(place)[0]  # type: ignore[index]  # which matches anything
        path = place[len(server) :]
        filesystem, root = _client(f"{scheme}://{server}/{question}{options}")
        inside = "/".join(part for part in (unquote(path).strip("/"), name) if part)
        return filesystem, f"{root.rstrip('/')}/{inside}".rstrip("/") if root else inside

    def _remote_infos(self) -> list:
        from pyarrow.fs import FileSelector

        filesystem, path = self._remote()
        return filesystem.get_file_info(FileSelector(path, allow_not_found=True))

    def _all_files(self, recursive: bool, on_dangling: OnDangling = lambda name: None) -> Iterator[FileEntry]:
        if self.is_local:
            yield from _walk(self.url, "", recursive, on_dangling)
            return
        for info in self._remote_infos():  # folder by folder: a listing of all at once would be held in memory
            if info.is_file:
                yield FileEntry(info.base_name, info.size, info.mtime_ns or 0)
            elif recursive:
                for entry in self.child(info.base_name).walk():
                    yield entry._replace(name=f"{info.base_name}/{entry.name}")


def _upload(filesystem, path: str, content) -> None:
    with filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(content)


def _walk(
    folder: str, prefix: str, recursive: bool, on_dangling: OnDangling, around: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[FileEntry]:
    """Links are followed, but not into a folder that we are in already (`around`: device and number of each)."""
    if not os.path.isdir(folder):
        return
    here = os.stat(folder)
    around |= {(here.st_dev, here.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                stat = entry.stat()
                yield FileEntry(prefix + entry.name, stat.st_size, stat.st_mtime_ns)
            elif recursive and entry.is_dir():
                if not entry.is_symlink() or (entry.stat().st_dev, entry.stat().st_ino) not in around:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", recursive, on_dangling, around)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                on_dangling(prefix + entry.name)


def _is_temporary(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(_TEMPORARY_SUFFIX)


def _is_locked(path: Path) -> bool:
    """Whether a living process is writing this temporary file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # finished meanwhile
        return True
    return False


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
