"""Object stores that fail for a while are waited for, longer than pyarrow itself does; those that refuse are not."""

import io
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")
PAUSES_S = (1.0, 4.0)  # pyarrow has tried for 6 s before each
_PASSES = re.compile(  # throttled, failed inside, cut off; not: denied, absent, no server there
    r"HTTP status (429|50[0234])|SLOW_DOWN|THROTTL|INTERNAL_FAILURE|UNAVAILABLE|REQUEST_TIME|DEADLINE_EXCEEDED"
    r"|NETWORK_CONNECTION(?!.*curlCode: [67],)|connection reset|timed out",
    re.IGNORECASE | re.DOTALL,
)


def patient(operation: Callable[..., T], *args, **options) -> T:
    """What the operation returns; errors of an object store that pass are waited out, for seconds."""
    for pause in PAUSES_S:
        try:
            return operation(*args, **options)
        except OSError as error:
            if not _PASSES.search(str(error)):
                raise
            time.sleep(pause)
    return operation(*args, **options)


class Patient:
    """A file system whose every call is a patient one."""

    def __init__(self, filesystem):
        self._filesystem = filesystem

    def __getattr__(self, name: str):
        return partial(patient, getattr(self._filesystem, name))


class PatientFile(io.RawIOBase):
    """A file of an object store for reading, whose every read is a patient one: for readers that know only files."""

    def __init__(self, file):
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def size(self) -> int:
        return self._file.size()

    def read(self, size: int | None = -1) -> bytes:
        start, wanted = self.tell(), -1 if size is None else size
        data = self.read_at(self.size() - start if wanted < 0 else wanted, start)
        self.seek(start + len(data))
        return data

    def read_at(self, size: int, offset: int) -> bytes:
        return patient(self._file.read_at, size, offset)

    def close(self) -> None:
        self._file.close()
        super().close()
