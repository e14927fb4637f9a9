"""What a run drew: frames of the agent in training, videos, and what its model imagined."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import list_contained, open_contained
from worldflux.dashboard.history import to_count, to_number
from worldflux.layout import GAMEPLAY, IMAGINATION, VIDEOS
from worldflux.run_log import parse_row

FRAME_NAME = re.compile(r"(\d{8})-(\d{1,15})-(\d{1,15})\.jpg", re.ASCII)
# Media that the page may fetch: folder -> names.
MEDIA_NAMES = {
    VIDEOS: re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:mp4|webm|gif|png)"),
    IMAGINATION: re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:mp4|gif|png|svg|pdf)"),
}
NUMBERS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,115}")
MAX_FRAMES = 32
MAX_FRAME_BYTES = 64 << 10
# Of all frames of one answer; base64 makes a third more of it, and an answer stays below 1 MiB.
MAX_ANSWER_BYTES = 700 << 10
JPEG_START = b"\xff\xd8\xff"
MAX_LISTED = 200
MAX_NUMBERS_BYTES = 256 << 10
MAX_HORIZON = 10_000
MAX_NOTE = 300
KINDS = ("observation", "reward", "value")
PREDICTORS = ("model", "persistence", "mean")


def has_frames(folder: Path) -> bool:
    """Whether a run has frames of its agent in training."""
    return any(FRAME_NAME.fullmatch(entry.name) for entry in list_contained(folder, GAMEPLAY))


def read_frames(folder: Path, after: int) -> list[dict[str, Any]]:
    """The newest frames behind number `after`, oldest first, each with its JPEG in base64."""
    frames: list[dict[str, Any]] = []
    left = MAX_ANSWER_BYTES
    for entry in reversed(list_contained(folder, GAMEPLAY)):
        match = FRAME_NAME.fullmatch(entry.name)
        if match is None or not 0 < entry.size_bytes <= MAX_FRAME_BYTES:
            continue
        number, step, env_steps = map(int, match.groups())
        left -= entry.size_bytes
        if number <= after or len(frames) == MAX_FRAMES or left < 0:
            break
        try:
            with open_contained(folder, GAMEPLAY, entry.name) as file:
                data = file.read(MAX_FRAME_BYTES)
        except FileNotFoundError:
            continue  # the trainer has removed it since
        if data.startswith(JPEG_START):
            picture = base64.b64encode(data).decode("ascii")
            frames.append({"number": number, "step": step, "env_steps": env_steps, "jpeg": picture})
    return frames[::-1]


def list_videos(folder: Path) -> list[dict[str, Any]]:
    """The newest videos of a run, by name: {name, size_bytes, time}."""
    return [
        {"name": entry.name, "size_bytes": entry.size_bytes, "time": entry.modified}
        for entry in list_contained(folder, VIDEOS)
        if MEDIA_NAMES[VIDEOS].fullmatch(entry.name)
    ][-MAX_LISTED:]


def list_imaginations(folder: Path) -> list[dict[str, Any]]:
    """Pictures with what belongs to them, oldest first: {name, picture, video, ...}."""
    names = {entry.name for entry in list_contained(folder, IMAGINATION)}
    found = []
    for picture in sorted(name for name in names if name.endswith(".png")):
        if MEDIA_NAMES[IMAGINATION].fullmatch(picture) is None:
            continue
        stem = picture.removesuffix(".png")
        videos = [name for name in (f"{stem}.mp4", f"{stem}.gif") if name in names]
        found.append(
            {
                "name": stem,
                "picture": picture,
                "video": videos[0] if videos else None,
                "drawings": [n for kind in ("svg", "pdf") if (n := f"{stem}.{kind}") in names],
                "dark": n if (n := f"{stem}-dark.svg") in names else None,
                "has_errors": f"{stem}.json" in names,
            }
        )
    return found[-MAX_LISTED:]


def read_imagination(folder: Path, name: str) -> dict[str, Any] | None:
    """One evaluation's errors by horizon, with a note on what is missing.

    {name, windows, context, decodes_observations, note, errors, trusted}

    `errors[kind][predictor]` is a list of finite numbers or None, `trusted[kind]` a number of
    steps; anything else is left out.
    """
    if NUMBERS_NAME.fullmatch(name) is None:
        return None
    try:
        with open_contained(folder, IMAGINATION, f"{name}.json") as file:
            read = parse_row(file.read(MAX_NUMBERS_BYTES))
    except FileNotFoundError:
        return None
    if read is None:
        return None
    errors: dict[str, dict[str, list[float | None]]] = {}
    for kind in KINDS:
        columns = read["errors"].get(kind) if isinstance(read.get("errors"), dict) else None
        if isinstance(columns, dict) and all(isinstance(columns.get(p), list) for p in PREDICTORS):
            errors[kind] = {p: [to_number(n) for n in columns[p][:MAX_HORIZON]] for p in PREDICTORS}
    steps = read.get("trusted")
    trusted = {kind: to_count(steps.get(kind)) for kind in KINDS} if isinstance(steps, dict) else {}
    return {
        "name": name,
        "windows": to_count(read.get("windows")),
        "context": to_count(read.get("context")),
        "decodes_observations": read.get("decodes_observations") is True,
        "note": note[:MAX_NOTE] if isinstance(note := read.get("note"), str) else "",
        "errors": errors,
        "trusted": {kind: count for kind, count in trusted.items() if count is not None},
    }
