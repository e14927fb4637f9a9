"""`Agent`: a trained model that acts, with its memory, in the values of the environment."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.core.inputs import on_device
from worldflux.core.learning import Policy
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError, NonFiniteError, ShapeMismatchError, StateError
from worldflux.evaluation.trust import TrustMeter
from worldflux.project.trust import calibration_of, require_calibration

from .adapter import Arrays, Preparations, SpaceAdapter
from .random_stream import RandomStream


@dataclass(frozen=True)
class Dream:
    """What the model expects of T actions: rewards and continuation `[T, N]`, values `[T + 1, N]`
    and observations by name `[T + 1, N, ...]` as it decodes them (images in [0, 1]).

    What it does not predict is None, and not among the observations. N is 1 for one environment.
    """

    rewards: np.ndarray | None
    continues: np.ndarray | None
    values: np.ndarray | None
    observations: dict[str, np.ndarray]


class Agent:
    """Acts for one environment, or for N of a batch, and remembers what each has seen.

    Calls from several threads are answered one after another; environments that do not belong
    together each need an agent of their own, which may share `model` and `adapter`.

    Args:
        preparations: of observations that are not yet as the model learned with them; `adapter` is
            then theirs.
        seed: of its random numbers, those of `worldflux eval --seed`; the process's own generators
            are left alone.
        folder: of the run, where it comes from one.
        checkpoint: the folder of its weights, where it comes from a file.

    Attributes:
        observation_space, action_space: what `act` takes and gives.
    """

    def __init__(
        self,
        model: WorldModel,
        adapter: SpaceAdapter,
        *,
        preparations: Preparations | None = None,
        seed: int = 0,
        folder: Path | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        adapter.require_model(model)
        self.model, self.adapter, self._preparations = model.eval(), adapter, preparations
        self.folder, self.checkpoint = folder, checkpoint
        self.observation_space = (preparations or adapter).observation_space
        self.action_space = adapter.action_space
        self._stream, self._device = RandomStream(seed, model), model.device
        self._lock = threading.Lock()
        calibration = calibration_of(checkpoint)
        self._meter = None if calibration is None else TrustMeter(self.model, calibration)
        self.reset()

    def reset(self) -> None:
        """Forget: the next observation begins an episode."""
        self._carry: dict[str, Tensor] | None = None
        self._obs: Tensor | dict[str, Tensor] | None = None

    def act(
        self,
        observation: Any,
        is_first: Any = None,
        *,
        sample: bool = False,
        policy: str | Policy | None = None,
    ) -> Any:
        """The action for an observation; both are of the environment's own spaces.

        Args:
            observation: one; or with `is_first` `[N]` a batch of N, as a Gymnasium vector
                environment gives it.
            is_first: whether it begins an episode, for a batch `[N]`. By default the first one
                after `reset`.
            sample: act as in training, with exploration, and not as in evaluation.
            policy: "plan" or "prior" (the learned policy alone), where the family has both; or
                another one, called as `WorldModel.policy`.

        Raises:
            EnvironmentFault: for an observation that is not of its space; the memory stays.
            CapabilityError: when the family has no such policy.
            ShapeMismatchError: when a batch continues one of another size.
            NonFiniteError: when the model gives an action that is not a number.
        """
        is_batch = np.ndim(is_first) == 1
        named = self.model.policy_named(policy) if isinstance(policy, str) else policy
        chosen_by = named or self.model.policy
        with self._lock:
            first = self._first(is_first)
            arrays = self._encoded(observation, first, is_batch)
            rows = self._step(chosen_by, arrays, first, sample)
        actions = self.adapter.actions(rows)
        if is_batch:
            return actions
        return int(actions[0]) if actions[0].ndim == 0 else actions[0]

    def _first(self, is_first: Any) -> np.ndarray:
        """`[N]`: which observations begin an episode."""
        known = None if self._carry is None else len(next(iter(self._carry.values()), [0]))
        flags = np.atleast_1d(known is None if is_first is None else is_first)
        if not len(flags) or not np.isin(flags, (0, 1)).all():
            raise ShapeMismatchError(
                f"is_first = {is_first!r} does not say of each observation whether it begins an "
                "episode",
                hint="True or False, or for a batch one of them for each: is_first=[True, False]",
            )
        first = flags.astype(bool)
        if is_first is None and known is not None and known > 1:
            raise ShapeMismatchError(
                f"the agent acts for a batch of {known} observations, and is_first does not say "
                "which of the next ones begin an episode",
                hint=f"agent.act(observations, is_first={[False] * min(known, 3)}), or to act for "
                "one from now on: agent.reset()",
            )
        if known not in (None, len(first)) and not first.all():
            raise ShapeMismatchError(
                f"a batch of {len(first)} observations continues one of {known}",
                hint="start again with agent.reset()",
            )
        if known is None and not first.all():
            raise StateError("the first observation begins an episode: is_first is True for it")
        return first

    def _encoded(self, observation: Any, first: np.ndarray, is_batch: bool) -> Arrays:
        count, prepared = len(first), self._preparations
        if prepared is not None:
            rows = prepared.split(observation, count) if is_batch else [observation]
            return prepared.encode(rows, first.tolist())
        if is_batch:
            return self.adapter.encode_batch(observation, count)
        return self.adapter.encode(observation)

    def _step(self, policy: Any, arrays: Arrays, first: np.ndarray, sample: bool) -> np.ndarray:
        device, carry = self._device, self._carry
        if carry is None or first.all():
            carry = self.model.initial_carry(len(first))
        obs = on_device(arrays, device)
        with torch.inference_mode(), self._stream.drawing():
            chosen, carry = policy(obs, carry, torch.from_numpy(first).to(device), explore=sample)
        rows: np.ndarray = chosen.cpu().numpy()
        if not np.isfinite(rows).all():
            raise NonFiniteError("the policy's action is not a number", where=str(self.checkpoint))
        self._carry, self._obs = carry, obs
        if self._meter is not None:
            self._meter.add(obs, carry, chosen, first)
        return rows

    # ------------------------------------------------------------------ looking ahead

    def imagine(self, actions: Any) -> Dream:
        """What the model expects of the environment's actions `[T, ...]` from the last observation
        on; for a batch of N `[T, N, ...]`.

        Raises:
            StateError: before the first observation.
            CapabilityError: for a model without a decoder.
            ShapeMismatchError: for actions of another shape.
            EnvironmentFault: for an action that is not of its space.
        """
        state = self._state()
        given = np.asarray(actions)
        own = self.action_space.shape or ()
        count = state.batch_size
        expected = given.shape[: given.ndim - len(own)]
        if expected not in ((len(given), count), (len(given),)[: 1 if count == 1 else 0]):
            raise ShapeMismatchError(
                f"the actions have shape {given.shape}, expected [T, {count}, ...]"
            )
        rows = self.adapter.rows(given.reshape(-1, *own)).reshape(len(given), count, -1)
        with torch.inference_mode(), self._lock, RandomStream(0, self.model).drawing():
            path = self.model.rollout(
                state, torch.from_numpy(rows).to(self._device), deterministic=True
            )
            decoded = [self.model.decode(step).predictions for step in path.states]
        skipped = ("reward", "continue", "value")
        names = [name for name in decoded[0] if name not in skipped]
        return Dream(
            _numbers(path.rewards),
            _numbers(path.continues),
            _numbers(path.values),
            {name: np.stack([_array(step[name]) for step in decoded]) for name in names},
        )

    def value(self) -> float | np.ndarray:
        """The return that the model expects after the last observation, discounted as it learned;
        `[N]` for a batch.

        Raises:
            StateError: before the first observation.
            CapabilityError: for a model without values.
        """
        if not self.model.supports(Capability.VALUE):
            raise CapabilityError(f"{type(self.model).__name__} predicts no values")
        state = self._state()
        with torch.inference_mode():
            values = _array(self.model.decode(state).predictions["value"])
        return float(values[0]) if len(values) == 1 else values

    @property
    def trust(self) -> float | np.ndarray:
        """How far the model is to be trusted at the last observation, in [0, 1]: the share of its
        predictions that hold where the last steps were like these; `[N]` for a batch.

        Raises:
            StateError: before the first observation.
            CapabilityError: for a checkpoint that was not calibrated, with the command that does.
        """
        if self._meter is None:
            require_calibration(self.checkpoint)
        if self._carry is None or self._meter is None:
            raise StateError("the agent has seen no observation yet", hint="agent.act(observation)")
        with self._lock:
            trusted = self._meter.trust()
        return float(trusted[0]) if len(trusted) == 1 else trusted

    def _state(self) -> State:
        if self._obs is None or self._carry is None:
            raise StateError("the agent has seen no observation yet", hint="agent.act(observation)")
        # Not of the agent's own numbers: looking ahead must not change what it does next.
        with torch.inference_mode(), self._lock, RandomStream(0, self.model).drawing():
            return self.model.acting_state(self._obs, self._carry)


def _numbers(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else _array(values)


def _array(values: Tensor) -> np.ndarray:
    return np.asarray(values.float().cpu())
