"""The networks of BMPC (Wang et al. 2025): those of TD-MPC2, with V(z) in place of Q(z, a) and a
Gaussian policy that is clipped instead of squashed.

Legend: z latent [..., L], a action [..., A], K bins, N heads of V, R rows (leading axes flattened).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.models.tdmpc2.layers import (
    INIT_STD,
    EnsembleLayer,
    EnsembleMLP,
    Heads,
    PixelEncoder,
    ensemble_forward,
)
from worldflux.models.tdmpc2.maths import (
    PolicySample,
    bounded_log_std,
    gaussian_log_prob,
)
from worldflux.models.tdmpc2.networks import Networks, Task

from .config import BMPCConfig


class BMPCNetworks(Networks):
    """Encoder, dynamics, reward, policy, an ensemble of V(z) named `q`, and its target."""

    values_actions = False

    def __init__(self, config: BMPCConfig) -> None:
        with torch.random.fork_rng(devices=[]):  # `initialise_` draws every weight again
            super().__init__(config)
        self.wide_log_std_bounds = (config.expl_log_std_min, config.expl_log_std_max)
        initialise_(self, published=config.init_v == "published")

    # ------------------------------------------------------------------ policy

    def policy_params(
        self, state_rows: Tensor, task: Task, *, wide: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean in (-1, 1) and log std [..., A] at latents [..., L]; `wide`: when reanalysing."""
        mean, raw = self.policy(state_rows).to(self.bin_values.dtype).chunk(2, dim=-1)
        bounds = self.wide_log_std_bounds if wide else self.log_std_bounds
        return torch.tanh(mean), bounded_log_std(raw, *bounds)

    def policy_sample(self, z: Tensor, task: Task, noise: Tensor | None = None) -> PolicySample:
        """The policy's sample at z [..., L], with its entropies; noise [..., A] or drawn."""
        return self.sample(z, noise)

    def sample(self, z: Tensor, noise: Tensor | None = None, *, wide: bool = False) -> PolicySample:
        """`policy_sample` of the one task, with the deviation of a reanalysing plan if `wide`.

        The entropies are of the Gaussian before clipping. The scaled one is the official
        `-logp (A logp) / (logp + 1e-8)`: in effect `-A logp`.
        """
        noise = self.draw_noise(z) if noise is None else noise
        mean, log_std = self.policy_params(z, self.single_task, wide=wide)
        log_prob = gaussian_log_prob(noise, log_std)
        scaled = log_prob * self.action_dim / (log_prob + 1e-8)
        action = clipped_action(mean, log_std, noise)
        return PolicySample(action, mean, log_std, -log_prob, -log_prob * scaled)

    def policy_action(
        self, state_rows: Tensor, task: Task, noise: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """Only the sampled action [..., A]."""
        noise = self.draw_noise(state_rows) if noise is None else noise
        return clipped_action(*self.policy_params(state_rows, task, wide=wide), noise)

    def mean_action(self, state_rows: Tensor, task: Task) -> Tensor:
        """The policy's mean [..., A]."""
        mean: Tensor = torch.tanh(self.policy(state_rows)[..., : self.action_dim])
        return mean

    # ------------------------------------------------------------------ value

    def value_logits(self, state_rows: Tensor, task: Task) -> Tensor:
        """Every head's logits [N, B, K] at latents [B, L]."""
        logits: Tensor = self.q(state_rows)
        return logits

    def draw_last_action(self, actions: Tensor) -> None:
        """V needs no action at the end of a plan."""
        return

    def end_value(
        self, rows: Tensor, task: Task, noise: Tensor | None, heads: Heads | None
    ) -> Tensor:
        """Value [R] of the end of a plan, at rows `[z, room for an action]`."""
        return self.value(self.value_rows(rows), heads)

    def target_value(self, rows: Tensor, heads: Heads | None) -> Tensor:
        """The mean of the target heads [2] (None: all): latents [R, L] -> [R]."""
        return self.mean(ensemble_forward(rows, self.q_target.tensors(heads=heads))).mean(0)


def clipped_action(mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    """`clamp(mean + eps exp(log_std), -1, 1)`: [..., A]."""
    return torch.addcmul(mean, eps, log_std.exp()).clamp(-1, 1)


def initialise_(networks: BMPCNetworks, *, published: bool) -> None:
    """Draw all weights in the official order; the target becomes a copy of V.

    First torch's default for every layer, head by head for V; then normal weights (std 0.02) and no
    biases. `published` leaves V's hidden layers and biases at torch's default, as the code behind
    the published curves does.
    """
    parts = (networks.encoder, networks.dynamics, networks.reward, networks.termination)
    plain = [part for part in (*parts, networks.policy, networks.decoder) if part is not None]
    for module in (module for part in plain for module in part.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
    _initialise_heads_(networks.q, published=published)
    for part in plain:
        if part is not networks.decoder and not isinstance(part, PixelEncoder):
            _normal_(part)
    with torch.no_grad():
        networks.reward.output.weight.zero_()  # type: ignore[operator]
        _output(networks.q).weight.zero_()
    networks.q_target.load_state_dict(networks.q.state_dict())


@torch.no_grad()
def _initialise_heads_(ensemble: EnsembleMLP, *, published: bool) -> None:
    layers = [layer for layer in ensemble.layers if isinstance(layer, EnsembleLayer)]
    for head in range(ensemble.heads):
        linears = [nn.Linear(layer.weight.shape[2], layer.weight.shape[1]) for layer in layers]
        for layer, linear in zip(layers, linears, strict=True):
            if not published:
                nn.init.trunc_normal_(linear.weight, std=INIT_STD)
                linear.bias.zero_()
            layer.weight[head], layer.bias[head] = linear.weight, linear.bias


@torch.no_grad()
def _normal_(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            module.bias.zero_()


def _output(ensemble: EnsembleMLP) -> EnsembleLayer:
    last = ensemble.layers[-1]
    assert isinstance(last, EnsembleLayer)
    return last
