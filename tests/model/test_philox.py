"""Random bits in tensors are those of the published generator, and of its NumPy twin."""

import numpy as np
import pytest
import torch

from model.philox import bits, philox
from pipelines import philox as numpy_twin

KNOWN = [  # of the authors' known-answer tests: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert tuple(map(int, philox(key, tuple(map(torch.tensor, counter))))) == expected


def test_the_same_words_as_in_numpy():
    counter = np.random.default_rng(0).integers(0, 2**32, (4, 1000))
    found = philox((123, 2**32 - 5), tuple(map(torch.from_numpy, counter)))
    assert np.array_equal(torch.stack(found).numpy().astype(np.uint64), numpy_twin.philox((123, 2**32 - 5), counter))


def test_bits_are_read_from_the_words_in_their_order():
    row, step = 5, 2**33 + 1
    words = numpy_twin.philox((1, 2), np.array([[0, 1], [row] * 2, [1] * 2, [2] * 2]))
    expected = [int(words[word, block]) >> bit & 1 for block in (0, 1) for word in range(4) for bit in range(32)]
    assert bits((1, 2), step, slice(row, row + 1), slice(0, 256), "cpu").tolist() == [expected]
    assert bits((1, 2), step, slice(row, row + 1), slice(100, 130), "cpu").tolist() == [expected[100:130]]


def test_the_same_bits_on_any_device_whoever_says_the_step(device):
    where = slice(2, 70), slice(100, 4000)
    for step in (7, 2**33 + 1):
        expected = bits((3, 4), step, *where, "cpu")
        assert torch.equal(bits((3, 4), step, *where, device).cpu(), expected)
        assert torch.equal(bits((3, 4), torch.tensor(step, device=device), *where, device).cpu(), expected)
