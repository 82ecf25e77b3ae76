"""What this machine can compute on."""

import torch


def find_accelerator() -> str:
    """Return "cuda" or "mps" where there is such a GPU, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
