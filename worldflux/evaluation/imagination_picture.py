"""Draw an open-loop prediction: a picture of it, and the frames of a video.

Images stand as a strip (true, imagined, difference), everything else as curves over the steps of
the episode; the errors by horizon stand beside them, with their baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model_skill import NO_DECODER, HorizonError, ModelSkill
from .open_loop import OBSERVATION, Scene

Array = NDArray[Any]

MAX_COLUMNS = 16  # images of the strip
MAX_CONTEXT_COLUMNS = 2
MAX_ENTRIES = 4  # curves of a vector observation: the entries that move most
COLUMNS = 3
STRIP_HEIGHT, PANEL_HEIGHT = 2.4, 2.3  # inches
DPI = 100
GAP = 3  # pixels between the images of the strip
MIN_TILE = 192  # pixels a side of an image in the video
TRUE, IMAGINED, BASELINE = "#1f5fbf", "#c4570c", "#8a8f98"
ERROR_UNITS = {"observation": "observation error", "reward": "reward error", "value": "value error"}


def draw_imagination(scenes: Sequence[Scene], skill: ModelSkill, path: Path) -> list[Array]:
    """Write the picture as a PNG; returns the video's frames `[H, W, 3]` uint8.

    The picture has the images of every scene, and the curves of the first one. The video shows
    images larger and side by side (true, imagined, difference); where there are none, the picture
    whose curves appear step by step.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    scene = scenes[0]
    shown = [] if scene.image is None else list(scenes)
    curves = _curves(scene)
    count = len(curves) + len(skill.errors)
    rows = -(-count // COLUMNS)
    heights = [STRIP_HEIGHT] * len(shown) + [PANEL_HEIGHT] * rows
    figure = Figure(figsize=(11, sum(heights) + 0.4), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(_title(scenes), fontsize=10)
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for row, one in enumerate(shown):
        _draw_strip(figure.add_subplot(grid[row, :]), one)
    places = [(len(shown) + k // COLUMNS, k % COLUMNS) for k in range(count)]
    over_time = []
    for (title, true, imagined), place in zip(curves, places, strict=False):
        over_time.append(figure.add_subplot(grid[place]))
        _draw_curve(over_time[-1], title, true, imagined, scene.context)
    for (name, error), place in zip(skill.errors.items(), places[len(curves) :], strict=True):
        _draw_error(figure.add_subplot(grid[place]), ERROR_UNITS[name], error)
    canvas.draw()
    # What is drawn is written as it is: laying the figure out a second time takes a second.
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    partial = path.with_name(f".{path.name}.tmp")
    Image.fromarray(drawn).quantize(128).save(partial, format="PNG", optimize=True)
    partial.replace(path)
    if shown:
        return [frame for one in shown for frame in _image_frames(one)]
    return _curve_frames(drawn, over_time, scene)


def _title(scenes: Sequence[Scene]) -> str:
    scene = scenes[0]
    seen = "1 observation" if scene.context == 1 else f"{scene.context} observations"
    title = f"{seen} seen, then {scene.horizon} steps imagined without looking"
    if len(scenes) > 1:
        title += f", in each of {len(scenes)} episodes"
    return title if scene.decodes else f"{title}; {NO_DECODER}"


def _curves(scene: Scene) -> list[tuple[str, Array, Array | None]]:
    """(title, true `[T]`, imagined `[T]` or None) of everything that is one number a step."""
    found: list[tuple[str, Array, Array | None]] = []
    for name, values in scene.true.items():
        imagined = scene.imagined.get(name)
        if values.ndim == 1:
            found.append((name, values, imagined))
        elif values.ndim == 2 and imagined is not None:
            moving = np.argsort(-values.std(0), kind="stable")[:MAX_ENTRIES]
            for entry in sorted(int(index) for index in moving):
                title = f"{name.removeprefix(OBSERVATION)}[{entry}]"
                found.append((title, values[:, entry], imagined[:, entry]))
    return found


def _draw_curve(axes: Any, title: str, true: Array, imagined: Array | None, context: int) -> None:
    steps = np.arange(len(true)) - (context - 1)
    axes.axvspan(steps[0], 0, color=BASELINE, alpha=0.15, linewidth=0)
    # Nobody knows a true value: this is what the critic says with the observation in sight.
    axes.plot(steps, true, color=TRUE, marker=".", label="in sight" if title == "value" else "true")
    if imagined is not None:
        axes.plot(steps, imagined, color=IMAGINED, marker=".", label="imagined")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("steps since the last observation seen", fontsize=8)
    _finish(axes)


def _draw_error(axes: Any, title: str, error: HorizonError) -> None:
    ahead = np.arange(1, len(error.model) + 1)
    axes.plot(ahead, error.model, color=IMAGINED, marker=".", label="model")
    axes.plot(ahead, error.persistence, color=BASELINE, linestyle="--", label="persistence")
    axes.plot(ahead, error.mean, color=BASELINE, linestyle=":", label="mean")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("steps ahead", fontsize=8)
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _draw_strip(axes: Any, scene: Scene) -> None:
    true, imagined, difference = _shown_images(scene)
    first = max(0, scene.context - MAX_CONTEXT_COLUMNS)
    count = min(MAX_COLUMNS + scene.context - first, scene.length - first)
    chosen = np.unique(np.linspace(first, scene.length - 1, count).round().astype(int))
    height, width = true.shape[1:3]
    canvas = np.full((3 * (height + GAP), len(chosen) * (width + GAP), 3), 255, np.uint8)
    for row, images in enumerate((true, imagined, difference)):
        for column, index in enumerate(chosen):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[top : top + height, left : left + width] = images[index]
    axes.imshow(canvas, interpolation="nearest")
    ahead = chosen - (scene.context - 1)
    axes.set_xticks(
        np.arange(len(chosen)) * (width + GAP) + width / 2,
        ["seen" if step <= 0 else f"+{step}" for step in ahead],
        fontsize=8,
    )
    labels = ["true", "imagined", "difference"]
    axes.set_yticks(np.arange(3) * (height + GAP) + height / 2, labels, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _shown_images(scene: Scene) -> tuple[Array, Array, Array]:
    """True, imagined and absolute difference `[T, H, W, 3]` uint8; black where nothing is said."""
    name = scene.image
    assert name is not None
    true = _last_colours(scene.true[name])
    imagined = scene.imagined.get(name)
    drawn = np.zeros_like(true) if imagined is None else np.nan_to_num(_last_colours(imagined))
    return _bytes_of(true), _bytes_of(drawn), _bytes_of(np.abs(true - drawn))


def _last_colours(images: Array) -> Array:
    """`[T, C, H, W]` as RGB: of a stack of frames the newest one, of one channel a grey."""
    channels = images.shape[1]
    newest = images[:, -3:] if channels % 3 == 0 else images[:, -1:].repeat(3, 1)
    return newest.transpose(0, 2, 3, 1)


def _bytes_of(images: Array) -> Array:
    pixels: Array = (images.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    return pixels


def _image_frames(scene: Scene) -> list[Array]:
    from PIL import Image, ImageDraw

    columns = _shown_images(scene)
    height, width = columns[0].shape[1:3]
    scale = max(1, -(-MIN_TILE // height))
    bar = 18
    frames = []
    for index in range(scene.length):
        ahead = index - (scene.context - 1)
        frame = Image.new("RGB", (3 * width * scale, height * scale + bar), "white")
        pen = ImageDraw.Draw(frame)
        captions = ("true", "seen" if ahead <= 0 else f"imagined +{ahead}", "difference")
        for column, (images, caption) in enumerate(zip(columns, captions, strict=True)):
            left = column * width * scale
            tile = Image.fromarray(images[index])
            frame.paste(tile.resize((width * scale, height * scale), 0), (left, bar))
            pen.text((left + 4, 3), caption, fill="black")
        frames.append(np.asarray(frame))
    return frames


def _curve_frames(whole: Array, over_time: list[Any], scene: Scene) -> list[Array]:
    """The drawn picture `[H, W, 3]` with its curves hidden behind a step, for each step."""
    frames = []
    for index in range(scene.length):
        frame = whole.copy()
        for axes in over_time:
            box = axes.bbox
            x, _ = axes.transData.transform((index - (scene.context - 1) + 0.3, 0.0))
            bottom, top = len(whole) - int(box.y0) - 2, len(whole) - int(box.y1) + 2
            frame[top:bottom, max(int(x), int(box.x0)) : int(box.x1) - 1] = 255
        frames.append(frame)
    return frames
