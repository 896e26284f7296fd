"""Random numbers that are a function of where they are used: Philox4x32-10, vectorised.

A counter-based generator has no state to save, replay or share between workers: the numbers of sample 17 in epoch 3 are
read off directly, in any order, on any machine. The key is the pair (seed, epoch), so no two (seed, epoch) share a
stream, as they would with seed + epoch. (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.)
"""

import numpy as np

_MULTIPLY = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEP = 0x9E3779B9, 0xBB67AE85
_LOW_32 = np.uint64(0xFFFFFFFF)
_SHIFT_32 = np.uint64(32)
_IN_CACHE = 1 << 16  # counters at a time


def philox(key: tuple[int, int], counter_4N: np.ndarray) -> np.ndarray:
    """Four words for each counter of four words: uint64 arrays (4, N) holding 32-bit values."""
    c0, c1, c2, c3 = counter_4N.astype(np.uint64)
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _MULTIPLY[0] * c0, _MULTIPLY[1] * c2
        c0, c2 = (product1 >> _SHIFT_32) ^ c1 ^ np.uint64(k0), (product0 >> _SHIFT_32) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW_32, product0 & _LOW_32
        k0, k1 = (k0 + _KEY_STEP[0]) & 0xFFFFFFFF, (k1 + _KEY_STEP[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def words(key: tuple[int, int], purpose: int, index_N: np.ndarray, stream: int = 0) -> np.ndarray:
    """Four 32-bit words (4, N) for each index (a 64-bit integer) of a stream that serves one purpose."""
    index_N = np.asarray(index_N).astype(np.uint64)
    purpose_N, stream_N = np.full_like(index_N, purpose), np.full_like(index_N, stream)
    return philox(key, np.stack([index_N & _LOW_32, index_N >> _SHIFT_32, purpose_N, stream_N]))


def integers(words_N: np.ndarray, bound: int) -> np.ndarray:
    """32-bit words to integers 0..bound-1, each as likely as the others to within bound / 2^32."""
    return ((words_N * np.uint64(bound)) >> _SHIFT_32).astype(np.int64)


def normals(words_2N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two words to two independent standard normal draws in float64 (Box and Muller)."""
    uniform = (words_2N.astype(np.float64) + 0.5) / 2.0**32  # strictly between 0 and 1
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * np.pi * uniform[1]
    return radius * np.cos(angle), radius * np.sin(angle)


def permutation(key: tuple[int, int], purpose: int, size: int, stream: int = 0) -> np.ndarray:
    """0..size-1 in random order: sorted by 64 random bits each, so it does not hang on a library's shuffle."""
    bits_N = np.empty(size, np.uint64)
    for start in range(0, size, _IN_CACHE):
        high, low, *_ = words(key, purpose, np.arange(start, min(start + _IN_CACHE, size)), stream)
        bits_N[start : start + _IN_CACHE] = high << _SHIFT_32 | low
    return np.argsort(bits_N, kind="stable")
