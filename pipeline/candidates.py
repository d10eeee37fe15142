"""Which clips may be alike, without comparing all with all.

Locality-sensitive hashing by bit sampling (Indyk, Motwani, Approximate Nearest Neighbors, 1998): a
table sorts all hashes by a few bits, drawn by SEED, and clips that meet there are candidates.
Hashes of copies differ in a sixth of their bits, so they meet in some of the tables; strangers
seldom do, because more clips are sorted by more bits. Work and memory grow as N log N.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.fingerprints import Hashes

TABLES = 16
SEED = 0
SPARE_BITS = 5
"""Bits beyond those that would give every hash a place of its own: half of a clip's hashes meet a
stranger in one of the tables, and copies still meet often enough."""
LEAST_BITS, MOST_BITS = 12, 28
NEIGHBOURS = 12
"""Clips with the very same bits are paired with so many others of them, drawn by SEED: a studio
seen in ten thousand clips would make fifty million pairs. Each table draws others."""

Ints = npt.NDArray[np.int64]


def candidates(hashes: Hashes, owners: Ints, hash_bits: int) -> Ints:
    """Pairs of owners that share the drawn bits of some hash in some table.

    Args:
        hashes: of all clips, one after the other; 0 says nothing and is left out.
        owners: the clip of each.
        hash_bits: how many bits a hash has.

    Returns:
        (pairs, 2), the smaller number first, each once, in ascending order.
    """
    hashes, owners = hashes[hashes != 0], owners[hashes != 0]
    if not len(hashes):
        return np.zeros((0, 2), np.int64)
    rng = np.random.default_rng(SEED)
    width = math.ceil(math.log2(len(hashes))) + SPARE_BITS
    width = min(max(width, LEAST_BITS), MOST_BITS, hash_bits)
    count = int(owners.max()) + 1
    found = [
        _table(_sampled(hashes, rng.choice(hash_bits, width, replace=False)), owners,
               rng.permutation(count), count)
        for _ in range(TABLES)
    ]  # fmt: skip
    codes = np.unique(np.concatenate(found))
    return np.stack([codes // count, codes % count], 1)


def _sampled(hashes: Hashes, bits: Ints) -> Hashes:
    """Some bits of each hash, as a number."""
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(bits):
        keys |= ((hashes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return keys


def _table(keys: Hashes, owners: Ints, order: Ints, count: int) -> Ints:
    """Codes (smaller owner x count + larger) of owners with the same key, near in `order`."""
    entries = np.unique((keys << np.uint64(32)) | order[owners].astype(np.uint64))
    keys, ranks = entries >> np.uint64(32), (entries & np.uint64(0xFFFFFFFF)).astype(np.int64)
    owner_at = np.argsort(order)
    owners = owner_at[ranks]
    codes = []
    for step in range(1, NEIGHBOURS + 1):
        same = keys[:-step] == keys[step:]
        if not same.any():
            break
        one, other = owners[:-step][same], owners[step:][same]
        codes.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.unique(np.concatenate(codes)) if codes else np.zeros(0, np.int64)
