"""What the C library does with the memory of freed tensors."""

from __future__ import annotations

import ctypes

# mallopt's names and glibc's highest values for them (man 3 mallopt).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_TRIM, _MOST_MMAP = 2**31 - 1, 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors for the next ones, for the rest of this process.

    glibc hands freed blocks of megabytes back to the system, which clears them anew for the next
    update: a quarter of the time of learning from images on a CPU. Resident memory then stays at
    its highest point between updates. Returns False where there is no such setting (macOS,
    Windows, musl), and nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MOST_MMAP)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_TRIM))
