"""Random bits that are a function of where they are used: Philox4x32-10 in tensor operations.

The same bits on any device, in any order and for any part of them, with no state. (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011.)
"""

import torch
from torch import Tensor

_MULTIPLY = 0xD2511F53, 0xCD9E8D57
_KEY_STEP = 0x9E3779B9, 0xBB67AE85
_LOW_32 = 0xFFFFFFFF


def philox(key: tuple[int, int], counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four words for each counter of four words: int64 tensors, of shapes that broadcast, holding 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _MULTIPLY[0] * c0, _MULTIPLY[1] * c2  # modulo 2^64, with the bits of the unsigned ones
        c0, c2 = (product1 >> 32 & _LOW_32) ^ c1 ^ k0, (product0 >> 32 & _LOW_32) ^ c3 ^ k1
        c1, c3 = product1 & _LOW_32, product0 & _LOW_32
        k0, k1 = (k0 + _KEY_STEP[0]) & _LOW_32, (k1 + _KEY_STEP[1]) & _LOW_32
    return c0, c1, c2, c3


BITS = 128  # of one counter


def bits(key: tuple[int, int], step: int | Tensor, rows: slice, columns: slice, device: torch.device | str) -> Tensor:
    """These rows and columns of the endless matrix of random bits that belongs to a key and a step: uint8, 0 or 1.

    A step that is a tensor (int64, of no dimension, on the device) is read there, and not by the host.
    """
    first = columns.start // BITS
    block_1N = torch.arange(first, -(-columns.stop // BITS), device=device)[None]
    row_R1 = torch.arange(rows.start, rows.stop, device=device)[:, None]
    if not isinstance(step, Tensor):
        step = torch.full((), step, device=device)
    words = philox(key, (block_1N, row_R1, step & _LOW_32, step >> 32))
    words_RN4 = torch.stack(torch.broadcast_tensors(*words), dim=2)
    bytes_RK = words_RN4.to(torch.int32).view(torch.uint8).flatten(1)  # the lowest first
    bits_RU = (bytes_RK[..., None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1).flatten(1)
    return bits_RU[:, columns.start - first * BITS : columns.stop - first * BITS]
