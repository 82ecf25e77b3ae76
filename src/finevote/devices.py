"""What this machine can compute on."""

import torch

from finevote.errors import ArgumentError


def find_accelerator() -> str:
    """Return "cuda" or "mps" where there is such a GPU, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_device(device: torch.device | str) -> torch.device:
    """Return a device by name, "auto" for a GPU where there is one.

    Raises:
        ArgumentError: it is not there.
    """
    if device == "auto":
        return torch.device(find_accelerator())
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"device={str(device)!r} cannot be used ({reason}): give 'cpu' or 'auto'") from None
