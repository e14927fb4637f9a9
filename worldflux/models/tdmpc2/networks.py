"""The networks of TD-MPC2 (Hansen et al. 2024, section 3.1), and the parts that offer them in the
component slots.

Legend: z latent [..., L], a action [..., A], K bins, N Q heads, R rows (leading axes flattened).
A row is `[z, task embedding, a]`: what the dynamics, reward and Q networks read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldflux.core.outputs import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import StateError

from .config import TDMPC2Config
from .layers import (
    INIT_STD,
    MLP,
    EnsembleMLP,
    Heads,
    PixelDecoder,
    PixelEncoder,
    dropout_mask,
    ensemble_forward,
    narrowed,
    simnorm,
)
from .maths import (
    PolicySample,
    SymlogBins,
    bounded_log_std,
    sample_action,
    sample_policy,
    two_hot_mean,
)


@dataclass(frozen=True)
class Task:
    """The task of each row: `embedding` [B, T], `action_mask` [B, A] (1 for valid dimensions),
    `num_actions` and `discount` [B]. A single task has no embedding, no mask and plain numbers.
    """

    embedding: Tensor | None
    action_mask: Tensor | None
    num_actions: float | Tensor
    discount: float | Tensor

    def rows(self, at: slice) -> Task:
        return self._each(lambda tensor: tensor[at])

    def repeated(self, times: int) -> Task:
        """The same for rows that repeat each entry `times` times: [B * times, ...]."""
        return self._each(lambda tensor: tensor.repeat_interleave(times, 0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Task:
        if self.embedding is None or self.action_mask is None:
            return self
        assert isinstance(self.num_actions, Tensor)
        assert isinstance(self.discount, Tensor)
        tensors = (self.embedding, self.action_mask, self.num_actions, self.discount)
        return Task(*map(change, tensors))


def task_indices(task: Tensor, count: int) -> Tensor:
    """Indices [...] of tasks, which come as such, or one-hot [..., count]."""
    return task.argmax(-1) if task.shape[-1:] == (count,) and task.is_floating_point() else task


class TaskTable(nn.Module):
    """Embedding, valid actions and discount of each task.

    Rows that are looked up are scaled down, in place, to a norm of at most 1, as the official code
    does at every forward pass, acting included.
    """

    action_mask: Tensor
    discount: Tensor
    leaked_grad: Tensor
    task_axes: ClassVar[dict[str, int]] = {"embedding": 0}

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__()
        dims = config.task_action_dims or (config.action_dim,) * config.num_tasks
        empty = torch.empty(config.num_tasks, config.task_dim)
        self.embedding = nn.Parameter(empty.uniform_(-INIT_STD, INIT_STD))
        valid = torch.arange(config.action_dim) < torch.tensor(dims).unsqueeze(1)
        self.register_buffer("action_mask", valid.float())
        self.register_buffer("discount", torch.tensor(config.discounts))
        # Gradient that the official policy loss leaves behind for the next update.
        self.register_buffer("leaked_grad", torch.zeros_like(self.embedding.detach()))

    def forward(self, task: Tensor, weight: Tensor | None = None) -> Task:
        """Look up task indices [B]; `weight` stands in for the embedding matrix in the graph."""
        rows = self.embedding.data if self.embedding.requires_grad else self.embedding.clone()
        with torch.no_grad():
            torch.embedding_renorm_(rows, task.contiguous(), 1.0, 2.0)
        learned = self.embedding if self.embedding.requires_grad else rows  # frozen, it stays
        embedding = F.embedding(task, learned if weight is None else weight)
        mask = self.action_mask[task]
        return Task(embedding, mask, mask.sum(-1), self.discount[task])

    def adapted(self, name: str, saved: Tensor, own: Tensor) -> Tensor | None:
        """As `Startable.adapted`: further tasks get rows of their own; masks and discounts are
        those of the configuration."""
        if name != "embedding":
            return own
        if saved.shape[1:] != own.shape[1:]:
            return None
        return torch.cat([saved, own[len(saved) :]])[: len(own)]


class StateEncoder(nn.Module):
    """`[observation, task embedding]` [R, obs + T] -> latent [R, L]: Mish layers, then SimNorm."""

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__()
        self.mlp = MLP(
            config.obs_shape[0] + config.effective_task_dim,
            [config.encoder_dim] * max(config.num_enc_layers - 1, 1),
            config.latent_dim,
            partial(simnorm, group=config.simnorm_dim),
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.mlp(obs)


class Networks(nn.Module):
    """Encoder, dynamics, reward, policy prior, Q ensemble and its target; termination, decoder.

    In a family whose values take no action (`values_actions`), `q` is an ensemble of V(z).
    """

    values_actions: ClassVar[bool] = True
    bin_values: Tensor

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__()
        self.bins = SymlogBins(config.vmin, config.vmax, config.num_bins)
        self.log_std_bounds = (config.log_std_min, config.log_std_max)
        self.dropout = config.dropout
        self.heads_as_indices = False
        self.action_dim = config.action_dim
        self.single_task = Task(None, None, float(config.action_dim), config.discounts[0])
        state = config.latent_dim + config.effective_task_dim
        row = state + config.action_dim
        hidden = [config.hidden_dim] * config.num_hidden_layers
        latent_activation = partial(simnorm, group=config.simnorm_dim)

        self.tasks = TaskTable(config) if config.num_tasks > 1 else None
        if config.is_image:
            sizes = config.num_channels, config.latent_dim, config.simnorm_dim
            self.encoder: nn.Module = PixelEncoder(config.obs_shape, *sizes)
        else:
            self.encoder = StateEncoder(config)
        self.dynamics = MLP(row, hidden, config.latent_dim, latent_activation)
        self.reward = MLP(row, hidden, config.num_bins, zero_output=True)
        self.termination = MLP(state, hidden, 1) if config.episodic else None
        self.policy = MLP(state, hidden, 2 * config.action_dim)
        valued = row if self.values_actions else state
        self.q = EnsembleMLP(config.num_q_networks, valued, hidden, config.num_bins)
        self.q_target = EnsembleMLP(config.num_q_networks, valued, hidden, config.num_bins)
        self.q_target.load_state_dict(self.q.state_dict())
        self.q_target.requires_grad_(False)
        self.decoder: nn.Module | None = None
        if config.use_decoder and config.is_image:
            self.decoder = PixelDecoder(config.obs_shape, config.num_channels, state)
        elif config.use_decoder:
            self.decoder = MLP(state, hidden, config.obs_shape[0])
        self.register_buffer("bin_values", self.bins.values(), persistent=False)

    def task(self, index: Tensor | None, weight: Tensor | None = None) -> Task:
        """The `Task` of indices [B], or the only one; `weight` as in `TaskTable`."""
        if self.tasks is None:
            return self.single_task
        if index is None:
            raise StateError('with several tasks a state carries their indices under "task"')
        return self.tasks(index, weight)

    def encode(self, obs: Tensor, task: Task) -> Tensor:
        """Observations [R, ...] of tasks [R] -> latents [R, L]."""
        if task.embedding is not None:
            obs = torch.cat([obs, task.embedding], dim=-1)
        elif obs.dim() == 2:
            obs = obs.to(self.bin_values.dtype)
        return self.encoder(obs)

    def state_rows(self, z: Tensor, task: Task) -> Tensor:
        """`[z, task embedding]`: [..., L], [B, T] -> [..., L + T], leading axes ending in B."""
        if task.embedding is None:
            return z
        return torch.cat([z, task.embedding.expand(*z.shape[:-1], -1)], dim=-1)

    def rows(self, z: Tensor, a: Tensor, task: Task) -> Tensor:
        """`[z, task embedding, a]`: what the dynamics, reward and Q networks read."""
        return torch.cat([self.state_rows(z, task), a], dim=-1)

    def mean(self, logits: Tensor) -> Tensor:
        """The scalars that logits [..., K] stand for."""
        return two_hot_mean(logits, self.bin_values)

    # ------------------------------------------------------------------ policy prior

    def policy_params(self, state_rows: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Mean and log std [..., A] before tanh; 0 on dimensions that the task lacks."""
        mean, raw = self.policy(state_rows).to(self.bin_values.dtype).chunk(2, dim=-1)
        log_std = bounded_log_std(raw, *self.log_std_bounds)
        if task.action_mask is not None:
            mean, log_std = mean * task.action_mask, log_std * task.action_mask
        return mean, log_std

    def policy_sample(self, z: Tensor, task: Task, noise: Tensor | None = None) -> PolicySample:
        """The prior's sample at z [..., B, L], with its entropies; noise [..., B, A] or drawn."""
        noise = self.draw_noise(z) if noise is None else noise
        mean, log_std = self.policy_params(self.state_rows(z, task), task)
        return sample_policy(mean, log_std, _masked(noise, task), task.num_actions)

    def policy_action(self, state_rows: Tensor, task: Task, noise: Tensor | None = None) -> Tensor:
        """Only the sampled action [..., A], at rows `[z, task embedding]`."""
        noise = self.draw_noise(state_rows) if noise is None else noise
        mean, log_std = self.policy_params(state_rows, task)
        return sample_action(mean, log_std, _masked(noise, task))

    def mean_action(self, state_rows: Tensor, task: Task) -> Tensor:
        """The prior's mean action [..., A] in [-1, 1], at rows `[z, task embedding]`."""
        return torch.tanh(self.policy_params(state_rows, task)[0])

    def draw_noise(self, rows: Tensor) -> Tensor:
        """Standard normal noise [..., A] for the policy at rows [..., L]."""
        shape, dtype = (*rows.shape[:-1], self.action_dim), self.bin_values.dtype
        return torch.empty(shape, dtype=dtype, device=rows.device).normal_()

    # ------------------------------------------------------------------ value

    def value_logits(self, state_rows: Tensor, task: Task) -> Tensor:
        """Every head's logits [N, B, K] at rows [B, L + T], of the prior's mean action."""
        return self.q(torch.cat([state_rows, self.mean_action(state_rows, task)], dim=-1))

    def value_rows(self, rows: Tensor) -> Tensor:
        """What the value functions read of rows `[z, task embedding, a]`."""
        return rows if self.values_actions else rows[..., : -self.action_dim]

    def draw_last_action(self, actions: Tensor) -> Tensor | None:
        """Noise [R, A] of the action that values the end of a plan; None where none is needed."""
        return torch.randn_like(actions)

    def end_value(
        self, rows: Tensor, task: Task, noise: Tensor | None, heads: Heads | None
    ) -> Tensor:
        """Value [R] of the end of a plan; `rows` [R, row] have room for the policy's action."""
        width = rows.shape[-1] - self.action_dim
        rows[:, width:] = self.policy_action(rows[:, :width], task, noise)
        return self.value(rows, heads)

    def target_value(self, rows: Tensor, heads: Heads | None) -> Tensor:
        """The lower of the target heads [2] (None: all): [R, row] -> [R]."""
        return self.mean(ensemble_forward(rows, self.q_target.tensors(heads=heads))).amin(0)

    def value(self, rows: Tensor, heads: Heads | None) -> Tensor:
        """The mean of the online heads [2] (None: all), no dropout: [R, row] -> [R]."""
        return self.mean(ensemble_forward(rows, self.q.tensors(heads=heads))).mean(0)

    def policy_value(self, rows: Tensor, heads: Heads | None, dropout: Tensor | None) -> Tensor:
        """As `value`, with dropout [N, R, M] and no gradient to the heads: [R, row] -> [R]."""
        if dropout is not None and heads is not None:
            dropout = narrowed(dropout, heads)
        layers = self.q.tensors(detach=True, heads=heads)
        return self.mean(ensemble_forward(rows, layers, dropout)).mean(0)

    def draw_heads(self) -> Heads | None:
        """Two different heads at random, in any order; None when there are only two."""
        pair = torch.randperm(self.q.heads, device=self.bin_values.device)[:2]
        if self.q.heads == 2:
            return None
        # Reading the indices would wait for an accelerator; compiled, each slice were a program.
        as_indices = self.heads_as_indices or torch.compiler.is_exporting()
        if pair.device.type != "cpu" or as_indices:
            return pair
        low, high = sorted(pair.tolist())
        return slice(low, high + 1, high - low)

    def draw_dropout(self, num_rows: int) -> Tensor | None:
        """The dropout of all heads' first layer [N, R, M]; None for no dropout."""
        shape = (self.q.heads, num_rows, self.q.hidden_width)
        return dropout_mask(shape, self.dropout, self.bin_values)


def _masked(eps: Tensor, task: Task) -> Tensor:
    return eps if task.action_mask is None else eps * task.action_mask


def latent_state(z: Tensor, task: Tensor | None, **further: Tensor) -> State:
    """A state of latents [B, L], with the task indices [B] when there are several tasks."""
    tensors = {"latent": z, **further}
    if task is not None:
        tensors["task"] = task
    return State(tensors)


@dataclass(eq=False)
class LatentEncoder:
    """Slot `observation_encoder`: one modality -> `latent` [B, L]. Pixels are shifted at random."""

    networks: Networks
    modality: str

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        index = observations.get("task")
        z = self.networks.encode(observations[self.modality], self.networks.task(index))
        return latent_state(z, index)


@dataclass(eq=False)
class RowConditioner:
    """Slot `action_conditioner`: the row [B, L + T + A]; no action is a zero action."""

    networks: Networks

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor:
        if action is None:
            action = state["latent"].new_zeros(state.batch_size, self.networks.action_dim)
        return self.networks.rows(state["latent"], action, self.networks.task(state.get("task")))


@dataclass(eq=False)
class LatentDynamics:
    """Slot `dynamics_model`: the next latent, with `reward` [B] of the action that led there.

    The reward head reads the action, so its prediction is known here and not when decoding.
    """

    networks: Networks

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        if conditioned is None:
            raise StateError("TD-MPC2's dynamics needs the row of its action conditioner")
        reward = self.networks.mean(self.networks.reward(conditioned))
        return latent_state(self.networks.dynamics(conditioned), state.get("task"), reward=reward)


@dataclass(eq=False)
class LatentDecoder:
    """Slot `decoder_module`: "value" [B], and "reward", "continue" [B], "obs" where they exist.

    An encoded state was not reached by an action of the model, so it has no reward. The value is
    the mean over all heads at the policy's mean action, so it is deterministic.
    """

    networks: Networks

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        networks, task = self.networks, self.networks.task(state.get("task"))
        state_rows = networks.state_rows(state["latent"], task)
        heads = networks.value_logits(state_rows, task)
        predictions = {"value": networks.mean(heads).mean(0)}
        reward = state.get("reward")
        if reward is not None:
            predictions["reward"] = reward
        if networks.termination is not None:
            ended = networks.termination(state_rows).squeeze(-1)
            predictions["continue"] = 1 - torch.sigmoid(ended)
        if networks.decoder is not None:
            decoded = networks.decoder(state_rows)
            # The pixel decoder works around zero; predictions are in [0, 1].
            predictions["obs"] = decoded + 0.5 if decoded.dim() == 4 else decoded
        return ModelOutput(predictions=predictions, state=state)
