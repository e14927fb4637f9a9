"""What a run uses of its machine: the device, freed memory, and what the charts show of both."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from worldflux.errors import ConfigurationError

_GIB = 1 << 30
# In what numpy and torch say of a size that the machine has no memory for, or no number.
_TOO_LARGE = re.compile("allocate memory|calculation overflow|is too big|dimension exceeded")
_STATM = Path("/proc/self/statm")
# mallopt's names and glibc's highest values for them (man 3 mallopt).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_TRIM, _MOST_MMAP = 2**31 - 1, 32 * 1024 * 1024


def resolve_device(name: str) -> torch.device:
    """The torch device for "auto", "cpu", "mps", "cuda" or "cuda:N", if this machine has it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        hint = '"auto", "cpu", "mps", "cuda" or "cuda:N"'
        raise ConfigurationError(f"device = {name!r} is not allowed", hint=hint) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigurationError(
                f"device {name!r} is not available: {count} CUDA devices are visible",
                hint="use --device auto (or cpu), or install a CUDA build of torch",
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device 'mps' is not available", hint="use --device auto")
    return device


@contextmanager
def fitting(what: str, key: str, hint: str) -> Iterator[None]:
    """What is done inside may take more memory than there is: then the setting is refused."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known and not _TOO_LARGE.search(str(error)):
            raise
        message = f"this run cannot fit: {what} needs more memory than there is"
        raise ConfigurationError(message, where=key, hint=hint) from None


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors for the next ones, for the rest of this process.

    glibc returns freed blocks of megabytes to the system, which clears them again for the next
    update: a quarter of the time of learning from images on a CPU. Resident memory then stays at
    its peak. Returns False where there is no such setting (macOS, musl).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MOST_MMAP)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_TRIM))


class SystemUse:
    """Memory and processor time of this process, and memory of its device."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())

    def read(self, device: torch.device) -> dict[str, float]:
        """What is used now; processor cores as the mean since the last reading."""
        now = (time.monotonic(), time.process_time())
        elapsed_s, computed_s = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        used = {"system/processor_cores": computed_s / max(elapsed_s, 1e-9)}
        if _STATM.exists():
            pages = int(_STATM.read_text(encoding="ascii").split()[1])
            used["system/memory_gib"] = pages * os.sysconf("SC_PAGE_SIZE") / _GIB
        if device.type == "cuda":
            used["system/device_memory_gib"] = torch.cuda.memory_reserved(device) / _GIB
        return used
