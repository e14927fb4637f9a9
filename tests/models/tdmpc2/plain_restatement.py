"""The formulas of docs/tdmpc2.md once more, as plainly as they can be written: one head, one step,
one network call at a time, over tensors with official names. Several tasks, no dropout.

It shares no code with the library but symlog's inverse pair, and draws the same random numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldflux.core.config import TDMPC2Config
from worldflux.nn import symexp, symlog


class PlainAgent:
    """Parameters by official name, two Adam optimisers, and the official order of everything."""

    def __init__(self, state: dict[str, Any], config: TDMPC2Config, discount: Tensor) -> None:
        self.config, self.discount = config, discount
        self.mask = state["_action_masks"]
        self.scale = torch.ones(1)
        self.bins = torch.linspace(config.vmin, config.vmax, config.num_bins)
        frozen = ("_target", "_detach", "_action_masks", "log_std")
        self.p = {n: t.clone() for n, t in state.items() if isinstance(t, Tensor)}
        self.learnt = [n for n in self.p if not n.startswith(frozen)]
        for name in self.learnt:
            self.p[name].requires_grad_()
        encoder = [self.p[n] for n in self.learnt if n.startswith("_encoder")]
        policy = [self.p[n] for n in self.learnt if n.startswith("_pi")]
        rest = [self.p[n] for n in self.learnt if not n.startswith(("_encoder", "_pi"))]
        rate = config.learning_rate
        self.model_adam = torch.optim.Adam(
            [{"params": encoder, "lr": rate * config.enc_lr_scale}, {"params": rest}], lr=rate
        )
        self.policy_adam = torch.optim.Adam(policy, lr=rate, eps=config.pi_adam_eps)
        self.model_parameters, self.policy_parameters = encoder + rest, policy

    # ------------------------------------------------------------------ networks

    def net(self, name: str, x: Tensor, last: str | None, head: int | None = None) -> Tensor:
        p = {n: (t if head is None else t[head]) for n, t in self.p.items() if n.startswith(name)}
        count = sum(1 for n in p if n.endswith(".weight") and ".ln." not in n)
        for k in range(count):
            x = F.linear(x, p[f"{name}.{k}.weight"], p[f"{name}.{k}.bias"])
            if f"{name}.{k}.ln.weight" in p:
                weight, bias = p[f"{name}.{k}.ln.weight"], p[f"{name}.{k}.ln.bias"]
                x = F.layer_norm(x, x.shape[-1:], weight, bias)
                x = F.mish(x) if k < count - 1 or last == "mish" else x
        if last == "simnorm":
            x = x.unflatten(-1, (-1, self.config.simnorm_dim)).softmax(-1).flatten(-2)
        return x

    def joined(self, x: Tensor, task: Tensor) -> Tensor:
        emb = F.embedding(task, self.p["_task_emb.weight"], max_norm=1.0)
        if x.dim() == 3:
            emb = emb.unsqueeze(0).repeat(x.shape[0], 1, 1)
        elif emb.shape[0] == 1:
            emb = emb.repeat(x.shape[0], 1)
        return torch.cat([x, emb], -1)

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        return self.net("_encoder.state", self.joined(obs, task), "simnorm")

    def next(self, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
        return self.net("_dynamics", torch.cat([self.joined(z, task), a], -1), "simnorm")

    def reward(self, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
        return self.net("_reward", torch.cat([self.joined(z, task), a], -1), None)

    def q_all(self, prefix: str, z: Tensor, a: Tensor, task: Tensor) -> Tensor:
        x = torch.cat([self.joined(z, task), a], -1)
        heads = range(self.config.num_q_networks)
        return torch.stack([self.net(prefix, x, None, head) for head in heads])

    def decode(self, logits: Tensor) -> Tensor:
        return symexp((logits.softmax(-1) * self.bins).sum(-1, keepdim=True))

    def two_heads(self, logits: Tensor) -> Tensor:
        return self.decode(logits[torch.randperm(self.config.num_q_networks)[:2]])

    def pi(self, z: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Action, its log probability pieces: scaled entropy and entropy [..., 1]."""
        low, high = self.config.log_std_min, self.config.log_std_max
        mean, raw = self.net("_pi", self.joined(z, task), None).chunk(2, -1)
        log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
        eps = torch.randn_like(mean)
        mask = self.mask[task]
        mean, log_std, eps = mean * mask, log_std * mask, eps * mask
        dims = mask.sum(-1, keepdim=True)
        gauss = (-0.5 * eps**2 - log_std - 0.9189385175704956).sum(-1, keepdim=True)
        action = torch.tanh(mean + eps * log_std.exp())
        logp = gauss - torch.log(F.relu(1 - action**2) + 1e-6).sum(-1, keepdim=True)
        return action, -logp * (gauss * dims) / (logp + 1e-8), -logp

    def soft_ce(self, logits: Tensor, x: Tensor) -> Tensor:
        c = self.config
        y = symlog(x).clamp(c.vmin, c.vmax).squeeze(-1)
        size = (c.vmax - c.vmin) / (c.num_bins - 1)
        index = torch.floor((y - c.vmin) / size)
        offset = ((y - c.vmin) / size - index).unsqueeze(-1)
        target = torch.zeros(*y.shape, c.num_bins)
        target.scatter_(-1, index.long().unsqueeze(-1), 1 - offset)
        target.scatter_(-1, (index.long().unsqueeze(-1) + 1) % c.num_bins, offset)
        return -(target * F.log_softmax(logits, -1)).sum(-1)

    # ------------------------------------------------------------------ learning

    def update(
        self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, task: Tensor
    ) -> float:
        """One update in the official order, the task gradient leak included; returns grad norm."""
        c, horizon = self.config, action.shape[0]
        with torch.no_grad():
            next_z = torch.stack([self.encode(o, task) for o in obs[1:]])
            a, *_ = self.pi(next_z, task)
            q = self.two_heads(self.q_all("_target_Qs_params", next_z, a, task)).amin(0)
            target = reward + self.discount[task].unsqueeze(-1) * (1 - terminated) * q
        z = self.encode(obs[0], task)
        zs, consistency = [z], torch.zeros(())
        for t in range(horizon):
            z = self.next(z, action[t], task)
            consistency = consistency + c.rho**t * F.mse_loss(z, next_z[t])
            zs.append(z)
        reward_loss = value_loss = torch.zeros(())
        for t in range(horizon):
            logits = self.reward(zs[t], action[t], task)
            reward_loss = reward_loss + c.rho**t * self.soft_ce(logits, reward[t]).mean()
            for head in self.q_all("_Qs.params", zs[t], action[t], task):
                value_loss = value_loss + c.rho**t * self.soft_ce(head, target[t]).mean()
        total = (
            c.consistency_coef * consistency / horizon
            + c.reward_coef * reward_loss / horizon
            + c.value_coef * value_loss / (horizon * c.num_q_networks)
        )
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model_parameters, c.grad_clip)
        self.model_adam.step()
        self.model_adam.zero_grad()
        for parameter in self.policy_parameters:
            parameter.grad = None
        self.update_policy(torch.stack(zs).detach(), task)
        for name, tensor in self.p.items():
            if name.startswith("_target"):
                online = self.p[name.replace("_target_Qs_params", "_Qs.params")]
                tensor.lerp_(online.detach(), c.tau)
        return float(norm)

    def update_policy(self, zs: Tensor, task: Tensor) -> None:
        c = self.config
        kept = {n: t for n, t in self.p.items() if n.startswith("_Qs")}
        self.p.update({n: t.detach() for n, t in kept.items()})
        action, scaled_entropy, _ = self.pi(zs, task)
        q = self.two_heads(self.q_all("_Qs.params", zs, action, task)).mean(0)
        self.p.update(kept)
        ordered = q[0].detach().squeeze(-1).sort().values
        quantiles = torch.quantile(ordered, torch.tensor([0.05, 0.95]))
        self.scale = self.scale + c.tau * ((quantiles[1] - quantiles[0]).clamp(min=1) - self.scale)
        per_step = -(c.entropy_coef * scaled_entropy + q / self.scale).mean(dim=(1, 2))
        (per_step * c.rho ** torch.arange(len(zs))).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.policy_parameters, c.grad_clip)
        self.policy_adam.step()
        self.policy_adam.zero_grad()

    # ------------------------------------------------------------------ planning

    @torch.no_grad()
    def plan(
        self, obs: Tensor, task: Tensor, previous: Tensor | None, explore: bool
    ) -> tuple[Tensor, Tensor]:
        """One environment: observation [D], task [1] -> action [A], mean [H, A]."""
        c, mask = self.config, self.mask[task]
        horizon, policies = c.horizon, min(c.num_pi_trajs, c.num_samples)
        z = self.encode(obs.unsqueeze(0), task)
        actions = torch.empty(horizon, c.num_samples, c.action_dim)
        walk = z.repeat(policies, 1)
        for t in range(horizon):
            actions[t, :policies], *_ = self.pi(walk, task)
            if t < horizon - 1:
                walk = self.next(walk, actions[t, :policies], task)
        mean = torch.zeros(horizon, c.action_dim)
        if previous is not None:
            mean[:-1] = previous[1:]
        std = torch.full_like(mean, c.max_std)
        for _ in range(c.iterations + (2 if c.action_dim >= 20 else 0)):
            noise = torch.randn(horizon, c.num_samples - policies, c.action_dim)
            actions[:, policies:] = (mean[:, None] + std[:, None] * noise).clamp(-1, 1)
            actions = actions * mask
            value = self.estimate(z.repeat(c.num_samples, 1), actions, task)
            best = torch.topk(value, c.num_elites).indices
            elites = actions[:, best]
            weight = torch.exp(c.temperature * (value[best] - value[best].max()))
            weight = (weight / weight.sum()).unsqueeze(-1)
            mean = (weight * elites).sum(1) / (weight.sum() + 1e-9)
            spread = (weight * (elites - mean[:, None]) ** 2).sum(1) / (weight.sum() + 1e-9)
            mean, std = mean * mask, spread.sqrt().clamp(c.min_std, c.max_std) * mask
        gumbel = -torch.empty(c.num_elites).exponential_().log()
        chosen = elites[0, (weight.squeeze(-1).log() + gumbel).argmax()]
        if explore:
            chosen = chosen + std[0] * torch.randn(c.action_dim)
        return chosen.clamp(-1, 1), mean

    def estimate(self, z: Tensor, actions: Tensor, task: Tensor) -> Tensor:
        total, factor = torch.zeros(len(z), 1), torch.ones(1)
        for action in actions:
            total = total + factor * self.decode(self.reward(z, action, task))
            z = self.next(z, action, task)
            factor = factor * self.discount[task]
        action, *_ = self.pi(z, task)
        q = self.two_heads(self.q_all("_Qs.params", z, action, task)).mean(0)
        return (total + factor * q).squeeze(-1)
