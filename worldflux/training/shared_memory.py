"""Long messages between the processes of one host, in memory that they share.

Each writes its row of a file in the host's memory, where all of them read it: nothing is sent but
a word that it is written. The file has no name any more once every process has opened it, so that
a killed run leaves nothing behind.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LONG = 16_384  # numbers of a message from which it is worth while
_FOLDER = Path("/dev/shm")  # of Linux; elsewhere, and between hosts, everything is sent


class SharedRows:
    """Rows `[world, N]` of one length: each process writes its own and reads all.

    Args:
        size, dtype: N and the type of the numbers, the same in every process, which all make it at
            the same time.
        rank, world: which of how many processes this is.
        gather: sends bytes, as many in every process, and returns those of each.

    Attributes:
        usable: whether every process has opened it: they are on one host with memory enough.
    """

    def __init__(
        self,
        size: int,
        dtype: torch.dtype,
        rank: int,
        world: int,
        gather: Callable[[bytes], list[bytes]],
    ) -> None:
        self._rank, self._gather, self._next = rank, gather, 0
        file = _FOLDER / f"worldflux-{gather(uuid.uuid4().bytes)[0].hex()}"
        if rank == 0:
            _reserve(file, 2 * world * size * dtype.itemsize)
        gather(b"1")  # rank 0 has made the file
        opened = file.is_file()
        if opened:
            # Two in turns: a process may still read one message while another writes the next.
            shared = torch.from_numpy(np.memmap(file, np.uint8, "r+"))
            self._rows = shared.view(dtype).view(2, world, size)
        self.usable = all(each == b"1" for each in gather(b"1" if opened else b"0"))
        if rank == 0:
            file.unlink(missing_ok=True)

    def of_all(self, parts: tuple[Tensor, ...]) -> Tensor:
        """The parts `[n], ...` of each process end to end, `[world, N]` in their order; valid until
        the call after the next one."""
        rows = self._rows[self._next]
        self._next = 1 - self._next
        torch.cat(parts, out=rows[self._rank])
        self._gather(b"1")  # every row is written
        return rows


def _reserve(file: Path, size: int) -> None:
    """A file with so many bytes of memory; none where the host has not so many left."""
    try:
        with file.open("xb") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
    except (OSError, AttributeError):  # no such folder, no such call, or no room
        file.unlink(missing_ok=True)
