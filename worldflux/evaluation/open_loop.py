"""Open-loop prediction: a model sees the beginning of an episode and imagines how it goes on.

Legend: T actions of an episode, H horizon, W windows. Index k - 1 is k steps ahead. The actions
are the ones that were really taken; the model gets no observation after its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.core.inputs import on_device
from worldflux.core.outputs import prediction_of
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel

from .episodes import RecordedEpisode

Array = NDArray[Any]
CONTEXT = 5
MAX_SCENES = 3
OBSERVATION = "obs/"  # stands before an observation's name among predictions


@dataclass(frozen=True)
class Prediction:
    """What a model predicts of one episode, by name: "reward", "value" and "obs/<name>".

    `seen[name]` `[T + 1, ...]` is what it says of every observation with that observation and all
    before it in sight; `imagined[name]` `[H, W, ...]` what it says from the context alone. Images
    are in [0, 1], everything else in the environment's units. A name that the model does not
    predict is missing; so is a reward in sight where the model reads it off an action only.
    `valid` `[H, W]` is False behind the end of the episode.
    """

    starts: Array
    valid: Array
    seen: dict[str, Array]
    imagined: dict[str, Array]


def can_imagine(model: WorldModel) -> bool:
    """Whether the model has the parts that open-loop prediction goes through."""
    parts = (model.observation_encoder, model.dynamics_model, model.decoder_module)
    return all(part is not None for part in parts)


@torch.no_grad()
def predict(model: WorldModel, episode: RecordedEpisode, starts: Array, horizon: int) -> Prediction:
    """Predict `horizon` steps from observation `s`, all before it in sight, for each start s."""
    device = model.device
    one_row = {name: values[:, None] for name, values in episode.obs.items()}
    only = one_row.get("obs") if len(one_row) == 1 else None
    observed = model.observe(
        on_device(one_row if only is None else only, device),
        torch.from_numpy(episode.actions[:, None]).to(device),
    )
    steps = starts[None, :] + np.arange(horizon)[:, None]
    actions = torch.from_numpy(episode.actions[np.minimum(steps, len(episode) - 1)]).to(device)
    state, outputs = _joined([observed[s] for s in starts]), []
    for action in actions:
        state = model.transition(state, action, deterministic=True)
        outputs.append(model.decode(state).predictions)
    seen = model.decode(_joined(observed)).predictions
    sources = {
        name: source
        for name, source in _sources(model, episode).items()
        if source in outputs[0] and _fits(name, outputs[0][source], episode)
    }
    return Prediction(
        starts=starts,
        valid=steps < len(episode),
        seen={name: _numbers(seen[key]) for name, key in sources.items() if key in seen},
        imagined={
            name: np.stack([_numbers(output[key]) for output in outputs])
            for name, key in sources.items()
        },
    )


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


def _joined(states: Sequence[State]) -> State:
    tensors = [state.tensors for state in states]
    return State({name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


def _numbers(values: Tensor) -> Array:
    numbers: Array = values.float().cpu().numpy()
    return numbers


def in_model_units(obs: dict[str, Array]) -> dict[str, Array]:
    """Observations as predictions name and scale them: images `[..., C, H, W]` in [0, 1]."""
    return {
        OBSERVATION + name: values.astype(np.float32) / (255.0 if values.dtype == np.uint8 else 1.0)
        for name, values in obs.items()
    }


def fitting_window(
    episodes: Sequence[RecordedEpisode], horizon: int, context: int
) -> tuple[int, int]:
    """(context, horizon) that the longest of the episodes has room for, each at least 1.

    A short episode shortens the context first, then the horizon.
    """
    longest = max(len(episode) for episode in episodes)
    usable = max(1, min(context, longest - horizon + 1))
    return usable, min(horizon, longest - usable + 1)


@dataclass(frozen=True)
class Scene:
    """The beginning of one episode, as it was and as the model imagined it.

    The first `context` observations were seen, the others were not. `true` and `imagined` map a
    name to `[context + H, ...]`: "obs/<name>" (images in [0, 1]), "reward" (the one that came with
    the observation) and "value" (true: what the critic says with the observation in sight). What
    the model does not predict is missing in `imagined`; inside the context it holds what the
    model says with the observation in sight, and NaN where it says nothing.
    """

    context: int
    true: dict[str, Array]
    imagined: dict[str, Array]

    @property
    def length(self) -> int:
        """Observations, those of the context included."""
        return len(self.true["reward"])

    @property
    def horizon(self) -> int:
        """Imagined steps."""
        return self.length - self.context

    @property
    def image(self) -> str | None:
        """The name of the first observation that is an image `[C, H, W]`."""
        return next((name for name, values in self.true.items() if values.ndim == 4), None)

    @property
    def decodes(self) -> bool:
        """Whether the model predicts observations, not rewards and values only."""
        return any(name.startswith(OBSERVATION) for name in self.imagined)


def imagine_scenes(
    model: WorldModel, episodes: Sequence[RecordedEpisode], horizon: int, context: int = CONTEXT
) -> list[Scene]:
    """The longest of the episodes, each from its first observation on, predicted once.

    One where it has room for `horizon` steps behind its context; else as many, up to
    `MAX_SCENES`, as have that many steps together.
    """
    context, steps = fitting_window(episodes, horizon, context)
    longest = sorted((e for e in episodes if len(e) >= context), key=len, reverse=True)
    chosen = longest[: min(MAX_SCENES, -(-horizon // steps))]
    return [_scene(model, e, context, min(steps, len(e) - context + 1)) for e in chosen]


def _scene(model: WorldModel, episode: RecordedEpisode, context: int, horizon: int) -> Scene:
    prediction = predict(model, episode, np.array([context - 1]), horizon)
    count = context + horizon
    true = {name: values[:count] for name, values in in_model_units(episode.obs).items()}
    true["reward"] = received_rewards(episode)[:count]
    if "value" in prediction.seen:
        true["value"] = prediction.seen["value"][:count]
    imagined = {}
    for name, values in prediction.imagined.items():
        nothing = np.full((context, *values.shape[2:]), np.nan, np.float32)
        known = prediction.seen[name][:context] if name in prediction.seen else nothing
        imagined[name] = np.concatenate([known, values[:, 0]])
    return Scene(context, true, imagined)


def received_rewards(episode: RecordedEpisode) -> Array:
    """The reward that came with each observation, `[T + 1]`; none came with the first."""
    received: Array = np.concatenate([np.zeros(1, np.float32), episode.rewards])
    return received
