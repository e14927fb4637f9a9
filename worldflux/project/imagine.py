"""Imagination against reality for a finished (or running) run: what `worldflux imagine` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError
from worldflux.evaluation.episodes import EVAL
from worldflux.evaluation.imagination import Imagination, imagine, write_imagination
from worldflux.evaluation.open_loop import ModelSkill
from worldflux.evaluation.recordings import SUFFIX, write_episodes
from worldflux.files import require_place
from worldflux.layout import IMAGINATION
from worldflux.progress import SILENT, Progress, on_screen
from worldflux.training.checkpoints import BEST

from .evaluate import evaluate_run
from .loader import load_project
from .open_run import OpenRun, open_run
from .trust import calibrating, calibration_of

HORIZON = 15
EPISODES = 16


@dataclass(frozen=True)
class ImaginationReport:
    """What was imagined, how well, and where it can be seen."""

    checkpoint: str
    environment: str
    context: int
    skill: ModelSkill
    picture: str
    video: str
    numbers: str
    trust: str  # how far predictions hold, or the command that measures it

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "skill": self.skill.to_dict()}

    def __str__(self) -> str:
        lines = [f"{self.environment}, checkpoint {self.checkpoint}", str(self.skill)]
        lines += [f"  {name:<9} {getattr(self, name)}" for name in ("picture", "video", "numbers")]
        lines.append(self.trust)
        return "\n".join(lines)


def imagine_run(
    folder: Path | OpenRun,
    *,
    horizon: int = HORIZON,
    out: Path | None = None,
    checkpoint: str = BEST,
    episodes: int = EPISODES,
    progress: Progress = SILENT,
) -> ImaginationReport:
    """Play fresh episodes, predict them open loop, write a picture, a video and the numbers.

    The episodes are recorded next to these, so that `what_if_run` can play them again.

    Args:
        folder: of the run; or the run itself, or a saved model (`open_model`).
        horizon: steps that the model imagines; fewer where no episode is that long.
        out: the picture to write (`.png`), its video and numbers next to it; by default
            `imagination/<checkpoint>-imagined.png` in the run folder.
    """
    require_picture(out)
    run = folder if isinstance(folder, OpenRun) else open_run(folder, checkpoint)
    envs = run.environments(episodes)
    seed = run.fresh_seed(EVAL, episodes, envs.num_envs)
    played = run.play(envs, episodes, seed, progress, record_episodes=episodes)
    envs.close()
    progress.phase("imagining")
    with run.computing():
        imagination = imagine(run.model, played.recorded, horizon)
    progress.phase("writing picture and video")
    # Not the name that training gives its own picture of the same update.
    own = run.folder / IMAGINATION / f"{Path(run.name).name}-imagined.png"
    picture = own if out is None else out
    fields = written(run, envs.spec.env_id, imagination, picture)
    if out is None:
        write_episodes(picture.with_suffix(SUFFIX), played.recorded)
    return ImaginationReport(**fields)


def require_picture(out: Path | None) -> None:
    """Refuse an --out that cannot be the picture."""
    if out is not None:
        require_place(out, "--out", makes_folders=True)
    if out is not None and out.suffix != ".png":
        raise ConfigurationError(
            f"--out names the picture, a .png file, not {out.name!r}", hint="--out picture.png"
        )


def written(
    run: OpenRun, env_id: str, imagination: Imagination, picture: Path, **facts: Any
) -> dict[str, Any]:
    """Write what was imagined, with what is known of it; the fields of its report."""
    calibration = calibration_of(run.checkpoint)
    files = write_imagination(
        imagination,
        picture.parent,
        picture.stem,
        trusted={name: kind.horizon for name, kind in calibration.kinds.items()}
        if calibration
        else {},
        env=env_id,
        model=run.manifest.get("model"),
        seed=(run.manifest.get("seeds") or {}).get("run"),
        checkpoint=run.name,
        **facts,
    )
    return {
        "checkpoint": run.name,
        "environment": env_id,
        "context": imagination.scenes[0].seen,
        "skill": imagination.skill,
        "trust": str(calibration or f"trusted: not measured, {calibrating(run.checkpoint)}"),
        **{name: str(path) for name, path in files.items()},
    }


def infer_project(root: Path | str) -> str:
    """What the generated inference.py shows: the agent acting, and its model imagining.

    Plays `[inference] episodes`, and predicts fresh ones `horizon` steps open loop.
    """
    project = load_project(Path(root))
    settings = project.sections.inference
    folder = project.root / project.training_config().output_dir
    chosen = settings.checkpoint
    with on_screen("opening the run") as screen:
        report = evaluate_run(
            folder, episodes=settings.episodes, checkpoint=chosen, progress=screen
        )
        imagined = imagine_run(folder, horizon=settings.horizon, checkpoint=chosen, progress=screen)
    return f"{report}\n{imagined}"
