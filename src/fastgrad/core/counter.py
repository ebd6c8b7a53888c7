"""Threefry-2x32 with 20 rounds: a block cipher cut down to a random number generator without state.

J. Salmon, M. Moraes, R. Dror, D. Shaw 2011, *Parallel random numbers: as easy as 1, 2, 3*, SC'11: two 32-bit words of a
key and two of a counter in, two random words out; passes BigCrush. Additions, rotations and exclusive ors alone,
so that it runs in vector registers. The known answers of Random123 stand in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Of the rounds: four of the one, four of the other, and so on."""
PARITY = 0x1BD11BDA
"""Makes a third word of the key, so that no key gives three zeros (Threefish's constant, cut to 32 bits)."""
BLOCKS = 5
"""Blocks of four rounds; after each the key is added anew."""


def threefry2x32(k0: Any, k1: Any, c0: Any, c1: Any) -> tuple[Any, Any]:
    """The two words for the key ``k0, k1`` and the counter ``c0, c1``, uint32 arrays or scalars that broadcast."""
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(PARITY))
    x, y = c0 + k0, c1 + k1
    for block in range(BLOCKS):
        for r in ROTATIONS[block % 2]:
            x = x + y
            y = ((y << np.uint32(r)) | (y >> np.uint32(32 - r))) ^ x
        x = x + keys[(block + 1) % 3]
        y = y + (keys[(block + 2) % 3] + np.uint32(block + 1))
    return x, y


def mixed(k0: Any, k1: Any, c0: Any, c1: Any) -> Any:
    """32 random bits: one word of the block exclusive or the other."""
    x, y = threefry2x32(k0, k1, c0, c1)
    return x ^ y


def both(k0: Any, k1: Any, c0: Any, c1: Any) -> Any:
    """64 random bits: the first word of the block is the high one."""
    x, y = threefry2x32(k0, k1, c0, c1)
    return (x.astype(np.uint64) << np.uint64(32)) | y.astype(np.uint64)
