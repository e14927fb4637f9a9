"""What a run takes of its machine, for the rows of metrics.jsonl and the page's charts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

_GIB = 1 << 30
_STATM = Path("/proc/self/statm")


class SystemUse:
    """Memory and processor time of this process, and memory of its device."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())

    def read(self, device: torch.device) -> dict[str, float]:
        """What is used now; processor cores as the mean since the last reading.

        What the system does not tell is left out.
        """
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
