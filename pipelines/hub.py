"""Data sets on Hugging Face's Hub, hf://datasets/owner/name, through huggingface_hub where that is installed."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")
SCHEME = "hf://"


class HubFilesystem:
    """pyarrow's file system of the Hub, whose every failure is an OSError: its client has errors of its own."""

    def __init__(self, filesystem):
        self._filesystem = filesystem

    def __getattr__(self, name: str):
        return partial(_as_os_error, getattr(self._filesystem, name))


def open_hub(url: str) -> tuple[HubFilesystem, str]:
    """The file system, and the path of this URL in it; ValueError where the package is not there."""
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(url)
    except ImportError as error:
        raise ValueError(f"{SCHEME} needs a package that is not installed: pip install huggingface_hub") from error
    return HubFilesystem(filesystem), path


def _as_os_error(operation: Callable[..., T], *args, **options) -> T:
    try:
        return operation(*args, **options)
    except OSError:
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
