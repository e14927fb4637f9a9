"""Frames to a video file: mp4 where PyAV is installed, GIF otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GIF_HEIGHT = 240


def write_video(folder: Path, name: str, frames: Sequence[NDArray[Any]], fps: int) -> Path:
    """Write frames `[H, W, 3]` uint8 as `folder/name.mp4` or `.gif`; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("av") is not None:
        return _write_mp4(folder / f"{name}.mp4", frames, fps)
    return _write_gif(folder / f"{name}.gif", frames, fps)


def _write_mp4(path: Path, frames: Sequence[NDArray[Any]], fps: int) -> Path:
    import av

    height, width = (size - size % 2 for size in frames[0].shape[:2])  # h264 takes even sizes
    partial = path.with_name(f".{path.name}.tmp")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            image = np.ascontiguousarray(frame[:height, :width], dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    partial.replace(path)
    return path


def _write_gif(path: Path, frames: Sequence[NDArray[Any]], fps: int) -> Path:
    from PIL import Image

    images = []
    for frame in frames:
        image = Image.fromarray(np.asarray(frame, dtype=np.uint8))
        scale = min(1.0, _GIF_HEIGHT / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        images.append(image.quantize(64))
    partial = path.with_name(f".{path.name}.tmp")
    images[0].save(
        partial,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
    )
    partial.replace(path)
    return path
