"""Does the model predict: open-loop error of held-out episodes by horizon, beside two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.world_model import WorldModel

from .episodes import RecordedEpisode, cuda_devices
from .open_loop import OBSERVATION, fitting_window, in_model_units, predict, received_rewards

Array = NDArray[Any]
NO_DECODER = "this model does not decode observations: reward and value only"


@dataclass(frozen=True)
class HorizonError:
    """Mean absolute error by horizon, `[H]` each: index k - 1 is k steps ahead.

    `persistence` predicts that what was seen last stays, `mean` the mean over the episodes (of
    values: over their own episode).
    """

    model: Array
    persistence: Array
    mean: Array

    def to_dict(self) -> dict[str, list[float]]:
        """The numbers, JSON-ready."""
        return {name: [float(value) for value in column] for name, column in vars(self).items()}


@dataclass(frozen=True)
class ModelSkill:
    """Open-loop errors over `windows` starts, each with all earlier observations in sight.

    Observations: images in shares of full brightness, vectors in standard deviations of each
    entry over the episodes. Rewards: as they came. Values: against what the critic says once the
    observation is in sight. None where the model does not predict it (TD-MPC2 without a decoder
    predicts no observation).
    """

    horizon: int
    windows: int
    observation: HorizonError | None
    reward: HorizonError | None
    value: HorizonError | None

    @property
    def errors(self) -> dict[str, HorizonError]:
        """What the model predicts, by name."""
        named = {"observation": self.observation, "reward": self.reward, "value": self.value}
        return {name: error for name, error in named.items() if error is not None}

    def to_dict(self) -> dict[str, Any]:
        """The numbers, JSON-ready."""
        errors = {name: error.to_dict() for name, error in self.errors.items()}
        return {"horizon": self.horizon, "windows": self.windows, "errors": errors}

    @property
    def shown_horizons(self) -> list[int]:
        """A few steps ahead, from one to the last."""
        return sorted({1, max(1, self.horizon // 4), max(1, self.horizon // 2), self.horizon})

    def __str__(self) -> str:
        lines = [f"open-loop error over {self.windows} starts:"]
        for name, error in self.errors.items():
            lines.append(f"  {name:<12} steps ahead      model  persistence       mean")
            for k in sorted(
                {1, max(1, self.horizon // 4), max(1, self.horizon // 2), self.horizon}
            ):
                columns = (error.model, error.persistence, error.mean)
                lines.append(f"  {k:24d} " + " ".join(f"{c[k - 1]:11.4f}" for c in columns))
        if self.observation is None:
            lines.append(f"  {NO_DECODER}")
        return "\n".join(lines)


def model_skill(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    *,
    context: int = 1,
    max_windows: int = 256,
) -> ModelSkill:
    """Predict recorded episodes open loop from many starts and compare with what happened.

    Args:
        horizon: steps ahead; fewer where no episode is that long.
        context: observations in sight at the first start of an episode.
        max_windows: at most about so many starts, evenly spaced over the episodes.
    """
    context, steps = fitting_window(episodes, horizon, context)
    usable = [episode for episode in episodes if len(episode) >= context]
    units = _Units(usable)
    sums: dict[str, _Sums] = {}
    windows = 0
    for episode in usable:
        starts = _starts(len(episode), context, max(1, max_windows // len(usable)))
        with torch.random.fork_rng(devices=cuda_devices(model)):
            torch.manual_seed(0)  # a pixel encoder may shift its images at random
            prediction = predict(model, episode, starts, steps)
        reached = np.minimum(starts[None, :] + 1 + np.arange(steps)[:, None], len(episode))
        truth = {**in_model_units(episode.obs), "reward": received_rewards(episode)}
        if "value" in prediction.seen:
            truth["value"] = prediction.seen["value"]
        for name, imagined in prediction.imagined.items():
            mean = units.mean.get(name, truth[name].mean())
            guesses = (imagined, truth[name][starts][None], mean)
            errors = [
                units.error(name, guess, truth[name][reached], len(starts)) for guess in guesses
            ]
            kind = "observation" if name.startswith(OBSERVATION) else name
            sums.setdefault(kind, _Sums(steps)).add(errors, prediction.valid)
        windows += len(starts)
    found = {name: total.error() for name, total in sums.items()}
    return ModelSkill(
        steps, windows, found.get("observation"), found.get("reward"), found.get("value")
    )


class _Units:
    """Means of everything over the episodes, and what one unit of an observation's error is."""

    def __init__(self, episodes: Sequence[RecordedEpisode]) -> None:
        self.mean: dict[str, Any] = {
            "reward": float(np.concatenate([episode.rewards for episode in episodes]).mean())
        }
        self._unit: dict[str, Any] = {}
        for name in episodes[0].obs:
            key = OBSERVATION + name
            columns = [in_model_units({name: episode.obs[name]})[key] for episode in episodes]
            count = sum(len(column) for column in columns)
            mean = sum(column.sum(0, dtype=np.float64) for column in columns) / count
            self.mean[key] = np.asarray(mean, np.float32)
            if episodes[0].obs[name].dtype != np.uint8:
                spread = sum(np.square(c - mean).sum(0, dtype=np.float64) for c in columns) / count
                deviation = np.sqrt(np.asarray(spread, np.float32))
                # An entry that never moves is compared as it is.
                self._unit[key] = np.where(deviation > 1e-6, deviation, np.float32(1.0))

    def error(self, name: str, guess: Any, happened: Array, windows: int) -> Array:
        """Mean absolute error `[H, W]` of a guess at `happened` `[H, W, ...]`."""
        error = np.abs(guess - happened) / self._unit.get(name, 1.0)
        mean: Array = error.reshape(len(happened), windows, -1).mean(-1)
        return mean


class _Sums:
    """Absolute errors of three predictors, added up over windows."""

    def __init__(self, horizon: int) -> None:
        self._total = np.zeros((3, horizon))
        self._count = np.zeros(horizon)

    def add(self, errors: Sequence[Array], valid: Array) -> None:
        """One `[H, W]` for each predictor; windows count where they are valid `[H, W]`."""
        self._total += np.stack([np.where(valid, error, 0.0).sum(1) for error in errors])
        self._count += valid.sum(1)

    def error(self) -> HorizonError:
        """The means."""
        return HorizonError(*(self._total / self._count))


def _starts(length: int, context: int, most: int) -> Array:
    """Starts from the end of the context to the last observation that an action followed."""
    count = min(most, length - context + 1)
    return np.unique(np.linspace(context - 1, length - 1, count).round().astype(np.int64))
