"""The newest frames of the agent acting, as the trainer left them in `gameplay/`."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import list_contained, open_contained
from worldflux.layout import GAMEPLAY

FRAME_NAME = re.compile(r"(\d{8})-(\d{1,15})-(\d{1,15})\.jpg", re.ASCII)
MAX_FRAMES = 32
MAX_FRAME_BYTES = 64 << 10
# Of all frames of one answer; base64 makes a third more of it, and an answer stays below 1 MiB.
MAX_ANSWER_BYTES = 700 << 10
JPEG_START = b"\xff\xd8\xff"


def newest_frame(folder: Path) -> str | None:
    """The name of a run's newest frame."""
    names = [entry.name for entry in list_contained(folder, GAMEPLAY)]
    return max(filter(FRAME_NAME.fullmatch, names), default=None)


def read_frames(folder: Path, after: int) -> list[dict[str, Any]]:
    """The newest frames behind number `after`, oldest first, each with its JPEG in base64."""
    entries = [entry for entry in list_contained(folder, GAMEPLAY) if entry.size_bytes]
    frames: list[dict[str, Any]] = []
    left = MAX_ANSWER_BYTES
    for entry in reversed(entries):
        match = FRAME_NAME.fullmatch(entry.name)
        if match is None or entry.size_bytes > MAX_FRAME_BYTES:
            continue
        number, step, env_steps = map(int, match.groups())
        left -= entry.size_bytes
        if number <= after or len(frames) == MAX_FRAMES or left < 0:
            break
        try:
            with open_contained(folder, GAMEPLAY, entry.name) as fd:
                data = os.pread(fd, MAX_FRAME_BYTES, 0)
        except FileNotFoundError:
            continue  # the trainer has removed it since
        if data.startswith(JPEG_START):
            picture = base64.b64encode(data).decode("ascii")
            frames.append({"number": number, "step": step, "env_steps": env_steps, "jpeg": picture})
    return frames[::-1]
