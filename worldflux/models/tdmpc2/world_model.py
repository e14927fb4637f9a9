"""TD-MPC2 (Hansen, Su, Wang 2024): a decoder-free world model that plans in latent space.

Legend: H horizon, B batch, N environments, L latent, A action. Inside, tensors are time-major.
One update is two phases: the model with its Q ensemble, then the policy prior against the Q just
updated; then targets move (`after_update`). Equation by equation: docs/tdmpc2.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from worldflux.core.batch import DEMONSTRATION, Batch, require_batch
from worldflux.core.compilation import CompiledFunction, Fallback
from worldflux.core.components import COMPONENT_SLOTS
from worldflux.core.inputs import named_observations
from worldflux.core.learning import (
    Carry,
    LearningOverrides,
    Phase,
    Policy,
    Scratch,
)
from worldflux.core.outputs import LossOutput, Proposal, metrics_of
from worldflux.core.payloads import ConditionPayload, WorldModelInput
from worldflux.core.precision import computing_in, steps_computing_in
from worldflux.core.specs import ExperienceLimits
from worldflux.core.state import State
from worldflux.core.world_model import Observation, WorldModel
from worldflux.errors import ConfigurationError, ShapeMismatchError

from .config import TDMPC2Config
from .family import capabilities_of, limits_of, require_possible
from .losses import (
    Draws,
    ModelTerms,
    Transitions,
    coefficients,
    imitation_loss,
    leaked_gradient,
    leave_latents,
    model_terms,
    optimizer_of,
    policy_embedding,
    policy_terms,
    termination_statistics,
    transitions,
    weighted_steps,
)
from .maths import lerp_targets_
from .networks import (
    LatentDecoder,
    LatentDynamics,
    LatentEncoder,
    Networks,
    RowConditioner,
    latent_state,
    task_indices,
)
from .planner import (
    Imagination,
    PlanStart,
    SlotImagination,
    imagined_returns,
    no_plan,
    plan,
    proposals,
    remembered,
    shifted,
)


class TDMPC2WorldModel(WorldModel):
    """The TD-MPC2 agent: encode, imagine, plan, learn.

    Raises:
        ConfigurationError: for discrete actions, several modalities, or images with several tasks.
    """

    networks_class: ClassVar[type[Networks]] = Networks
    imagination_class: ClassVar[type[Imagination]] = Imagination
    imitates = True
    config: TDMPC2Config
    policy_scale: Tensor
    step_weights: Tensor

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__(config)
        require_possible(config)
        self.networks = self.networks_class(config)
        self.modality = next(iter(config.observation_modalities))
        # What planning and learning spend their time in.
        self.functions: dict[str, Callable[..., Any]] = {
            "returns": imagined_returns,
            "model_terms": model_terms,
            "policy_terms": policy_terms,
        }
        self.register_buffer("policy_scale", torch.ones(()))  # of Q in the policy loss
        weights = torch.tensor([config.rho**t for t in range(config.horizon + 1)])
        self.register_buffer("step_weights", weights, persistent=False)
        self.observation_encoder = LatentEncoder(self.networks, self.modality)
        self.action_conditioner = RowConditioner(self.networks)
        self.dynamics_model = LatentDynamics(self.networks)
        self.decoder_module = LatentDecoder(self.networks)
        self.composable_support = set(COMPONENT_SLOTS)
        self._own_parts = {slot: getattr(self, slot) for slot in COMPONENT_SLOTS}
        self.capabilities = capabilities_of(config)
        self.eval()

    # ------------------------------------------------------------------ inputs

    def observations(self, obs: Observation) -> dict[str, Tensor]:
        """As the base class; with several tasks, "task" [B] is among the observations.

        A `WorldModelInput` may carry the task in `context` instead.

        Raises:
            ShapeMismatchError: when the task is missing or not one index a row.
        """
        named = super().observations(obs)
        if self.networks.tasks is None:
            return named
        if isinstance(obs, WorldModelInput):
            task = {**obs.context, **obs.observations}.get("task")
        else:
            task = obs.get("task") if isinstance(obs, dict) else None
        if task is None:
            raise ShapeMismatchError('several tasks need observations {..., "task": indices [B]}')
        task, count = task_indices(task, self.config.num_tasks), self.config.num_tasks
        if task.dim() != 1 or (len(task) and not 0 <= int(task.min()) <= int(task.max()) < count):
            raise ShapeMismatchError(f'"task" holds one index [B] from 0 to {count - 1} a row')
        return {**named, "task": task.long()}

    # ------------------------------------------------------------------ learning

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """The model and Q phase, then the policy phase; Adam with the official rates."""
        config = self.config
        rate = overrides.learning_rate or config.learning_rate
        clip = overrides.grad_clip or config.training_recipe().grad_clip
        policy = list(self.networks.policy.parameters())
        encoder = list(self.networks.encoder.parameters())
        apart = {id(p) for p in (*policy, *encoder)}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        groups: list[dict[str, Any]] = [
            {"params": encoder, "lr": rate * config.enc_lr_scale},
            {"params": rest, "lr": rate},
        ]
        adam = optimizer_of(groups, overrides)
        policy_adam = optimizer_of([{"params": policy, "lr": rate}], overrides, config.pi_adam_eps)
        return [
            Phase("model", adam, encoder + rest, clip, self.first_loss),
            Phase("policy", policy_adam, policy, clip, self._policy_loss),
        ]

    def experience_limits(self) -> ExperienceLimits:
        """True ends only where `episodic`; rewards and returns between the bins."""
        return limits_of(self.config)

    def compile_for_training(self, on_fallback: Fallback) -> None:
        """Compile what plans and losses spend their time in."""
        if not self.uses_own_components:
            raise ConfigurationError(
                "only the family's own components are compiled; a component slot holds another one",
                hint="leave training.compile out",
            )
        eager = dict(self.functions)

        def go_back(reason: str) -> None:
            self.functions = eager
            self.networks.heads_as_indices = False
            on_fallback(reason)

        # On a GPU planning also runs as CUDA graphs. The losses do not: gradients accumulate over
        # batches, and a graph's outputs are overwritten by its next run.
        modes = {"returns": "reduce-overhead"} if self.device.type == "cuda" else {}
        self.functions = {
            name: CompiledFunction(function, go_back, mode=modes.get(name))
            for name, function in eager.items()
        }
        self.networks.heads_as_indices = True
        self.steady_updates = type(self) is TDMPC2WorldModel

    @torch.no_grad()
    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Commit the policy's Q scale [] and move the targets; nothing goes to the replay."""
        self.policy_scale.copy_(scratch["policy_scale"])
        networks = self.networks
        lerp_targets_(networks.q_target.parameters(), networks.q.parameters(), self.config.tau)
        if networks.tasks is not None and "task_gradient" in scratch:
            # Gradient accumulation hands over the parts of the batch end to end.
            parts = scratch["task_gradient"].view(-1, *networks.tasks.leaked_grad.shape)
            networks.tasks.leaked_grad.copy_(parts.sum(0))
        return {}

    def loss(self, batch: Batch) -> LossOutput:
        """The model loss (paper, Eq. 3): consistency, reward, value and what is on.

        Dropout is on, and random numbers come from torch's global generator.
        """
        require_batch(batch)
        networks, scratch = self.networks, self.update_scratch
        self.action_tensor(batch.actions)
        data = self._transitions(batch)
        task, weights = networks.task(data.task), self.step_weights[:-1]
        with torch.no_grad():
            next_z = self._encode_steps(data.obs[1:], data.task)
        noise, heads = networks.draw_noise(next_z), networks.draw_heads()
        z = self._encode_steps(data.obs[:1], data.task)[0]
        draws = Draws(noise, heads, networks.draw_dropout(data.rewards.numel()))
        given = networks, weights, data, task, z, next_z, draws
        if self.uses_own_components:
            terms = self.functions["model_terms"](*given)
        else:
            latents = self._imagined(z, data)
            terms = model_terms(*given, latents, self._reward_rows(latents, data))
        leave_latents(scratch, terms.latents, data)
        return self._weighted(terms, data)

    def _weighted(self, terms: ModelTerms, data: Transitions) -> LossOutput:
        """The sum of the model loss's terms by their coefficients."""
        parts = {**terms.parts, **self._reconstruction(terms.latents, data)}
        weights = coefficients(self.config)
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        watched: dict[str, Tensor] = {}
        if terms.termination_logits is not None:
            logits = terms.termination_logits[-1].detach()
            watched = termination_statistics(logits, data.terminated[-1], data.valid[-1])
        components = {name: part.detach() for name, part in parts.items()}
        total = total + leaked_gradient(self.networks.tasks, self.config)
        return LossOutput(total, components, metrics_of(watched))

    def _policy_loss(self, batch: Batch, scratch: Scratch) -> LossOutput:
        """The policy prior against the Q heads that this update's first phase has moved."""
        networks = self.networks
        if "latents" not in scratch:  # a subclass learns the model by its own loss
            with torch.no_grad():
                data = self._transitions(batch)
                z = self._encode_steps(data.obs[:1], data.task)[0]
                leave_latents(scratch, self._imagined(z, data), data)
        latents, valid = scratch.pop("latents"), scratch.pop("valid")
        embedding = policy_embedding(networks.tasks, self.config, scratch)
        task = networks.task(scratch.pop("task", None), embedding)
        noise = networks.draw_noise(latents)
        dropout = networks.draw_dropout(valid.numel())  # for all heads, and before they are drawn
        heads = networks.draw_heads()
        numbers, draws = (self.config.tau, self.config.entropy_coef), Draws(noise, heads, dropout)
        terms = self.functions["policy_terms"](
            networks, numbers, self.step_weights, latents, valid, task, self.policy_scale, draws
        )
        scratch["policy_scale"] = terms.scale
        components = {
            "policy": terms.loss.detach(),
            "policy_entropy": terms.entropy,
            "policy_scaled_entropy": terms.scaled_entropy,
            "policy_scale": terms.scale,
        }
        loss = terms.loss
        if (weight := batch.extras.get(DEMONSTRATION)) is not None:
            actions = batch.actions[:, : self.config.horizon].transpose(0, 1).float()
            w = weight[:, : len(actions)].transpose(0, 1) * valid[1:]
            imitation = imitation_loss(
                networks, self.step_weights[:-1], latents[:-1], task, actions, w
            )
            loss, components["imitation"] = loss + imitation, imitation.detach()
        return LossOutput(loss, components)

    def _transitions(self, batch: Batch) -> Transitions:
        obs = named_observations(batch.obs, self.modalities)[self.modality]
        task = batch.obs.get("task") if isinstance(batch.obs, dict) else None
        if self.networks.tasks is None:
            task = None
        elif task is None:
            raise ShapeMismatchError('several tasks need batch.obs = {..., "task": indices [B, T]}')
        task = None if task is None else task_indices(task, self.config.num_tasks)
        return transitions(batch, obs, task, self.config.horizon)

    def _imagined(self, z: Tensor, data: Transitions) -> Tensor:
        """Latents [H + 1, B, L] from z [B, L] through the component slots."""
        return self.rollout(latent_state(z, data.task), data.actions).to_tensor("latent")

    def _encode_steps(self, obs: Tensor, task_index: Tensor | None) -> Tensor:
        """Encode [T, B, ...] by the attached encoder: [T, B, L]."""
        assert self.observation_encoder is not None
        steps = obs.shape[:2]
        observations = {self.modality: obs.flatten(0, 1)}
        if task_index is not None:
            observations["task"] = task_index.repeat(steps[0])
        return self.observation_encoder.encode(observations)["latent"].unflatten(0, steps)

    def _reward_rows(self, latents: Tensor, data: Transitions) -> Tensor | None:
        """What another action conditioner makes of the steps [H * B, ...]; None: the own rows."""
        if self.uses_own("action_conditioner") or not self.uses_own("dynamics_model"):
            return None
        assert self.action_conditioner is not None
        index = None if data.task is None else data.task.repeat(data.actions.shape[0])
        state = latent_state(latents[:-1].flatten(0, 1), index)
        actions = data.actions.flatten(0, 1)
        conditioned = self.action_conditioner.condition(state, actions, ConditionPayload())
        assert conditioned is not None
        return conditioned

    def _reconstruction(self, latents: Tensor, data: Transitions) -> dict[str, Tensor]:
        """Squared error of decoded observations, where the decoder predicts them."""
        silent = self.uses_own("decoder_module") and not self.config.use_decoder
        if self.decoder_module is None or silent:
            return {}
        index = None if data.task is None else data.task.repeat(latents.shape[0])
        rows = latent_state(latents.flatten(0, 1), index)
        output = self.decoder_module.decode(rows, ConditionPayload())
        if "obs" not in output.predictions:
            return {}
        target = data.obs.flatten(0, 1).float() / (255.0 if self.config.is_image else 1.0)
        error = (output.predictions["obs"].float() - target).square().flatten(1).mean(1)
        valid = data.valid_states()
        return {"reconstruction": weighted_steps(error.view_as(valid), valid, self.step_weights)}

    # ------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        """No plan yet: `prev_mean` [N, H, A] and `valid` [N]."""
        return no_plan(self.config, num_envs, self.device)

    def policy(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> tuple[Tensor, Carry]:
        """Plan one action [N, A] for each of N environments at once (mpc=False: draw the prior)."""
        return self._act(self.config.mpc, obs, carry, is_first, explore=explore)

    def policies(self) -> dict[str, Policy]:
        """Planning, and the policy prior; `policy` is the one that `config.mpc` chooses."""
        return {"plan": partial(self._act, True), "prior": partial(self._act, False)}

    @torch.no_grad()
    def _act(
        self, planning: bool, obs: Any, carry: Carry, is_first: Tensor, explore: bool
    ) -> tuple[Tensor, Carry]:
        with computing_in(self.acting_dtype, self.device):
            if not planning:
                return self._prior_action(obs, carry, is_first, explore), carry
            start = self._planning(obs, carry, is_first)
            # Inference mode saves a tenth of a small plan; the clones are ordinary tensors again.
            with torch.inference_mode() if self.uses_own_components else torch.no_grad():
                action, mean = plan(*start, explore=explore)
        return remembered(action, mean)

    def _prior_action(self, obs: Any, carry: Carry, is_first: Tensor, explore: bool) -> Tensor:
        with torch.inference_mode() if self.uses_own_components else torch.no_grad():
            state = self.encode_named(self.acting_observations(obs, carry, is_first), False)
            task = self.networks.task(state.get("task"))
            choose = self.networks.policy_action if explore else self.networks.mean_action
            action = choose(self.networks.state_rows(state["latent"], task), task)
        return action.clone()

    @torch.no_grad()
    def proposals(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> Iterator[Proposal]:
        """The prior's actions [N, A] at once, then the plan's after each iteration."""
        if not self.config.mpc:
            yield from super().proposals(obs, carry, is_first, explore=explore)
            return
        mode = torch.inference_mode if self.uses_own_components else torch.no_grad
        with computing_in(self.acting_dtype, self.device):
            start = self._planning(obs, carry, is_first)
        steps = mode()(proposals)(*start, explore=explore)
        for action, mean, *progress in steps_computing_in(self.acting_dtype, self.device, steps):
            yield Proposal(*remembered(action, mean), *progress)

    def _planning(self, obs: Any, carry: Carry, is_first: Tensor) -> PlanStart:
        """What a plan starts from; the previous one, shifted by a step, unless `is_first`."""
        state = self.encode_named(self.acting_observations(obs, carry, is_first), False)
        task_index = state.get("task")
        imagination = self.imagination_class(self.networks, self.functions["returns"])
        if not self.uses_own_components:
            imagination = SlotImagination(self.networks, self, task_index)
        keep = carry["valid"] & ~is_first.to(self.device).bool()
        given = imagination, self.config, state["latent"], self.networks.task(task_index)
        return PlanStart(*given, shifted(carry["prev_mean"], keep))

    def imagined_action(self, state: State) -> Tensor:
        """The mean of the policy prior `[B, A]`."""
        task = self.networks.task(state.get("task"))
        return self.networks.mean_action(self.networks.state_rows(state["latent"], task), task)

    # ------------------------------------------------------------------ components

    @property
    def uses_own_components(self) -> bool:
        """Whether imagination goes straight through the networks (the encoder may be another)."""
        return self.uses_own(*COMPONENT_SLOTS[1:])

    def uses_own(self, *slots: str) -> bool:
        """Whether these slots hold the family's own parts."""
        return all(getattr(self, slot) is self._own_parts[slot] for slot in slots)
