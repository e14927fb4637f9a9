"""Open-loop prediction: a model sees the beginning of an episode and imagines the rest.

Legend: T actions of an episode, H horizon, W windows. Index k - 1 is k steps ahead. The actions
are those that were taken; the model gets no observation after its context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.core.inputs import on_device
from worldflux.core.outputs import prediction_of
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.progress import counted

from .episodes import RecordedEpisode, cuda_devices

CONTEXT = 5
MAX_SCENES = 3
OBSERVATION = "obs/"  # prefix of an observation's name among predictions
NO_DECODER = "reward and value only: this model does not decode observations"


@dataclass(frozen=True)
class Prediction:
    """What a model predicts of one episode, by name: "reward", "value" and "obs/<name>".

    `seen[name]` `[T + 1, ...]` is its output with each observation and all before it in sight,
    `imagined[name]` `[H, W, ...]` its output from the context alone. Images are in [0, 1]. Names
    that the model does not predict are missing; behind the episode's end they mean nothing.
    """

    seen: dict[str, np.ndarray]
    imagined: dict[str, np.ndarray]


def decoder_advice(model: WorldModel) -> str:
    """How a project's next run gets a decoder, to follow what says that this model has none."""
    field, has_one = model.config.DECODER_FIELD, model.supports(Capability.OBS_DECODER)
    return "" if has_one or not field else f"; architecture.{field} = true adds one"


def can_imagine(model: WorldModel) -> bool:
    parts = (model.observation_encoder, model.dynamics_model, model.decoder_module)
    return all(part is not None for part in parts)


def observed_states(model: WorldModel, episode: RecordedEpisode) -> list[State]:
    """The state `[1, ...]` at each observation, with all earlier ones in sight."""
    columns = {name: values[:, None] for name, values in episode.obs.items()}
    obs = columns if len(columns) > 1 else next(iter(columns.values()))
    actions = torch.from_numpy(episode.actions[:, None]).to(model.device)
    return list(model.observe(on_device(obs, model.device), actions))


def joined(states: Sequence[State]) -> State:
    """Several states as one batch."""
    tensors = [state.tensors for state in states]
    return State({name: torch.cat([entry[name] for entry in tensors]) for name in tensors[0]})


def evenly(first: int, last: int, most: int) -> np.ndarray:
    """At most so many whole numbers, evenly spaced from `first` to `last`."""
    count = min(most, last - first + 1)
    return np.unique(np.linspace(first, last, count).round().astype(np.int64))


@torch.no_grad()
def predict(
    model: WorldModel,
    episode: RecordedEpisode,
    starts: np.ndarray,
    horizon: int,
    actions: np.ndarray | None = None,
) -> Prediction:
    """Predict `horizon` steps from observation `s`, all before it in sight, for each start s.

    `actions` `[H, W, A]` are imagined, by default those that were taken.
    """
    observed = observed_states(model, episode)
    if actions is None:
        actions = episode.actions[_ahead(episode, starts, horizon)]
    state, outputs = joined([observed[s] for s in starts]), []
    for action in torch.from_numpy(actions).to(model.device):
        state = model.transition(state, action, deterministic=True)
        outputs.append(model.decode(state).predictions)
    seen = model.decode(joined(observed)).predictions
    sources = predicted_names(model, episode, outputs[0])
    return Prediction(
        seen={name: _numbers(seen[key]) for name, key in sources.items() if key in seen},
        imagined={
            name: np.stack([_numbers(output[key]) for output in outputs])
            for name, key in sources.items()
        },
    )


def _ahead(episode: RecordedEpisode, starts: np.ndarray, horizon: int) -> np.ndarray:
    """The steps `[H, W]` that follow each start; behind the end the last one."""
    steps: np.ndarray = np.minimum(starts[None, :] + np.arange(horizon)[:, None], len(episode) - 1)
    return steps


def predicted_names(
    model: WorldModel, episode: RecordedEpisode, decoded: Mapping[str, Tensor]
) -> dict[str, str]:
    """Our name of everything that the model predicts as it is seen -> its name in `decoded`."""
    return {
        name: source
        for name, source in _sources(model, episode).items()
        if source in decoded and _fits(name, decoded[source], episode)
    }


def _sources(model: WorldModel, episode: RecordedEpisode) -> dict[str, str]:
    """Our name of everything that the model can predict -> its name among decoded predictions."""
    found = {}
    if model.supports(Capability.OBS_DECODER):
        count = len(episode.obs)
        found = {OBSERVATION + name: prediction_of(name, count) for name in episode.obs}
    if model.supports(Capability.REWARD_PRED):
        found["reward"] = "reward"
    if model.supports(Capability.VALUE):
        found["value"] = "value"
    return found


def _fits(name: str, decoded: Tensor, episode: RecordedEpisode) -> bool:
    """Whether an observation is decoded as it is seen (a discrete one comes as probabilities)."""
    if not name.startswith(OBSERVATION):
        return True
    shape = episode.obs[name.removeprefix(OBSERVATION)].shape[1:]
    return tuple(decoded.shape[1:]) == shape


def _numbers(values: Tensor) -> np.ndarray:
    numbers: np.ndarray = values.float().cpu().numpy()
    return numbers


def _true_values(episode: RecordedEpisode, prediction: Prediction) -> dict[str, np.ndarray]:
    """What happened, `[T + 1, ...]` each; the true value is the critic's, where there is one."""
    values = {OBSERVATION + name: scaled(obs) for name, obs in episode.obs.items()}
    values["reward"] = np.concatenate([np.zeros(1, np.float32), episode.rewards])
    if "value" in prediction.seen:
        values["value"] = prediction.seen["value"]
    return values


def scaled(obs: np.ndarray) -> np.ndarray:
    """An observation as it is predicted: images `[..., C, H, W]` in [0, 1]."""
    values: np.ndarray = obs.astype(np.float32) / (255.0 if obs.dtype == np.uint8 else 1.0)
    return values


@dataclass(frozen=True)
class Scene:
    """The beginning of one episode, as it was and as the model imagined it.

    Only the first `context` observations were seen, and `earlier` ones before these. `true` and
    `imagined` map names as in `Prediction` to `[context + H, ...]`. Inside the context `imagined`
    is the output with the observation in sight, or NaN.
    """

    context: int
    true: dict[str, np.ndarray]
    imagined: dict[str, np.ndarray]
    earlier: int = 0

    @property
    def seen(self) -> int:
        """Observations that the model has seen."""
        return self.earlier + self.context

    @property
    def length(self) -> int:
        return len(self.true["reward"])

    @property
    def horizon(self) -> int:
        return self.length - self.context

    @property
    def image(self) -> str | None:
        """The name of the first observation that is an image `[C, H, W]`."""
        return next((name for name, values in self.true.items() if values.ndim == 4), None)

    @property
    def decodes(self) -> bool:
        """Whether the model predicts observations, not only rewards and values."""
        return any(name.startswith(OBSERVATION) for name in self.imagined)

    def shortened(self) -> Scene:
        """The same with the last `CONTEXT` of the observations seen."""
        cut = max(0, self.context - CONTEXT)
        shown = [{name: v[cut:] for name, v in part.items()} for part in (self.true, self.imagined)]
        return Scene(self.context - cut, shown[0], shown[1], cut)


def imagine_scenes(
    model: WorldModel, episodes: Sequence[RecordedEpisode], horizon: int
) -> list[Scene]:
    """The beginning of the longest episode; of more, up to `MAX_SCENES`, if it is too short.

    A short episode shortens the context first, then the horizon.
    """
    most = max(len(episode) for episode in episodes)
    context = max(1, min(CONTEXT, most - horizon + 1))
    steps = min(horizon, most - context + 1)
    longest = sorted((e for e in episodes if len(e) >= context), key=len, reverse=True)
    chosen = longest[: min(MAX_SCENES, -(-horizon // steps))]
    return [scene_of(model, e, context, min(steps, len(e) - context + 1)) for e in chosen]


def scene_of(model: WorldModel, episode: RecordedEpisode, context: int, horizon: int) -> Scene:
    """The `horizon` steps of an episode after its first `context` observations."""
    prediction = predict(model, episode, np.array([context - 1]), horizon)
    true = {
        name: values[: context + horizon]
        for name, values in _true_values(episode, prediction).items()
    }
    imagined = {}
    for name, values in prediction.imagined.items():
        nothing = np.full((context, *values.shape[2:]), np.nan, np.float32)
        known = prediction.seen[name][:context] if name in prediction.seen else nothing
        imagined[name] = np.concatenate([known, values[:, 0]])
    return Scene(context, true, imagined)


@dataclass(frozen=True)
class HorizonError:
    """Mean absolute error by horizon, `[H]` each, of the model and two baselines.

    `persistence` repeats what was seen last, `mean` is the mean over the episodes (of values: over
    their own episode).
    """

    model: np.ndarray
    persistence: np.ndarray
    mean: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        return {name: [float(value) for value in column] for name, column in vars(self).items()}


@dataclass(frozen=True)
class ModelSkill:
    """Open-loop errors over `windows` starts of what the model predicts.

    Images in shares of full brightness, vectors in standard deviations of each entry over the
    episodes, rewards in their own units, values against the critic's output with the observation
    in sight.
    """

    horizon: int
    windows: int
    errors: dict[str, HorizonError]
    note: str = ""  # why observations are missing

    def to_dict(self) -> dict[str, Any]:
        errors = {name: error.to_dict() for name, error in self.errors.items()}
        own = {"horizon": self.horizon, "windows": self.windows, "errors": errors}
        return {**own, "note": self.note} if self.note else own

    def __str__(self) -> str:
        shown = sorted({1, max(1, self.horizon // 4), max(1, self.horizon // 2), self.horizon})
        lines = [f"open-loop error over {counted(self.windows, 'start')}:"]
        for name, error in self.errors.items():
            lines.append(f"  {name:<12} steps ahead      model  persistence       mean")
            for k in shown:
                columns = (error.model, error.persistence, error.mean)
                lines.append(f"  {k:24d} " + " ".join(f"{c[k - 1]:11.4f}" for c in columns))
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)


def model_skill(
    model: WorldModel,
    episodes: Sequence[RecordedEpisode],
    horizon: int,
    max_windows: int = 256,
    start: int | None = None,
) -> ModelSkill:
    """Predict recorded episodes open loop from many starts and compare with what happened.

    The horizon is shorter where no episode is that long. With `start`, only from there.
    """
    steps = min(horizon, max(len(episode) for episode in episodes) - (start or 0))
    scales = scales_of(episodes)
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    windows = 0
    for episode in episodes:
        starts = evenly(0, len(episode) - 1, max(1, max_windows // len(episodes)))
        starts = starts if start is None else np.array([start])
        for name, errors in window_errors(model, episode, starts, steps, scales).items():
            total, count = sums.setdefault(kind_of(name), (np.zeros((3, steps)), np.zeros(steps)))
            valid = reached(episode, starts, steps)
            total += np.where(valid, errors, 0.0).sum(-1)
            count += valid.sum(1)
        windows += len(starts)
    errors_of = {kind: HorizonError(*(total / count)) for kind, (total, count) in sums.items()}
    note = "" if "observation" in errors_of else NO_DECODER + decoder_advice(model)
    return ModelSkill(steps, windows, errors_of, note)


def kind_of(name: str) -> str:
    """ "observation", "reward" or "value": what errors of a prediction are reported as."""
    return "observation" if name.startswith(OBSERVATION) else name


def reached(episode: RecordedEpisode, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Whether the episode lasts until k steps after each start `[W]`: `[H, W]`."""
    inside: np.ndarray = starts[None, :] + np.arange(horizon)[:, None] < len(episode)
    return inside


def window_errors(
    model: WorldModel,
    episode: RecordedEpisode,
    starts: np.ndarray,
    horizon: int,
    scales: Scales,
    actions: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Absolute open-loop errors by name `[3, H, W]`, of the model (under `actions` `[H, W, A]`, if
    they are given), persistence and mean; behind the episode's end they mean nothing.

    The random streams of the caller stay as they are.
    """
    with torch.random.fork_rng(devices=cuda_devices(model)):
        torch.manual_seed(0)  # a pixel encoder may shift its images at random
        prediction = predict(model, episode, starts, horizon, actions)
    at = _ahead(episode, starts, horizon) + 1
    truth = _true_values(episode, prediction)
    found = {}
    for name, imagined in prediction.imagined.items():
        mean = scales.means.get(name, truth[name].mean())
        guesses = (imagined, truth[name][starts][None], mean)
        unit = scales.units.get(name, 1.0)
        found[name] = np.stack([_error(guess, truth[name][at], unit) for guess in guesses])
    return found


def _error(guess: Any, happened: np.ndarray, unit: Any) -> np.ndarray:
    """Absolute error of a guess at `happened` `[H, W, ...]`, its entries averaged: `[H, W]`."""
    error = np.abs(guess - happened) / unit
    mean: np.ndarray = error.reshape(*error.shape[:2], -1).mean(-1)
    return mean


@dataclass(frozen=True)
class Scales:
    """Means over episodes by name, and the deviations that vectors are measured in."""

    means: dict[str, Any]
    units: dict[str, Any]


def scales_of(episodes: Sequence[RecordedEpisode]) -> Scales:
    """The scales of these episodes."""
    means: dict[str, Any] = {"reward": float(np.concatenate([e.rewards for e in episodes]).mean())}
    units: dict[str, Any] = {}
    for name, obs in episodes[0].obs.items():
        columns = [scaled(episode.obs[name]) for episode in episodes]
        count = sum(len(column) for column in columns)
        mean = sum(column.sum(0, dtype=np.float64) for column in columns) / count
        means[OBSERVATION + name] = np.asarray(mean, np.float32)
        if obs.dtype != np.uint8:
            spread = sum(np.square(c - mean).sum(0, dtype=np.float64) for c in columns) / count
            deviation = np.sqrt(np.asarray(spread, np.float32))
            # An entry that never moves is compared as it is.
            units[OBSERVATION + name] = np.where(deviation > 1e-6, deviation, np.float32(1.0))
    return Scales(means, units)
