"""Which device a run trains on."""

from __future__ import annotations

import torch

from worldflux.errors import ConfigurationError


def resolve_device(name: str) -> torch.device:
    """The torch device for "auto", "cpu", "mps", "cuda" or "cuda:N".

    Raises:
        ConfigurationError: when that device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigurationError(
                f"device {name!r} is not there: {count} CUDA devices are visible",
                hint="use --device auto, or install a CUDA build of torch",
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device 'mps' is not there", hint="use --device auto")
    return device
