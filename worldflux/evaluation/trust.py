"""How far a model is to be trusted: its intervals by horizon, and a signal at every step.

The signal compares a step with the most similar ones of the calibration: what the model missed (the
observed latent less the predicted one) with what it missed there, and how far away they are.
Legend: N rows (steps, or environments), E embedded observation, D latent, K and R their main
directions, A action, M steps of the calibration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from worldflux.core.inputs import on_device
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.progress import counted

from .conformal import FallingMap
from .episodes import RecordedEpisode, cuda_devices
from .open_loop import joined, observed_states

WINDOW = 20  # steps that the signal is averaged over: the last ones of the episode
NEIGHBOURS = 10
REMEMBERED = 2000
DIRECTIONS = 32
LEAST_TRUST = 0.5  # below it, pictures of the game get a red border
_FLOOR = 0.3  # of the neighbours' spread, in standard deviations over all steps
_NO_LATENT = ("reward", "logits")  # what a transition leaves in a state besides the latents


@dataclass(frozen=True)
class KindTrust:
    """Of reward, value or observation: half widths `[H]` of the intervals by horizon.

    `coverage` is the share of the calibration's own predictions that the other half's intervals
    held; `horizon` the number of steps that the model is better for than what needs none, and
    `reason` says what ended it.
    """

    radius: list[float]
    coverage: float
    horizon: int
    reason: str


def deciding(kinds: Mapping[str, KindTrust]) -> list[str]:
    """What decides the model's horizon: all but its value, which no environment tells, if it
    predicts anything else."""
    return [name for name in kinds if name != "value"] or list(kinds)


def trusted_steps(kinds: Mapping[str, KindTrust]) -> int:
    """Steps for which all that decides is trusted."""
    return min(kinds[name].horizon for name in deciding(kinds))


@dataclass(frozen=True)
class Directions:
    """Main directions of rows `[N, D]`, of unit variance: `(x - mean) @ basis` is `[N, K]`."""

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, values, vectors = torch.pca_lowrank(rows, min(DIRECTIONS, *rows.shape))
        kept = max(1, int((values > 1e-2 * values[0]).sum()))
        spread = values[:kept].clamp_min(1e-6) / len(rows) ** 0.5
        return cls(rows.mean(0), vectors[:, :kept] / spread)

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) @ self.basis


@dataclass(frozen=True)
class Signal:
    """Steps of the calibration: where they were `[M, K + A]`, what the model missed `[M, R]`."""

    places: Directions
    misses: Directions
    action_scale: Tensor
    where: Tensor
    missed: Tensor

    @classmethod
    def of(cls, seen: Tensor, actions: Tensor, misses: Tensor) -> Self:
        """The signal that remembers these steps (see `steps_of`)."""
        places, directions = Directions.of(seen), Directions.of(misses)
        # All entries of the action together weigh as much as a quarter of the directions.
        weight = (places.basis.shape[1] / 4 / actions.shape[1]) ** 0.5
        scale = weight / actions.std(0).clamp_min(1e-3)
        where = torch.cat([places(seen), actions * scale], 1)
        return cls(places, directions, scale, where, directions(misses))

    def __call__(self, seen: Tensor, actions: Tensor, misses: Tensor) -> np.ndarray:
        """`[N, 2]`: how unlike its neighbours' each miss is, in their spread; how far they are."""
        here = torch.cat([self.places(seen), actions * self.action_scale], 1)
        far, near = torch.cdist(here, self.where).topk(NEIGHBOURS, largest=False)
        theirs = self.missed[near]
        spread = _FLOOR + theirs.std(1).mean(1)
        unlike = (self.misses(misses) - theirs.mean(1)).norm(dim=1) / spread
        scores: np.ndarray = torch.stack([unlike, far.mean(1)], 1).numpy()
        return scores


@dataclass(frozen=True)
class Calibration:
    """What held-out episodes showed of a model; `worldflux trust` writes it."""

    environment: str
    seed: int
    episodes: int
    level: float
    kinds: dict[str, KindTrust]
    units: dict[str, Tensor]
    signal: Signal
    ordinary: list[float]  # what 90 % of the calibration's scores are below
    shares: FallingMap  # of the larger score, in these units
    usual: float  # mean share of predictions that held

    @property
    def horizon(self) -> int:
        """Steps for which all holds that the model predicts of the environment."""
        return trusted_steps(self.kinds)

    def __str__(self) -> str:
        lines = [f"trusted for {counted(self.horizon, 'step')}, at {self.level:.0%}"]
        for name, kind in self.kinds.items():
            words = f"not to be trusted: {kind.reason}"
            if kind.horizon:
                far, off = counted(kind.horizon, "step"), kind.radius[kind.horizon - 1]
                words = f"to within {off:.3g} for {far} ({kind.reason})"
            lines.append(f"  {name:<12} {words}")
        if "observation" not in self.kinds:
            lines.append("  observation  not measured: none is decoded, or none changed")
        return "\n".join(lines)

    def to_state(self) -> dict[str, Any]:
        """For `write_state`."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Self:
        signal, kinds = dict(state["signal"]), state["kinds"]
        for name in ("places", "misses"):
            signal[name] = Directions(**signal[name])
        parts = {
            "kinds": {name: KindTrust(**kind) for name, kind in kinds.items()},
            "signal": Signal(**signal),
            "shares": FallingMap(**state["shares"]),
        }
        return cls(**{**state, **parts})

    def trust(self, scores: np.ndarray) -> np.ndarray:
        """Windowed scores `[N, 2]` as the share of predictions that hold `[N]`; NaN, before there
        is a step, as the usual one."""
        larger = surprise(scores, self.ordinary)
        trusted: np.ndarray = np.where(np.isnan(larger), self.usual, self.shares(larger))
        return trusted

    def trust_of(self, model: WorldModel, episode: RecordedEpisode) -> np.ndarray:
        """Trust at each observation of an episode `[T + 1]`, from it and those before."""
        return self.trust(windowed(self.signal(*steps_of(model, episode))))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return _plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value


def windowed(scores: np.ndarray) -> np.ndarray:
    """Scores `[T, 2]` of steps as those of observations `[T + 1, 2]`: the mean over the last
    `WINDOW` steps, NaN at the first observation."""
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(scores, 0, dtype=np.float64)])
    ends = np.arange(1, len(sums))
    begins = np.maximum(ends - WINDOW, 0)
    means = (sums[ends] - sums[begins]) / (ends - begins)[:, None]
    return np.concatenate([np.full((1, 2), np.nan), means])


def surprise(scores: np.ndarray, ordinary: Sequence[float]) -> np.ndarray:
    """The larger of two scores `[N, 2]`, each in units of what is ordinary: `[N]`."""
    larger: np.ndarray = (scores / np.asarray(ordinary)).max(1)
    return larger


@torch.no_grad()
def steps_of(model: WorldModel, episode: RecordedEpisode) -> tuple[Tensor, Tensor, Tensor]:
    """Of each step the embedded observation before it `[T, E]`, the action `[T, A]`, and what the
    model missed `[T, D]`."""
    with torch.random.fork_rng(devices=cuda_devices(model)):
        torch.manual_seed(0)  # a pixel encoder may shift its images at random
        states = observed_states(model, episode)
        columns = {name: values[:-1] for name, values in episode.obs.items()}
        obs = on_device(columns if len(columns) > 1 else next(iter(columns.values())), model.device)
        actions = torch.from_numpy(episode.actions).to(model.device)
        return _steps(model, obs, joined(states[:-1]), actions, joined(states[1:]))


def _steps(
    model: WorldModel, obs: Any, before: State, actions: Tensor, after: State
) -> tuple[Tensor, Tensor, Tensor]:
    """Observations, states before, actions and states after of N steps, as `steps_of`."""
    seen = model.encode_named(model.observations(obs), True)
    predicted = model.transition(before, actions, deterministic=True).tensors
    if "logits" in predicted:  # of a categorical latent: what was drawn, less its probabilities
        predicted = {**predicted, "stoch": predicted["logits"].softmax(-1)}
    return _flat(seen), actions.float().cpu(), _flat(after) - _flat(State(predicted))


def _flat(state: State) -> Tensor:
    """The latents of a state as one row each: `[N, D]`."""
    columns = [
        value.flatten(1)
        for name, value in sorted(state.tensors.items())
        if name not in _NO_LATENT and value.is_floating_point()
    ]
    return torch.cat(columns, 1).float().cpu()


class TrustMeter:
    """Trust of an agent while it acts in N environments: remembers the last steps of each."""

    def __init__(self, model: WorldModel, calibration: Calibration) -> None:
        self._model, self._calibration = model, calibration
        self._seen: deque[tuple[Any, Any, Tensor, np.ndarray]] = deque(maxlen=WINDOW + 1)

    def add(self, obs: Any, carry: Any, actions: Tensor, first: np.ndarray) -> None:
        """After `policy` of `obs` returned this memory and these actions `[N, A]`; `first` `[N]`
        says which observations begin an episode."""
        if first.all():
            self._seen.clear()
        self._seen.append((obs, carry, actions, first))

    @torch.no_grad()
    def trust(self) -> np.ndarray:
        """`[N]`, for the observations that were added last."""
        model, seen = self._model, list(self._seen)
        count = len(seen[-1][3])
        if len(seen) == 1:
            return self._calibration.trust(np.full((count, 2), np.nan))
        with torch.random.fork_rng(devices=cuda_devices(model)):
            torch.manual_seed(0)
            states = [model.acting_state(obs, carry) for obs, carry, _, _ in seen]
            obs = _rows_of([obs for obs, *_ in seen[:-1]])
            actions = torch.cat([given for _, _, given, _ in seen[:-1]])
            rows = _steps(model, obs, joined(states[:-1]), actions, joined(states[1:]))
        scores = self._calibration.signal(*rows).reshape(-1, count, 2)
        # A step counts if no episode began after it.
        begun = np.stack([first for *_, first in seen[1:]])
        counts = ~np.logical_or.accumulate(begun[::-1])[::-1, :, None]
        with np.errstate(invalid="ignore"):
            return self._calibration.trust(np.where(counts, scores, 0).sum(0) / counts.sum(0))


def remembered(steps: Sequence[tuple[Tensor, Tensor, Tensor]], seed: int) -> Signal:
    """The signal of some of these episodes' steps, at most `REMEMBERED`."""
    seen, actions, misses = (torch.cat(column) for column in zip(*steps, strict=True))
    chosen = np.random.default_rng(seed).permutation(len(seen))[:REMEMBERED]
    index = torch.from_numpy(np.sort(chosen))
    return Signal.of(seen[index], actions[index], misses[index])


def _rows_of(observations: Sequence[Any]) -> Any:
    """Observations `[N, ...]` of several steps, tensors or by name, as one batch."""
    if isinstance(observations[0], Tensor):
        return torch.cat(list(observations))
    return {name: torch.cat([obs[name] for obs in observations]) for name in observations[0]}
