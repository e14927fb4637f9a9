"""Draw an open-loop prediction: a picture of it, and the frames of a video.

Images stand as a strip (true, imagined, difference), everything else as curves over the steps of
the episode; the errors by horizon stand beside them, with their baselines.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
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
PANELS = 3  # in a row, at most
WIDTH, STRIP_HEIGHT, PANEL_HEIGHT = 11.0, 2.4, 2.4  # inches
DPI, PAPER_DPI = 100, 200
GAP = 3  # pixels between the images of the strip
MIN_TILE = 192  # pixels a side of an image in the video
# Told apart also by the colour-blind, and in print by their dashes and markers.
TRUE, IMAGINED, BASELINE = "#0067a8", "#c44f00", "#7a808a"
INK, GRID, PAPER = "#1b1f27", "#d4d8df", "#ffffff"
ERROR_UNITS = {
    "observation": "observation error",
    "reward": "reward error (reward)",
    "value": "value error (reward)",
}
# What the page shows in the dark is the same drawing in these colours.
_DARK = {
    TRUE: "#6fb7f0",
    IMAGINED: "#ff9a52",
    BASELINE: "#9aa4b2",
    INK: "#e6e9ee",
    GRID: "#39414d",
    PAPER: "#181c23",
}


def draw_imagination(
    scenes: Sequence[Scene],
    skill: ModelSkill,
    path: Path,
    *,
    subject: str = "",
    for_paper: bool = False,
) -> list[Array]:
    """Write the picture as a PNG, and as an SVG in light and dark; returns the video's frames.

    The picture has the images of every scene, and the curves of the first one. The video's frames
    are `[H, W, 3]` uint8: images larger and side by side (true, imagined, difference); where there
    are none, the picture whose curves appear step by step.

    Args:
        subject: what it is of, e.g. environment, model, seed and step; the picture's title.
        for_paper: 200 dots an inch, and a PDF too.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with mpl.rc_context(_STYLE):
        figure, over_time = _figure(scenes, skill, subject)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        # What is drawn is written as it is: laying the figure out a second time takes a second.
        figure.set_layout_engine("none")
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        shown = [scene for scene in scenes if scene.image is not None]
        if shown:
            frames = [frame for one in shown for frame in _image_frames(one)]
        else:
            frames = _curve_frames(drawn, over_time, scenes[0])
        _write(figure, drawn, path, for_paper)
    return frames


_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": INK,
    "grid.color": GRID,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "svg.hashsalt": "worldflux",
}


def _figure(scenes: Sequence[Scene], skill: ModelSkill, subject: str) -> tuple[Any, list[Any]]:
    """The whole picture, and the panels whose horizontal axis is the time of the episode."""
    from matplotlib.figure import Figure

    scene = scenes[0]
    shown = [] if scene.image is None else list(scenes)
    curves = _curves(scene)
    counts = _rows(len(curves) + len(skill.errors))
    heights = [STRIP_HEIGHT] * len(shown) + [PANEL_HEIGHT] * len(counts)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.9), dpi=DPI, layout="constrained")
    figure.suptitle("\n".join(filter(None, (subject, _title(scenes)))), fontsize=10)
    columns = math.lcm(*range(1, PANELS + 1))
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for row, one in enumerate(shown):
        _draw_strip(figure.add_subplot(grid[row, :]), one)
    panels = []
    for row, count in enumerate(counts, len(shown)):
        width = columns // count
        panels += [figure.add_subplot(grid[row, k * width : (k + 1) * width]) for k in range(count)]
    over_time = panels[: len(curves)]
    for (title, true, imagined), axes in zip(curves, panels, strict=False):
        _draw_curve(axes, title, true, imagined, scene.context)
    for (name, error), axes in zip(skill.errors.items(), panels[len(curves) :], strict=True):
        _draw_error(axes, name, error, skill.windows)
    named: dict[str, Any] = {}
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        named |= dict(zip(names, lines, strict=True))
    # One legend for all, below them, where it hides no line.
    figure.legend(named.values(), named, loc="outside lower center", ncols=len(named), fontsize=8)
    return figure, over_time


def _rows(count: int) -> list[int]:
    """So many panels in rows of at most `PANELS`, as even as can be: 4 are 2 and 2."""
    rows = -(-count // PANELS)
    return [count // rows + (row < count % rows) for row in range(rows)]


def _write(figure: Any, drawn: Array, path: Path, for_paper: bool) -> None:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from PIL import Image

    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    _aside(path.with_suffix(".svg"), lambda partial: partial.write_text(svg, encoding="utf-8"))
    for light, dark in _DARK.items():
        svg = svg.replace(light, dark)
    dark_path = path.with_name(f"{path.stem}-dark.svg")
    _aside(dark_path, lambda partial: partial.write_text(svg, encoding="utf-8"))
    if for_paper:
        pdf = path.with_suffix(".pdf")
        metadata = {"CreationDate": None}
        _aside(pdf, lambda partial: FigureCanvasPdf(figure).print_pdf(partial, metadata=metadata))
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure.set_dpi(PAPER_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(drawn).quantize(128)
    dots = (PAPER_DPI if for_paper else DPI,) * 2
    _aside(path, lambda partial: image.save(partial, format="PNG", optimize=True, dpi=dots))


def _aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file next to its place, and put it there once it is whole."""
    partial = path.with_name(f".{path.name}.tmp")
    write(partial)
    partial.replace(path)


def _title(scenes: Sequence[Scene]) -> str:
    scene = scenes[0]
    seen = "1 observation" if scene.context == 1 else f"{scene.context} observations"
    title = f"open loop: {seen} seen, then {scene.horizon} steps imagined"
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
    label = "value with the observation in sight" if title == "value" else "true"
    axes.plot(steps, true, color=TRUE, marker="o", markersize=3, label=label)
    if imagined is not None:
        style: dict[str, Any] = {"color": IMAGINED, "marker": "s", "markersize": 2.5}
        axes.plot(steps, imagined, linestyle="--", label="imagined", **style)
    axes.set_xlabel("steps since the last observation seen", fontsize=8)
    axes.set_ylabel(title, fontsize=8)
    _finish(axes)


def _draw_error(axes: Any, name: str, error: HorizonError, windows: int) -> None:
    ahead = np.arange(1, len(error.model) + 1)
    axes.plot(ahead, error.model, color=IMAGINED, marker="s", markersize=2.5, label="model")
    axes.plot(ahead, error.persistence, color=BASELINE, linestyle="--", label="persistence")
    axes.plot(ahead, error.mean, color=BASELINE, linestyle=":", label="mean of the episodes")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"steps ahead (mean over {windows} starts)", fontsize=8)
    axes.set_ylabel(f"mean absolute {ERROR_UNITS[name]}", fontsize=8)
    _finish(axes)


def _finish(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.tick_params(labelsize=7)
    axes.grid()


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
        captions = ("true", "reconstruction" if ahead <= 0 else f"imagined +{ahead}", "difference")
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
