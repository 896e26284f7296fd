"""The batches of CIFAR in both editions: Python pickles, and binary records of label and pixels.

A pickle can run any code when it is loaded; these are read by an unpickler that knows NumPy arrays and nothing else.
"""

import io
import pickle
from typing import NamedTuple

import numpy as np
from numpy._core.multiarray import _reconstruct

PIXELS = 3072  # bytes of an image: red, green and blue, 32 rows of 32


class Batch(NamedTuple):
    labels: list[int]
    pixels: np.ndarray  # uint8 [N, 3072]


def pickled_batch(data: bytes, labels: bytes) -> Batch:
    """From the pickle of a dictionary, with the labels in this field."""
    batch = _unpickle(data)
    return Batch([int(label) for label in batch[labels]], batch[b"data"])


def pickled_names(data: bytes, field: bytes) -> list[str]:
    return [name.decode() for name in _unpickle(data)[field]]


def binary_batch(data: bytes, num_labels: int) -> Batch:
    """From records of the labels, the finest of them last, and the pixels."""
    records = np.frombuffer(data, np.uint8).reshape(-1, num_labels + PIXELS)
    return Batch(records[:, num_labels - 1].tolist(), records[:, num_labels:])


def text_names(data: bytes) -> list[str]:
    return data.decode().split()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return allowed[module, name]


def _unpickle(data: bytes) -> dict:
    return _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
