"""`WorldModel`: the contract of every family, and how its components are put to work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.alpha import missing_attribute
from worldflux.errors import CapabilityError, ConfigurationError

from . import hub
from .acting import Acting
from .batch import Batch
from .compilation import Fallback
from .components import (
    ActionConditioner,
    Decoder,
    DynamicsModel,
    ObservationEncoder,
    RolloutExecutor,
    require_fitting,
    require_returned,
)
from .config import WorldModelConfig
from .inputs import ModelInputs, Observation, steps_as_rows
from .learning import Carry, LearningOverrides, Phase, Scratch, single_phase
from .outputs import LossOutput, ModelOutput, Trajectory
from .payloads import ActionPayload, ActionSequence, ConditionPayload, WorldModelInput
from .precision import COMPUTE_TYPES
from .rollout import AutoregressiveRollout
from .saved_model import save_model
from .specs import (
    ActionSpec,
    Capability,
    ExperienceLimits,
    ModalitySpec,
    PredictionSpec,
    SequenceLayout,
)
from .starting import Startable
from .state import State


class WorldModel(ModelInputs, Startable, Acting, ABC):
    """Base of all world models: observe, predict, decode, imagine, learn and act.

    A family fills the component slots with its own parts; `replace_component` puts another part
    in a slot of `composable_support`, where it takes effect in loss, rollout and acting.

    A subclass has to define `loss` and nothing else: the Trainer then minimises it over all
    parameters with the optimiser of `config.training_recipe()`.

    Attributes:
        capabilities: what the model can do (`Capability`).
        composable_support: slots whose component may be replaced.
        modalities: the named observations, each `[B, *shape]` (`ModalitySpec`).
        action_spec: kind, size and bounds of the actions `[B, A]` (`ActionSpec`).
        declared_conditions: names of the side conditions that the family reads.
        pretraining: whether the next update comes before the agent has acted (the Trainer's).
        imitates: whether the policy imitates actions that a batch weights (`DEMONSTRATION`).
        steady_updates: whether losses do the same whatever the numbers are, and read none of them
            in Python, so that a GPU may repeat them as a recorded graph.

    Raises:
        ConfigurationError: when `config` describes observations or actions that cannot be.
    """

    capabilities: set[Capability]
    composable_support: set[str]
    declared_conditions: frozenset[str] = frozenset()
    pretraining: bool = False
    imitates: bool = False
    steady_updates: bool = False
    _scratch: Scratch | None = None

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.acting_dtype = COMPUTE_TYPES[config.dtype]
        self.modalities = {
            name: ModalitySpec.of(name, entry)
            for name, entry in config.observation_modalities.items()
        }
        self.action_spec = ActionSpec.of(config.action_spec)
        self.capabilities, self.composable_support = set(), set()
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
        named = self.observations(obs)
        if isinstance(obs, WorldModelInput):
            self._checked(obs.conditions)
            self.step_action(obs.action, len(next(iter(named.values()))))
        return self.encode_named(named, deterministic)

    def encode_named(self, observations: dict[str, Tensor], deterministic: bool) -> State:
        """What the encoder slot makes of checked observations `[B, ...]` by name."""
        encoder: ObservationEncoder = self._part("observation_encoder")
        state = encoder.encode(observations, deterministic)
        return require_returned("observation_encoder", state, State)

    def observe(self, obs: Tensor | dict[str, Tensor], actions: Tensor) -> list[State]:
        """What the model knows after each observation of an episode, from the first one on.

        Here each observation is encoded by itself; a recurrent family remembers the past.

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

        Args:
            action: `[B, A]`, discrete indices `[B]`, or None for a step without one (a zero
                action in both families here). `[A]` is one action for a state of one row.
            conditions: handed to the action conditioner; what the model does not read is warned
                about, extras that it does not declare are refused.

        Raises:
            NotImplementedError: when no dynamics_model is attached.
            ShapeMismatchError: when the action does not fit the model or the state's rows.
        """
        dynamics: DynamicsModel = self._part("dynamics_model")
        given = self._checked(conditions)
        tensor = self.step_action(action, state.batch_size)
        if self.action_conditioner is not None:
            tensor = self.action_conditioner.condition(state, tensor, given)
            require_returned("action_conditioner", tensor, (Tensor, type(None)))
        following = dynamics.transition(state, tensor, deterministic)
        return require_returned("dynamics_model", following, State)

    def decode(self, state: State, conditions: ConditionPayload | None = None) -> ModelOutput:
        """Decode a latent state into predictions by name.

        Raises:
            CapabilityError: when no decoder_module is attached.
            StateError: when the state's tensors disagree.
        """
        decoder: Decoder = self._part("decoder_module", CapabilityError)
        given = self._checked(conditions)
        state.validate()
        output = decoder.decode(state, given)
        require_returned("decoder_module", output, ModelOutput)
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
        """Imagine open loop under actions `[T, B, A]` (None: none; a payload `[B, A]` is one step).

        Raises:
            ShapeMismatchError: when the actions do not fit the model or the state's rows.
            ValueError: for a mode other than "autoregressive".
            NotImplementedError: when no rollout_executor is attached.
        """
        if mode != "autoregressive":
            raise ValueError(f"rollout mode {mode!r} is not supported: only 'autoregressive' is")
        executor: RolloutExecutor = self._part("rollout_executor")
        initial_state.validate()
        actions = self.action_sequence(action_sequence, initial_state)
        given = self._checked(conditions)
        return executor.rollout(self, initial_state, actions, given, deterministic)

    def _part(self, slot: str, error: type[Exception] = NotImplementedError) -> Any:
        part = getattr(self, slot)
        if part is None:
            raise error(f"no component is attached in slot {slot!r}")
        return part

    def _checked(self, conditions: ConditionPayload | None) -> ConditionPayload:
        given = conditions or ConditionPayload()
        given.validate(self.declared_conditions)
        return given

    @abstractmethod
    def loss(self, batch: Batch) -> LossOutput:
        """The training loss of a batch `[B, T, ...]`, as the Trainer minimises it; no side effect.

        A subclass of a family may add a term to `super().loss(batch)`.
        """

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

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """The ordered losses and optimisers of one update; phase 1 is the documented `loss`.

        By default one phase over all parameters, with Adam and the numbers of the configuration's
        recipe.

        Raises:
            ConfigurationError: when there is nothing to learn, or for an unknown optimiser.
        """
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        recipe = self.config.training_recipe()
        return [single_phase(type(self).__name__, learned, self.first_loss, recipe, overrides)]

    def first_loss(self, batch: Batch, scratch: Scratch) -> LossOutput:
        """`loss` of a batch `[B, T, ...]` as the first phase of an update.

        What it leaves in `update_scratch` for later phases lands in `scratch`.
        """
        self._scratch = scratch
        try:
            return self.loss(batch)
        finally:
            self._scratch = None

    @property
    def update_scratch(self) -> Scratch:
        """Where `loss` leaves values for later phases; outside of an update nothing reads it."""
        return {} if self._scratch is None else self._scratch

    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Move targets and normalisers; return columns to write into the replay.

        Columns are `[B, T', ...]` for the last T' steps of the batch, or for the rows that a column
        "replay_index" names. By default nothing moves.
        """
        return {}

    def experience_limits(self) -> ExperienceLimits | None:
        """What this model can learn from as it is configured; None: anything.

        Anything beyond is reported, or ends the run (`training.on_unfit_data`).
        """
        return None

    def acting_state(self, obs: Tensor | dict[str, Tensor], carry: Carry) -> State:
        """What the model knows after `policy` of observations `[N, ...]` returned this memory;
        here the observation alone."""
        return self.encode(obs, deterministic=True)

    def compile_for_training(self, on_fallback: Fallback) -> None:
        """Compile the costly functions of acting and learning (`training.compile`).

        That takes minutes at the first call. Where it fails, `on_fallback` gets the reason, and
        everything continues eagerly with the same numbers.

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
            ConfigurationError: when the slot is unknown, not replaceable here, or the part's
                method is missing or takes other arguments.
        """
        require_fitting(type(self).__name__, slot, component, self.composable_support)
        setattr(self, slot, component)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                raise missing_attribute(self, name) from None

    # ------------------------------------------------------------------ saving

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json and model.safetensors; `create_world_model(directory)` opens them."""
        save_model(self, Path(directory))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to a hub; `create_world_model("hf://owner/name")` opens it.

        Args:
            repo_id: "owner/name"; the repository is created if it does not exist.
            private: for a repository that is created now.
            token: of an account that may write; the stored login by default.

        Returns: the reference of exactly this upload, `hf://owner/name@commit`.

        Raises:
            MissingDependencyError: without huggingface_hub (extra `hub`).
            CheckpointError: when the hub cannot be reached or refuses.
        """
        return hub.push(self, repo_id, private=private, token=token)

    @property
    def device(self) -> torch.device:
        """Device of the first parameter; the CPU where there are none."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))
