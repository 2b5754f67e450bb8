"""Training randomness as a function of (seed, step, rank), not of state.

What step k draws doesn't depend on what was drawn before it, so a resumed run needs no saved
generator to continue exactly.
"""

import hashlib

import torch


def stream_seed(seed: int, step: int, rank: int, stream: str) -> int:
    """A 63-bit seed; different for each step, rank and stream ("noise", "flip", …)."""
    text = f"{seed}/{step}/{rank}/{stream}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(seed: int, step: int, rank: int, stream: str) -> torch.Generator:
    """A CPU generator: the same draws on every device."""
    return torch.Generator().manual_seed(stream_seed(seed, step, rank, stream))
