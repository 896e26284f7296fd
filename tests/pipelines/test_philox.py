import numpy as np
import pytest

from pipelines.philox import integers, normals, permutation, philox, words


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # the known answers published with Random123 for philox4x32, 10 rounds
        ((0, 0), [0, 0, 0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((0xFFFFFFFF,) * 2, [0xFFFFFFFF] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0xA4093822, 0x299F31D0),
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_words_are_those_of_the_published_generator(key, counter, expected):
    assert philox(key, np.array(counter)[:, None])[:, 0].tolist() == expected


def test_words_of_an_index_do_not_depend_on_its_neighbours():
    index = np.array([5, 2**40 + 5, 17, 0])
    together = words((3, 4), 1, index)
    for column, i in enumerate(index):
        assert together[:, column].tolist() == words((3, 4), 1, [i])[:, 0].tolist()


def test_every_part_of_the_address_changes_the_words():
    addresses = [((1, 2), 1, 7, 0), ((2, 1), 1, 7, 0), ((0, 3), 1, 7, 0), ((1, 2), 2, 7, 0), ((1, 2), 1, 7, 1)]
    addresses.append(((1, 2), 1, 7 + 2**32, 0))
    drawn = {tuple(words(key, purpose, [index], stream)[:, 0]) for key, purpose, index, stream in addresses}
    assert len(drawn) == len(addresses)


def test_integers_cover_their_range_evenly():
    counts = np.bincount(integers(words((0, 0), 1, np.arange(33_000))[0], 33), minlength=33)
    assert len(counts) == 33
    assert abs(counts - 1000).max() < 150  # sqrt(1000) is 32


def test_integers_reach_both_ends_and_no_further():
    assert integers(np.array([0, 2**32 - 1], np.uint64), 33).tolist() == [0, 32]


def test_normals_are_standard_and_uncorrelated():
    word = words((0, 0), 1, np.arange(100_000))
    z = np.stack([*normals(word[:2]), *normals(word[2:])])
    assert abs(z.mean(axis=1)).max() < 0.015
    assert abs(np.cov(z) - np.eye(4)).max() < 0.02
    assert abs((np.abs(z) < 1).mean(axis=1) - 0.6827).max() < 0.006


def test_normals_are_finite_for_the_extreme_words():
    word = np.array([[0, 2**32 - 1], [0, 2**32 - 1]], np.uint64)
    assert np.isfinite(normals(word)).all()


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_permutation_holds_each_number_once(size):
    assert sorted(permutation((1, 2), 1, size)) == list(range(size))


def test_permutations_of_another_stream_or_key_differ():
    one = permutation((1, 2), 1, 100).tolist()
    assert one != permutation((1, 2), 1, 100, stream=1).tolist()
    assert one != permutation((2, 1), 1, 100).tolist()
    assert one == permutation((1, 2), 1, 100).tolist()
