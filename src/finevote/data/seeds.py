"""One number from several, so that randomness is a function of (seed, epoch, image) and nothing else."""

import hashlib


def combine_seeds(*parts: int) -> int:
    """Return a well-mixed seed in [0, 2^63), the same on every machine, for any integers in this order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
