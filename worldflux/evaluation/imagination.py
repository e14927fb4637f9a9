"""Imagination against reality: predicts recorded episodes, draws a picture, films it.

Images are a strip (true, imagined, difference), everything else curves over the steps of the
episode; next to them the errors by horizon, with their baselines.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError
from worldflux.files import replacing, write_json
from worldflux.progress import counted

from .episodes import RecordedEpisode, cuda_devices
from .open_loop import (
    OBSERVATION,
    ModelSkill,
    Scene,
    can_imagine,
    evenly,
    imagine_scenes,
    model_skill,
    scene_of,
)
from .plots import AGENT, BASELINE, MODEL, draw_errors
from .video import write_video

FRAMES_PER_S = 4
MAX_COLUMNS = 16  # images of the strip
MAX_CONTEXT_COLUMNS = 2
MAX_ENTRIES = 4  # curves of a vector observation: the entries that move most
PANELS = 3  # in a row, at most
WIDTH, STRIP_HEIGHT, PANEL_HEIGHT = 11.0, 2.4, 2.4  # inches
DPI, VIDEO_DPI = 200, 100
GAP = 3  # pixels between the images of the strip
MIN_TILE = 192  # pixels a side of an image in the video
CAPTION_HEIGHT = 18  # pixels
ERROR_UNITS = {
    "observation": "observation error",
    "reward": "reward error (reward)",
    "value": "value error (reward)",
}
INK, GRID, PAPER = "#1b1f27", "#d4d8df", "#ffffff"
# The dashboard's dark picture is the same drawing in these colours.
_DARK = {
    AGENT: "#6fb7f0",
    MODEL: "#ff9a52",
    BASELINE: "#9aa4b2",
    INK: "#e6e9ee",
    GRID: "#39414d",
    PAPER: "#181c23",
}
_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": INK,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "grid.color": GRID,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "svg.hashsalt": "worldflux",
}


@dataclass(frozen=True)
class Imagination:
    """Episodes as they were and as they were imagined, and the errors over many starts."""

    scenes: list[Scene]
    skill: ModelSkill


def imagine(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    max_windows: int = 256,
    start: int | None = None,
) -> Imagination:
    """Predict recorded episodes open loop. The random streams of the caller stay as they are.

    With `start`, the one episode is predicted from that observation, all before it in sight.
    """
    if not can_imagine(model):
        raise CapabilityError(
            f"{type(model).__name__} cannot imagine: it needs an encoder, dynamics and a decoder"
        )
    with torch.random.fork_rng(devices=cuda_devices(model)):
        torch.manual_seed(0)  # a pixel encoder may shift its images at random
        if start is None:
            scenes = imagine_scenes(model, episodes, horizon)
        else:
            scenes = [scene_of(model, episodes[0], start + 1, horizon).shortened()]
        skill = model_skill(model, episodes, horizon, max_windows, start)
    return Imagination(scenes, skill)


def write_imagination(
    imagination: Imagination,
    folder: Path,
    name: str,
    *,
    trusted: Mapping[str, int] | None = None,
    **labels: Any,
) -> dict[str, Path]:
    """Write picture (PNG, SVG light and dark, PDF), video and numbers (JSON) as `folder/name`.

    The picture has the images of every scene, and the curves of the first one. The video shows
    images larger and side by side; without imagined ones, the picture whose curves appear step by
    step.

    Args:
        trusted: steps that predictions of each kind hold for, where that was measured; drawn as a
            line over the errors.
        labels: what the numbers belong to, kept in the JSON; the picture's title names `env`,
            `model`, `seed`, `checkpoint` and `step`.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    scenes, skill = imagination.scenes, imagination.skill
    with mpl.rc_context(_STYLE):
        figure, over_time = _figure(scenes, skill, _subject(labels), trusted or {})
        drawn = _pixels(figure)
        # What was drawn is written as it is: laying the figure out again takes a second.
        figure.set_layout_engine("none")
        _write_picture(figure, picture)
    if scenes[0].image not in scenes[0].imagined:
        frames = _curve_frames(drawn, over_time, scenes[0])
    else:
        frames = [frame for scene in scenes for frame in _image_frames(scene)]
    video = write_video(folder, name, frames, FRAMES_PER_S)
    numbers = {
        **labels,
        "context": scenes[0].seen,
        "decodes_observations": scenes[0].decodes,
        "picture": picture.name,
        "video": video.name,
        "trusted": dict(trusted or {}),
        **skill.to_dict(),
    }
    write_json(folder / f"{name}.json", numbers)
    return {"picture": picture, "video": video, "numbers": folder / f"{name}.json"}


def _subject(labels: dict[str, Any]) -> str:
    """The title's words: "Pendulum-v1, tdmpc2:ci, seed 3, update 2,500"."""
    words = [str(labels[name]) for name in ("env", "model") if labels.get(name)]
    if labels.get("seed") is not None:
        words.append(f"seed {labels['seed']}")
    if labels.get("step") is not None:
        words.append(f"update {labels['step']:,}")
    elif labels.get("checkpoint"):
        words.append(f"checkpoint {labels['checkpoint']}")
    return ", ".join(words)


def _figure(
    scenes: Sequence[Scene], skill: ModelSkill, subject: str, trusted: Mapping[str, int]
) -> tuple[Any, list[Any]]:
    """The whole picture, and the panels whose horizontal axis is the time of the episode."""
    from matplotlib.figure import Figure

    scene = scenes[0]
    shown = [] if scene.image is None else list(scenes)
    curves = _curves(scene)
    counts = _rows(len(curves) + len(skill.errors))
    strips = [STRIP_HEIGHT * len(_shown_images(one)) / 3 for one in shown]
    heights = strips + [PANEL_HEIGHT] * len(counts)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.9), dpi=VIDEO_DPI, layout="constrained")
    figure.suptitle("\n".join(filter(None, (subject, _title(scenes, skill.note)))), fontsize=10)
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
        draw_errors(axes, vars(error), skill.windows, ERROR_UNITS[name])
        if trusted.get(name, skill.horizon) < skill.horizon:
            until = trusted[name] + 0.5
            axes.axvline(until, color=AGENT, linestyle="-.", label="trusted to the left")
        axes.grid()
    named: dict[str, Any] = {}
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        named |= dict(zip(names, lines, strict=True))
    # One legend for all, below them, where it hides no line.
    figure.legend(named.values(), named, loc="outside lower center", ncols=len(named), fontsize=8)
    return figure, over_time


def _rows(count: int) -> list[int]:
    """Panels per row, at most `PANELS`, as evenly as possible: 4 are 2 and 2."""
    rows = -(-count // PANELS)
    return [count // rows + (row < count % rows) for row in range(rows)]


def _pixels(figure: Any) -> np.ndarray:
    """The drawn figure `[H, W, 3]` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _write_picture(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from PIL import Image

    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    with replacing(path.with_suffix(".svg")) as partial:
        partial.write_text(svg, encoding="utf-8")
    for light, dark in _DARK.items():
        svg = svg.replace(light, dark)
    with replacing(path.with_name(f"{path.stem}-dark.svg")) as partial:
        partial.write_text(svg, encoding="utf-8")
    with replacing(path.with_suffix(".pdf")) as partial:
        FigureCanvasPdf(figure).print_pdf(partial, metadata={"CreationDate": None})
    figure.set_dpi(DPI)
    image = Image.fromarray(_pixels(figure)).quantize(128)
    with replacing(path) as partial:
        image.save(partial, format="PNG", optimize=True, dpi=(DPI, DPI))


def _title(scenes: Sequence[Scene], note: str) -> str:
    scene = scenes[0]
    seen = counted(scene.seen, "observation")
    title = f"open loop: {seen} seen, then {scene.horizon} steps imagined"
    if len(scenes) > 1:
        title += f", in each of {len(scenes)} episodes"
    return f"{title}\n{note}" if note else title


def _curves(scene: Scene) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """(title, true `[T]`, imagined `[T]` or None) of everything that is one number a step."""
    found: list[tuple[str, np.ndarray, np.ndarray | None]] = []
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


def _draw_curve(
    axes: Any, title: str, true: np.ndarray, imagined: np.ndarray | None, context: int
) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = np.arange(len(true)) - (context - 1)
    axes.axvspan(steps[0], 0, color=BASELINE, alpha=0.15, linewidth=0)
    # Nobody knows a true value: this is the critic's output with the observation in sight.
    label = "value with the observation in sight" if title == "value" else "true"
    axes.plot(steps, true, color=AGENT, marker="o", markersize=3, label=label)
    if imagined is not None:
        axes.plot(steps, imagined, "s--", color=MODEL, markersize=2.5, label="imagined")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel("steps since the last observation seen")
    axes.set_ylabel(title)
    axes.grid()


def _draw_strip(axes: Any, scene: Scene) -> None:
    rows = _shown_images(scene)
    first = max(0, scene.context - MAX_CONTEXT_COLUMNS)
    chosen = evenly(first, scene.length - 1, MAX_COLUMNS + scene.context - first)
    height, width = rows["true"].shape[1:3]
    canvas = np.full((len(rows) * (height + GAP), len(chosen) * (width + GAP), 3), 255, np.uint8)
    for row, images in enumerate(rows.values()):
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
    axes.set_yticks(np.arange(len(rows)) * (height + GAP) + height / 2, list(rows), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _shown_images(scene: Scene) -> dict[str, np.ndarray]:
    """True, imagined and absolute difference `[T, H, W, 3]` uint8; true alone if not decoded."""
    name = scene.image
    assert name is not None
    true = _last_colours(scene.true[name])
    if name not in scene.imagined:
        return {"true": _bytes_of(true)}
    drawn = np.nan_to_num(_last_colours(scene.imagined[name]))
    images = {"true": true, "imagined": drawn, "difference": np.abs(true - drawn)}
    return {label: _bytes_of(pixels) for label, pixels in images.items()}


def _last_colours(images: np.ndarray) -> np.ndarray:
    """`[T, C, H, W]` as RGB: of a stack of frames the newest one, of one channel a grey."""
    channels = images.shape[1]
    newest = images[:, -3:] if channels % 3 == 0 else images[:, -1:].repeat(3, 1)
    return newest.transpose(0, 2, 3, 1)


def pixels_of(image: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` uint8 of one image `[C, H, W]` in [0, 1]."""
    return _bytes_of(_last_colours(image[None]))[0]


def _bytes_of(images: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = (images.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    return pixels


def _image_frames(scene: Scene) -> list[np.ndarray]:
    """Frames `[H, W, 3]` uint8: true, imagined and difference, a caption above each."""
    from PIL import Image, ImageDraw

    columns = _shown_images(scene).values()
    height, width = scene.true[str(scene.image)].shape[2:]
    scale = max(1, -(-MIN_TILE // height))
    size = width * scale, height * scale
    frames = []
    for index in range(scene.length):
        ahead = index - (scene.context - 1)
        frame = Image.new("RGB", (3 * size[0], size[1] + CAPTION_HEIGHT), "white")
        pen = ImageDraw.Draw(frame)
        captions = ("true", "reconstruction" if ahead <= 0 else f"imagined +{ahead}", "difference")
        for column, (images, caption) in enumerate(zip(columns, captions, strict=True)):
            tile = Image.fromarray(images[index]).resize(size, Image.Resampling.NEAREST)
            frame.paste(tile, (column * size[0], CAPTION_HEIGHT))
            pen.text((column * size[0] + 4, 3), caption, fill="black")
        frames.append(np.asarray(frame))
    return frames


def _curve_frames(drawn: np.ndarray, over_time: list[Any], scene: Scene) -> list[np.ndarray]:
    """The drawn picture `[H, W, 3]` with its curves hidden after a step, for each step."""
    frames = []
    for index in range(scene.length):
        frame = drawn.copy()
        for axes in over_time:
            box = axes.bbox
            x, _ = axes.transData.transform((index - (scene.context - 1) + 0.3, 0.0))
            bottom, top = len(drawn) - int(box.y0) - 2, len(drawn) - int(box.y1) + 2
            frame[top:bottom, max(int(x), int(box.x0)) : int(box.x1) - 1] = 255
        frames.append(frame)
    return frames
