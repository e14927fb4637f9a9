"""Imagination against reality as files: a picture, a video and the errors by horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError
from worldflux.files import write_json

from .episodes import RecordedEpisode, cuda_devices
from .imagination_picture import draw_imagination
from .model_skill import ModelSkill, model_skill
from .open_loop import CONTEXT, Scene, can_imagine, imagine_scenes
from .video import write_video

FRAMES_PER_S = 4


@dataclass(frozen=True)
class Imagination:
    """Episodes as they were and as they were imagined, and the errors over many starts."""

    scenes: list[Scene]
    skill: ModelSkill


@dataclass(frozen=True)
class ImaginationFiles:
    """Where an imagination was written."""

    picture: Path
    video: Path
    numbers: Path


def imagine(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    *,
    context: int = CONTEXT,
    max_windows: int = 256,
) -> Imagination:
    """Predict recorded episodes open loop. The random streams of the caller stay as they are.

    Raises:
        CapabilityError: when the model has no encoder, dynamics or decoder part.
    """
    if not can_imagine(model):
        raise CapabilityError(
            f"{type(model).__name__} cannot imagine: it needs an encoder, dynamics and a decoder"
        )
    with torch.random.fork_rng(devices=cuda_devices(model)):
        torch.manual_seed(0)  # a pixel encoder may shift its images at random
        scenes = imagine_scenes(model, episodes, horizon, context)
        skill = model_skill(model, episodes, horizon, max_windows=max_windows)
    return Imagination(scenes, skill)


def write_imagination(
    imagination: Imagination, folder: Path, name: str, *, for_paper: bool = False, **labels: Any
) -> ImaginationFiles:
    """Write `name.png`, `.svg`, `-dark.svg`, `.mp4` (or `.gif`) and `.json` into `folder`.

    Args:
        for_paper: the PNG at 200 dots an inch, and a PDF.
        labels: what the numbers belong to, kept in the JSON; the picture's title names `env`,
            `model`, `seed`, `checkpoint` and `step`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    scenes, skill = imagination.scenes, imagination.skill
    subject = _subject(labels)
    frames = draw_imagination(scenes, skill, picture, subject=subject, for_paper=for_paper)
    video = write_video(folder, name, frames, FRAMES_PER_S)
    numbers = {
        **labels,
        "context": scenes[0].context,
        "decodes_observations": scenes[0].decodes,
        "picture": picture.name,
        "video": video.name,
        **skill.to_dict(),
    }
    path = folder / f"{name}.json"
    write_json(path, numbers)
    return ImaginationFiles(picture, video, path)


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
