"""`worldflux trust`: plays held-out episodes, and measures how far a model's predictions hold.

Legend: E episodes, H horizon, W windows (starts) of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError, ConfigurationError
from worldflux.evaluation.conformal import LEAST_EPISODES, LEVEL, FallingMap, held_out, radius
from worldflux.evaluation.episodes import TRUST, RecordedEpisode
from worldflux.evaluation.open_loop import (
    Scales,
    can_imagine,
    evenly,
    kind_of,
    reached,
    scales_of,
    window_errors,
)
from worldflux.evaluation.trust import (
    Calibration,
    KindTrust,
    Signal,
    deciding,
    remembered,
    steps_of,
    surprise,
    trusted_steps,
    windowed,
)
from worldflux.progress import SILENT, Progress
from worldflux.project.open_run import open_run
from worldflux.project.trust import save_calibration
from worldflux.training.checkpoints import BEST

from .bootstrap import mean_lower_bound

EPISODES, HORIZON = 100, 15
STEPS, WINDOWS = 128, 16  # of an episode: how much of it is read, and starts in it
ALPHA = 0.05
# By how much of its rival's score a model has to be better: less is no use, even if it is certain.
MARGIN = 0.05
MODEL, PERSISTENCE, MEAN, OTHER_ACTIONS = range(4)
_RIVALS = (PERSISTENCE, MEAN)  # "no change", and the mean: they need no model
_FEW = 100  # episodes below which the test is rarely sure (docs/trust.md)
_CONSTANT = 1e-6
_LEAST_SCORE = 1e-12


@dataclass(frozen=True)
class TrustReport:
    """What `worldflux trust` found, and where it is kept."""

    checkpoint: str
    calibration: Calibration

    def to_dict(self) -> dict[str, Any]:
        found = self.calibration
        kinds = {name: vars(kind) for name, kind in found.kinds.items()}
        own = {name: getattr(found, name) for name in ("environment", "seed", "episodes", "level")}
        return {"checkpoint": self.checkpoint, **own, "horizon": found.horizon, "kinds": kinds}

    def __str__(self) -> str:
        found = self.calibration
        title = f"{found.environment}, checkpoint {self.checkpoint}, {found.episodes} episodes"
        held = [f"{name} {kind.coverage:.1%}" for name, kind in found.kinds.items()]
        return f"{title}\n{found}\n  held in the other half of the episodes: {', '.join(held)}"


def trust_run(
    folder: Path,
    *,
    episodes: int = EPISODES,
    horizon: int = HORIZON,
    checkpoint: str = BEST,
    seed: int | None = None,
    progress: Progress = SILENT,
) -> TrustReport:
    """Calibrate a run's checkpoint on fresh episodes of its agent; the result is saved with it.

    Args:
        seed: of the episodes; by default one whose episodes neither training nor an evaluation met.

    Raises:
        CapabilityError: for a model that imagines nothing.
        ConfigurationError: for fewer than `LEAST_EPISODES` episodes.
    """
    if episodes < LEAST_EPISODES:
        raise ConfigurationError(
            f"{episodes} episodes cannot say what holds in {LEVEL:.0%} of all",
            where="--episodes",
            hint=f"--episodes {LEAST_EPISODES}, or more",
        )
    run = open_run(folder, checkpoint)
    if not can_imagine(run.model):
        raise CapabilityError(f"{type(run.model).__name__} imagines nothing to be trusted")
    envs = run.environments(episodes)
    seed = run.fresh_seed(TRUST, episodes, envs.num_envs) if seed is None else seed
    kept: dict[str, Any] = {"record_episodes": episodes, "record_steps": STEPS}
    try:
        played = run.play(envs, episodes, seed, progress, **kept).recorded
    finally:
        envs.close()
    progress.phase("calibrating")
    with run.computing():
        found = calibrate(run.model, played, horizon, environment=envs.spec.env_id, seed=seed)
    save_calibration(run.checkpoint, found)
    return TrustReport(run.name, found)


def calibrate(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    *,
    environment: str,
    seed: int,
) -> Calibration:
    """Intervals, trusted horizons and the signal of held-out episodes, `LEAST_EPISODES` or more.

    The horizon is shorter where fewer episodes than that are so long.
    """
    lengths = sorted((len(episode) for episode in episodes), reverse=True)
    steps = min(horizon, lengths[LEAST_EPISODES - 1])
    scales = scales_of(episodes)
    errors = episode_errors(model, episodes, steps, scales, seed)
    kinds = {
        name: _judged(of_kind, seed)
        for name, of_kind in errors.items()
        if np.nanmean(of_kind[:, MEAN]) > _CONSTANT  # else it never changed, and all predict it
    }
    if not kinds:
        raise CapabilityError("nothing that this model predicts ever changed in the episodes")
    signal = _signal_of(model, episodes, _held(errors, kinds), seed)
    units = {name: torch.as_tensor(unit) for name, unit in scales.units.items()}
    return Calibration(environment, seed, len(episodes), LEVEL, kinds, units, *signal)


def _signal_of(
    model: WorldModel, episodes: Sequence[RecordedEpisode], held: np.ndarray, seed: int
) -> tuple[Signal, list[float], FallingMap, float]:
    """The signal and its map to the share of predictions that held `[E, W]`, as a calibration has
    them: half of the episodes are remembered, the map is of the other half."""
    passed = [steps_of(model, episode) for episode in episodes]
    signal = remembered(passed[::2], seed)
    scores = [windowed(signal(*each)) for each in passed[1::2]]
    ordinary = np.nanquantile(np.concatenate(scores), LEVEL, axis=0).clip(1e-6)
    rows = zip(scores, map(_starts, episodes[1::2]), held[1::2], strict=True)
    pairs = [(surprise(s[at], ordinary.tolist()), share[: len(at)]) for s, at, share in rows]
    surprises, shares = (np.concatenate(column) for column in zip(*pairs, strict=True))
    usable = np.isfinite(surprises) & np.isfinite(shares)
    falling = FallingMap.of(surprises[usable], shares[usable])
    return signal, ordinary.tolist(), falling, float(np.nanmean(shares))


def _starts(episode: RecordedEpisode) -> np.ndarray:
    return evenly(0, len(episode) - 1, WINDOWS)


def episode_errors(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    scales: Scales,
    seed: int,
) -> dict[str, np.ndarray]:
    """Absolute open-loop errors by kind `[E, 4, H, W]`: of the model, persistence, the mean, and
    the model under other actions, drawn from all that were taken. NaN behind an episode's end."""
    rng = np.random.default_rng(seed)
    pool = np.concatenate([episode.actions for episode in episodes])
    found: dict[str, np.ndarray] = {}
    for index, episode in enumerate(episodes):
        starts = _starts(episode)
        valid = reached(episode, starts, horizon)
        steps = np.minimum(starts + np.arange(horizon)[:, None], len(episode) - 1)
        others = pool[rng.integers(len(pool), size=steps.shape)]
        actions = np.concatenate([episode.actions[steps], others], 1)
        twice = window_errors(model, episode, np.tile(starts, 2), horizon, scales, actions)
        for kind in {kind_of(name) for name in twice}:
            rows = np.mean([value for name, value in twice.items() if kind_of(name) == kind], 0)
            both = np.concatenate([rows[..., : len(starts)], rows[:1, :, len(starts) :]])
            shape = (len(episodes), 4, horizon, WINDOWS)
            of_kind = found.setdefault(kind, np.full(shape, np.nan))
            of_kind[index, :, :, : len(starts)] = np.where(valid, both, np.nan)
    return dict(sorted(found.items()))


def _judged(errors: np.ndarray, seed: int) -> KindTrust:
    """The intervals of one kind `[E, 4, H, W]`, and for how many steps they say something."""
    horizon = errors.shape[2]
    results = [[held_out(errors[:, rival, k]) for k in range(horizon)] for rival in range(4)]
    scores = np.array([[score for _, score in each] for each in results])  # [4, H, E]
    better = [
        [_better(scores[[MODEL, rival], k], ALPHA / horizon, seed) for rival in range(1, 4)]
        for k in range(horizon)  # one error level for all steps together
    ]
    sure = [k for k in range(horizon) if all(better[k][rival - 1] for rival in _RIVALS)]
    steps = sure[-1] + 1 if sure else 0
    reason = f"{steps + 1} ahead it is not surely better than no change or the mean"
    if steps == horizon:
        reason = f"as far as was measured: --horizon {2 * horizon} looks further"
    if steps and not any(each[OTHER_ACTIONS - 1] for each in better):
        steps, reason = 0, "it is not surely better than the same model given other actions"
    if not steps and len(errors) < _FEW:
        reason += f" ({len(errors)} episodes are few: --episodes {_FEW})"
    held = np.nanmean([share for share, _ in results[MODEL]])
    radii = [radius(errors[:, MODEL, k]) for k in range(horizon)]
    return KindTrust(radii, float(held), steps, reason)


def _better(scores: np.ndarray, alpha: float, seed: int) -> bool:
    """Whether the first of two rows of scores `[2, E]` is surely the lower, paired by episode.

    By their ratio: one large miss, as every model has, would outweigh all other episodes in a mean.
    """
    model, rival = np.log(scores[:, np.isfinite(scores).all(0)].clip(_LEAST_SCORE))
    return mean_lower_bound(rival - model + np.log(1 - MARGIN), alpha, seed) > 0


def _held(errors: dict[str, np.ndarray], kinds: dict[str, KindTrust]) -> np.ndarray:
    """Share of the predictions of each window `[E, W]` that are in their intervals, over the
    trusted horizon (at least one step)."""
    steps = max(1, trusted_steps(kinds))
    inside = []
    for name in deciding(kinds):
        own = errors[name][:, MODEL, :steps]
        within = own <= np.array(kinds[name].radius[:steps])[:, None]
        inside.append(np.where(np.isfinite(own), within, np.nan))
    joined = np.concatenate(inside, 1)
    with np.errstate(invalid="ignore"):
        held: np.ndarray = np.nansum(joined, 1) / np.isfinite(joined).sum(1)
    return held
