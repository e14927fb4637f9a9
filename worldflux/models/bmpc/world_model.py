"""BMPC (Wang et al. 2025): TD-MPC2's world model, whose planner teaches the policy.

Legend: H horizon, B batch, N environments, L latent, A action; inside, time comes first.
One update is two phases: the model with V, whose target imagines a step of the policy; then the
policy, which imitates the Gaussians that plans have left in the replay. Every few updates some of
these are planned again ("lazy reanalyse") and written back. Equation by equation: docs/bmpc.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch, require_batch
from worldflux.core.learning import Carry, LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput, Proposal
from worldflux.core.precision import computing_in
from worldflux.models.tdmpc2.losses import Draws, Transitions, leave_latents, model_terms
from worldflux.models.tdmpc2.maths import lerp_targets_
from worldflux.models.tdmpc2.planner import imagined_returns, remembered
from worldflux.models.tdmpc2.world_model import TDMPC2WorldModel

from .config import BMPCConfig
from .losses import imitation_terms, stored_experts, value_targets
from .networks import BMPCNetworks
from .planner import EXPERT_COLUMNS, BMPCImagination, plan, reanalyse


class BMPCWorldModel(TDMPC2WorldModel):
    """The BMPC agent: encode, imagine, plan, learn, and learn from its plans.

    Attributes:
        update_count: updates so far, those of pretraining not counted.

    Raises:
        ConfigurationError: for discrete actions or several modalities.
    """

    imitates = False  # the policy follows plans
    networks_class = BMPCNetworks
    imagination_class = BMPCImagination
    config: BMPCConfig
    networks: BMPCNetworks
    update_count: Tensor

    def __init__(self, config: BMPCConfig) -> None:
        super().__init__(config)
        self.functions = {
            "returns": imagined_returns,
            "value_targets": value_targets,
            "model_terms": model_terms,
            "imitation_terms": imitation_terms,
        }
        self.register_buffer("update_count", torch.zeros((), dtype=torch.int64))
        # The same number, without waiting for the device that holds it; None: to be read again.
        self.known_count: int | None = None
        self.register_load_state_dict_post_hook(_forget_count)
        self.composable_support = {"observation_encoder"}

    # ------------------------------------------------------------------ learning

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """As TD-MPC2's; the policy does not learn while the run pretrains."""
        model, policy = super().phases(overrides)
        policy.pretrains = False
        return [model, policy]

    def loss(self, batch: Batch) -> LossOutput:
        """The model loss: consistency, reward, value and what is on. As in TD-MPC2, it draws."""
        require_batch(batch)
        config, networks, scratch = self.config, self.networks, self.update_scratch
        self.action_tensor(batch.actions)
        data = self._transitions(batch)
        task, weights = networks.task(None), self.step_weights[:-1]
        self._leave_experts(batch, data, scratch)
        with torch.no_grad():
            encoded = self._encode_steps(data.obs, None)
        policy_noise = [networks.draw_noise(encoded[:-1]) for _ in range(config.td_horizon)]
        heads = networks.draw_heads()
        z = self._encode_steps(data.obs[:1], None)[0]
        draws = Draws(policy_noise[0], heads, networks.draw_dropout(data.rewards.numel()))
        targets = self.functions["value_targets"](
            networks, encoded[:-1], task, torch.stack(policy_noise), heads
        )
        terms = self.functions["model_terms"](
            networks, weights, data, task, z, encoded[1:], draws, targets=targets
        )
        if not self.pretraining:
            leave_latents(scratch, terms.latents, data)
        return self._weighted(terms, data)

    def _leave_experts(self, batch: Batch, data: Transitions, scratch: Scratch) -> None:
        """Leave in `scratch` the Gaussians [H, B, A] to imitate, some planned again when due.

        What is to be written back is there too, sequences first: [n, H, ...].
        """
        if self.pretraining or self._scratch is None:
            return
        config = self.config
        mean, std = stored_experts(batch, config.horizon)
        interval = config.reanalyze_interval
        if self.known_count is None:
            self.known_count = int(self.update_count)
        if interval and (self.known_count + 1) % interval == 0:
            fresh = self._reanalysed(data.obs[:-1, : config.reanalyze_batch_size])
            count = fresh["expert_mean"].shape[1]
            mean[:, :count], std[:, :count] = fresh["expert_mean"], fresh["expert_std"]
            if "replay_index" in batch.extras:
                index = batch.extras["replay_index"][:count, : config.horizon]
                found = {name: value.transpose(0, 1) for name, value in fresh.items()}
                scratch.update(found, replay_index=index)
        scratch.update(imitated_mean=mean, imitated_std=std)

    @torch.no_grad()
    def _reanalysed(self, obs: Tensor) -> dict[str, Tensor]:
        """Experts [H, n, ...] of observations [H, n, ...], all planned in one batch."""
        with torch.autocast(self.device.type, enabled=False):
            z = self._encode_steps(obs, None)
            imagination = BMPCImagination(self.networks, self.functions["returns"], wide=True)
            task = self.networks.task(None)
            expert = reanalyse(imagination, self.config, z.flatten(0, 1), task)
        return {name: v.unflatten(0, z.shape[:2]) for name, v in expert.columns().items()}

    def _policy_loss(self, batch: Batch, scratch: Scratch) -> LossOutput:
        """The policy against the experts, on the latents of this update's first phase."""
        networks, config = self.networks, self.config
        if "latents" not in scratch:  # a subclass learns the model by its own loss
            with torch.no_grad():
                data = self._transitions(batch)
                z = self._encode_steps(data.obs[:1], None)[0]
                leave_latents(scratch, self._imagined(z, data), data)
            experts = stored_experts(batch, config.horizon)
        else:
            experts = scratch.pop("imitated_mean"), scratch.pop("imitated_std")
        latents, valid = scratch.pop("latents")[:-1], scratch.pop("valid")[1:]
        noise, numbers = networks.draw_noise(latents), (config.tau, config.entropy_coef)
        weights = self.step_weights[:-1]
        terms = self.functions["imitation_terms"](
            networks, numbers, weights, latents, valid, experts, self.policy_scale, noise
        )
        scratch["policy_scale"] = terms.scale
        components = {
            "policy": terms.loss.detach(),
            "policy_entropy": terms.entropy,
            "policy_scaled_entropy": terms.scaled_entropy,
            "policy_log_std": terms.log_std,
            "policy_scale": terms.scale,
        }
        return LossOutput(terms.loss, components)

    @torch.no_grad()
    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Count, commit the divergence's scale [], move the targets; return the new plans.

        Those are experts [H, n, ...] and the "replay_index" [H, n] of their rows.
        """
        networks = self.networks
        lerp_targets_(networks.q_target.parameters(), networks.q.parameters(), self.config.tau)
        if self.pretraining:
            return {}
        self.update_count += 1
        if self.known_count is not None:
            self.known_count += 1
        self.policy_scale.copy_(scratch["policy_scale"])
        # Time first: of a row that was planned several times the last plan stays, as officially.
        written = ("replay_index", *EXPERT_COLUMNS)
        return {name: scratch[name].transpose(0, 1) for name in written if name in scratch}

    # ------------------------------------------------------------------ acting

    def replay_columns(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The expert of each planned step."""
        sizes = (self.config.action_dim, self.config.action_dim, 1)
        return {n: ((s,), torch.float32) for n, s in zip(EXPERT_COLUMNS, sizes, strict=True)}

    def initial_carry(self, num_envs: int) -> Carry:
        """No plan yet, and no expert: zeros [N, A], [N, A] and [N, 1]."""
        columns = self.replay_columns()
        none = {n: torch.zeros(num_envs, *s, device=self.device) for n, (s, _) in columns.items()}
        return {**super().initial_carry(num_envs), **none}

    @torch.no_grad()
    def _act(
        self, planning: bool, obs: Any, carry: Carry, is_first: Tensor, explore: bool
    ) -> tuple[Tensor, Carry]:
        with computing_in(self.acting_dtype, self.device):
            if not planning:
                return self._prior_action(obs, carry, is_first, explore), carry
            # Inference mode saves a tenth of a small plan; the clones are ordinary tensors again.
            with torch.inference_mode() if self.uses_own_components else torch.no_grad():
                start = self._planning(obs, carry, is_first)
                action, mean, expert = plan(start, explore=explore)
        action, memory = remembered(action, mean)
        return action, memory | {name: v.clone() for name, v in expert.columns().items()}

    @torch.no_grad()
    def proposals(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> Iterator[Proposal]:
        """As TD-MPC2's, actions [N, A]; the memory holds no expert: nobody learns from these."""
        for proposal in super().proposals(obs, carry, is_first, explore=explore):
            memory = {**self.initial_carry(len(proposal.action)), **proposal.carry}
            yield proposal._replace(carry=memory)


def _forget_count(model: nn.Module, keys: object) -> None:
    model.known_count = None  # type: ignore[assignment]  # torch types attributes as tensors
