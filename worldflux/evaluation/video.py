"""Frames to a video file: mp4 where PyAV is installed, GIF otherwise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.files import replacing
from worldflux.optional import is_installed

_GIF_HEIGHT = 240
MIN_SIDE = 192  # pixels of the longer side of what people watch


def write_video(folder: Path, name: str, frames: Sequence[NDArray[Any]], fps: float) -> Path:
    """Write frames `[H, W, 3]` uint8 as `folder/name.mp4` or `.gif`; returns the path.

    Frames of another size than the first are cropped or padded at the lower right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_av = is_installed("av")
    path = folder / f"{name}.{'mp4' if has_av else 'gif'}"
    with replacing(path) as partial:
        (_write_mp4 if has_av else _write_gif)(partial, frames, fps)
    return path


def watchable(frames: Sequence[NDArray[Any]], fps: float) -> list[NDArray[Any]]:
    """Frames `[H, W, 3]` enlarged by a whole factor where small, the last held for a second."""
    factor = max(1, -(-MIN_SIDE // max(frames[0].shape[:2])))
    large = [frame.repeat(factor, 0).repeat(factor, 1) for frame in frames]
    return large + [large[-1]] * max(1, round(fps))


def read_video(path: Path) -> tuple[list[NDArray[Any]], float]:
    """The frames `[H, W, 3]` uint8 of an mp4 file (needs PyAV), and how many a second has."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate or 1)


def to_gif(path: Path) -> bytes:
    """A video that `write_video` has written, as an animated GIF."""
    if path.suffix == ".gif":
        return path.read_bytes()
    gif = io.BytesIO()
    _write_gif(gif, *read_video(path))
    return gif.getvalue()


def _write_mp4(path: Path, frames: Sequence[NDArray[Any]], fps: float) -> None:
    import av

    height, width = (size + size % 2 for size in frames[0].shape[:2])  # h264 takes even sizes
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "26", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(_sized(frame, height, width), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_gif(path: Path | io.BytesIO, frames: Sequence[NDArray[Any]], fps: float) -> None:
    from PIL import Image

    height, width = frames[0].shape[:2]
    scale = min(1.0, _GIF_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    images = [
        Image.fromarray(_sized(frame, height, width)).resize(size).quantize(64) for frame in frames
    ]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=max(1, round(1000 / fps)),
        loop=0,
    )


def _sized(frame: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    """The frame, cropped or padded with its edge to a size."""
    cut = np.asarray(frame[:height, :width], np.uint8)
    missing = (0, height - cut.shape[0]), (0, width - cut.shape[1]), (0, 0)
    return np.ascontiguousarray(np.pad(cut, missing, mode="edge"))
