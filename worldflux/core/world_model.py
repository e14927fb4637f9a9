"""`WorldModel`: the contract of every family, and how its components are put to work (seed 004)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldflux.errors import CapabilityError, ConfigurationError, ShapeMismatchError, did_you_mean

from . import hub
from .batch import Batch
from .compiled import Fallback
from .components import (
    COMPONENT_SLOTS,
    ActionConditioner,
    Decoder,
    DynamicsModel,
    ObservationEncoder,
    RolloutExecutor,
)
from .config import WorldModelConfig
from .learning import Carry, LearningOverrides, Phase, Scratch
from .observations import named_observations, steps_as_rows
from .outputs import LossOutput, ModelOutput, Trajectory
from .payloads import ActionPayload, ActionSequence, ConditionPayload, WorldModelInput
from .rollout import AutoregressiveRollout
from .saved_model import save_model
from .specs import ActionSpec, Capability, ModalitySpec, PredictionSpec, SequenceLayout
from .state import State

Observation = Tensor | dict[str, Tensor] | WorldModelInput


class WorldModel(nn.Module, ABC):
    """Base of all world models: observe, predict, decode, imagine, learn and act.

    A family fills the component slots with its own parts; `replace_component` puts another part
    in a slot of `composable_support`, where it takes effect in loss, rollout and acting.

    Attributes:
        capabilities: what the model can do (`Capability`).
        composable_support: slots whose component may be replaced.
        modalities: the named observations, each `[B, *shape]` (`ModalitySpec`).
        action_spec: kind, size and bounds of the actions `[B, A]` (`ActionSpec`).
        declared_conditions: names of the side conditions that the family takes.

    Raises:
        ConfigurationError: when `config` describes observations or actions that cannot be.
    """

    capabilities: set[Capability]
    composable_support: set[str]
    declared_conditions: frozenset[str] = frozenset()

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities = {
            name: ModalitySpec.of(name, entry)
            for name, entry in config.observation_modalities.items()
        }
        self.action_spec = ActionSpec.of(config.action_spec)
        self.capabilities = set()
        self.composable_support = set()
        self.observation_encoder: ObservationEncoder | None = None
        self.action_conditioner: ActionConditioner | None = None
        self.dynamics_model: DynamicsModel | None = None
        self.decoder_module: Decoder | None = None
        self.rollout_executor: RolloutExecutor | None = AutoregressiveRollout()

    # ------------------------------------------------------------------ the documented pipeline

    def encode(self, obs: Observation, deterministic: bool = False) -> State:
        """Encode observations `[B, ...]` into a latent state.

        Args:
            obs: a tensor, a dict of named modality tensors, or a WorldModelInput (whose action
                is checked; an observation's state does not depend on it).
            deterministic: modes and means instead of samples.

        Raises:
            NotImplementedError: when no observation_encoder is attached.
            ShapeMismatchError: naming the shape expected and the one given.
        """
        if isinstance(obs, WorldModelInput):
            obs.conditions.validate(self.declared_conditions)
            self.action_tensor(obs.action)
        return self.encode_named(self.observations(obs), deterministic)

    def encode_named(self, observations: dict[str, Tensor], deterministic: bool) -> State:
        """What the encoder slot makes of checked observations `[B, ...]` by name.

        Raises:
            NotImplementedError: when no observation_encoder is attached.
        """
        if self.observation_encoder is None:
            raise NotImplementedError("no component is attached in slot 'observation_encoder'")
        return self.observation_encoder.encode(observations, deterministic)

    def observe(self, obs: Tensor | dict[str, Tensor], actions: Tensor) -> list[State]:
        """What the model knows after each observation of an episode, from its first one on.

        Here each observation is encoded by itself; a recurrent family takes the past along.

        Args:
            obs: `[T, B, ...]`, a tensor or tensors by name.
            actions: `[T - 1, B, A]`, taken between them.

        Returns: T states of batch size B, of modes and means.
        """
        shape = (len(actions) + 1, actions.shape[1])
        encoded = self.encode(steps_as_rows(obs), deterministic=True).tensors
        steps = {name: value.unflatten(0, shape) for name, value in encoded.items()}
        return [State({name: value[t] for name, value in steps.items()}) for t in range(shape[0])]

    def transition(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
    ) -> State:
        """Predict the next latent state: one imagined step.

        Raises:
            NotImplementedError: when no dynamics_model is attached.
            ShapeMismatchError: when the action does not fit the model.
        """
        if self.dynamics_model is None:
            raise NotImplementedError("no component is attached in slot 'dynamics_model'")
        given = conditions or ConditionPayload()
        given.validate(self.declared_conditions)
        tensor = self.action_tensor(action)
        if self.action_conditioner is not None:
            tensor = self.action_conditioner.condition(state, tensor, given)
        return self.dynamics_model.transition(state, tensor, deterministic)

    def decode(self, state: State, conditions: ConditionPayload | None = None) -> ModelOutput:
        """Decode a latent state into predictions by name.

        Raises:
            CapabilityError: when no decoder_module is attached.
        """
        if self.decoder_module is None:
            raise CapabilityError("no component is attached in slot 'decoder_module'")
        given = conditions or ConditionPayload()
        given.validate(self.declared_conditions)
        output = self.decoder_module.decode(state, given)
        if output.prediction_spec is None:
            output.prediction_spec = PredictionSpec.of(output.predictions)
        if output.sequence_layout is None:
            output.sequence_layout = SequenceLayout(dict.fromkeys(output.predictions, "B"))
        return output

    def rollout(
        self,
        initial_state: State,
        action_sequence: ActionSequence | ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        mode: str = "autoregressive",
    ) -> Trajectory:
        """Imagine open loop under actions `[T, B, A]` (None: horizon 0).

        Raises:
            ValueError: for a mode other than "autoregressive".
            NotImplementedError: when no rollout_executor is attached.
        """
        if mode != "autoregressive":
            raise ValueError(f"rollout mode {mode!r} is not supported: only 'autoregressive' is")
        if self.rollout_executor is None:
            raise NotImplementedError("no component is attached in slot 'rollout_executor'")
        initial_state.validate()
        actions = self._action_sequence(action_sequence, initial_state)
        given = conditions or ConditionPayload()
        given.validate(self.declared_conditions)
        return self.rollout_executor.rollout(self, initial_state, actions, given, deterministic)

    @abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """The training loss of a batch `[B, T, ...]`; no side effect."""

    def supports(self, capability: Capability) -> bool:
        """Whether the model advertises the capability."""
        return capability in self.capabilities

    @property
    def supports_reward(self) -> bool:
        """Whether the model predicts rewards."""
        return self.supports(Capability.REWARD_PRED)

    @property
    def supports_continue(self) -> bool:
        """Whether the model predicts continuation."""
        return self.supports(Capability.CONTINUE_PRED)

    @property
    def supports_planning(self) -> bool:
        """Whether the model plans its actions."""
        return self.supports(Capability.PLANNING)

    # ------------------------------------------------------------------ learning and acting

    @abstractmethod
    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """The ordered losses and optimisers of one update; phase 1 is the documented `loss`."""

    @abstractmethod
    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Move targets and normalisers; return columns to write into the replay.

        Columns are `[B, T', ...]` for the last T' steps of the batch.
        """

    @abstractmethod
    def initial_carry(self, num_envs: int) -> Carry:
        """Acting memory of `num_envs` environments before their first observation."""

    @abstractmethod
    def policy(
        self,
        obs: Tensor | dict[str, Tensor],
        carry: Carry,
        is_first: Tensor,
        *,
        explore: bool,
    ) -> tuple[Tensor, Carry]:
        """Actions `[N, A]` for observations `[N, ...]`, and the memory for the next step.

        `is_first` `[N]` resets the memory of single environments. `explore` adds the family's
        exploration; without it the agent acts as it is evaluated.
        """

    def compile_for_training(self, on_fallback: Fallback) -> None:
        """Compile the costly functions of acting and learning (`training.compile`).

        They are compiled when first called, which takes minutes. Where that fails, `on_fallback`
        is told why, and everything goes on eagerly with the same numbers.

        Raises:
            ConfigurationError: when this family has nothing to compile.
        """
        raise ConfigurationError(
            f"{self.config.model_type} models have no compiled functions",
            hint="leave training.compile out",
        )

    def replay_columns(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Further columns of the carry that the replay keeps a step: shape and dtype."""
        return {}

    # ------------------------------------------------------------------ components

    def replace_component(self, slot: str, component: Any) -> None:
        """Put another part in a slot of `composable_support`.

        Raises:
            ConfigurationError: when the slot is unknown, not replaceable here, or the part lacks
                the slot's method.
        """
        if slot not in COMPONENT_SLOTS:
            known = ", ".join(map(repr, COMPONENT_SLOTS))
            raise ConfigurationError(
                f"no component slot {slot!r}: known are {known}",
                hint=did_you_mean(slot, COMPONENT_SLOTS),
            )
        if slot not in self.composable_support:
            allowed = sorted(self.composable_support)
            raise ConfigurationError(f"{type(self).__name__} cannot replace {slot!r}: {allowed}")
        if not isinstance(component, _PROTOCOL_OF_SLOT[slot]):
            method = METHOD_OF_SLOT[slot]
            raise ConfigurationError(
                f"{type(component).__name__} does not fit slot {slot!r}: it has no {method}()"
            )
        setattr(self, slot, component)

    # ------------------------------------------------------------------ saving

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors; `create_world_model(directory)` opens them."""
        save_model(self, Path(directory))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to a hub; `create_world_model("hf://owner/name")` opens it.

        Args:
            repo_id: "owner/name"; the repository is made where it does not exist.
            private: for a repository that is made now.
            token: of an account that may write; the stored login by default.

        Returns: the reference of exactly this upload, `hf://owner/name@commit`.

        Raises:
            MissingDependencyError: without huggingface_hub (extra `hub`).
            CheckpointError: when the hub cannot be reached or refuses.
        """
        return hub.push(self, repo_id, private=private, token=token)

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    # ------------------------------------------------------------------ inputs

    def observations(self, obs: Observation) -> dict[str, Tensor]:
        """The observation as a dict of named tensors `[B, ...]`, shapes checked.

        Raises:
            ShapeMismatchError: naming the modality, the shape expected and the one given.
        """
        given = obs.observations if isinstance(obs, WorldModelInput) else obs
        return named_observations(given, self.modalities)

    def action_tensor(self, action: ActionPayload | Tensor | None) -> Tensor | None:
        """An action as floats `[..., A]`; discrete indices become one-hot rows.

        Raises:
            ShapeMismatchError: when the last axis is not the model's action size.
        """
        if isinstance(action, ActionPayload):
            action.validate(action_dim=self.config.action_dim)
            if action.kind not in ("none", self.config.action_type):
                raise ConfigurationError(
                    f"this model takes {self.config.action_type!r} actions, not {action.kind!r}"
                )
            action = action.primary()
        if action is None:
            return None
        if self.config.action_type == "discrete" and not action.is_floating_point():
            return self.action_rows(action)
        size = self.config.action_dim
        if action.dim() == 0 or action.shape[-1] != size:
            raise ShapeMismatchError(
                f"the action has shape {tuple(action.shape)}, expected [..., {size}]"
            )
        return action

    def action_rows(self, indices: Tensor) -> Tensor:
        """One-hot rows `[..., A]` of the indices `[...]` of discrete actions.

        Raises:
            ShapeMismatchError: for an index that no action has.
        """
        size = self.config.action_dim
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= size):
            raise ShapeMismatchError(f"a discrete action is an index below {size}")
        return functional.one_hot(indices.long(), size).to(torch.float32)

    def _action_of_step(self, step: int, payload: ActionPayload) -> Tensor:
        action = self.action_tensor(payload)
        if action is None:
            raise ConfigurationError(f"step {step} of the action sequence carries no action")
        return action

    def _action_sequence(
        self, sequence: ActionSequence | ActionPayload | Tensor | None, initial: State
    ) -> Tensor:
        if isinstance(sequence, ActionSequence) and sequence.payloads is not None:
            steps = [self._action_of_step(t, step) for t, step in enumerate(sequence.payloads)]
            actions = torch.stack(steps) if steps else None
        elif isinstance(sequence, ActionSequence):
            actions = self.action_tensor(sequence.tensor)
        else:
            actions = self.action_tensor(sequence)
        if actions is None:
            size = (0, initial.batch_size, self.config.action_dim)
            return torch.zeros(size, device=initial.device)
        if actions.dim() != 3 or actions.shape[1] != initial.batch_size:
            raise ShapeMismatchError(
                f"the action sequence has shape {tuple(actions.shape)}, expected "
                f"[T, {initial.batch_size}, {self.config.action_dim}]"
            )
        return actions


_PROTOCOL_OF_SLOT: dict[str, Any] = {
    "observation_encoder": ObservationEncoder,
    "action_conditioner": ActionConditioner,
    "dynamics_model": DynamicsModel,
    "decoder_module": Decoder,
    "rollout_executor": RolloutExecutor,
}
METHOD_OF_SLOT = {
    "observation_encoder": "encode",
    "action_conditioner": "condition",
    "dynamics_model": "transition",
    "decoder_module": "decode",
    "rollout_executor": "rollout",
}
