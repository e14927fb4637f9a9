"""Reading TD-MPC2 golden files: configuration, model and batches, all from what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.config import TDMPC2Config
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.models.tdmpc2.official import fields_from_tensors, load_official, newest_layout

SAME_NAME = (
    "enc_dim", "latent_dim", "num_enc_layers", "num_bins", "vmin", "vmax", "simnorm_dim", "dropout",
    "horizon", "num_samples", "num_elites", "num_pi_trajs", "iterations", "min_std", "max_std",
    "temperature", "log_std_min", "log_std_max", "entropy_coef", "rho", "consistency_coef",
    "reward_coef", "value_coef", "termination_coef", "enc_lr_scale", "tau", "discount_denom",
    "discount_min", "discount_max", "episodic", "num_channels",
)  # fmt: skip
RENAMED = {
    "mlp_dim": "hidden_dim",
    "num_q": "num_q_networks",
    "lr": "learning_rate",
    "grad_clip_norm": "grad_clip",
}


def read(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


def config_of(cfg: dict[str, Any], tensors: dict[str, Tensor], discount: Any) -> TDMPC2Config:
    """Our configuration of the official numbers `cfg`; shapes from the tensors."""
    fields = fields_from_tensors(tensors)
    fields.update({name: cfg[name] for name in SAME_NAME if cfg.get(name) is not None})
    fields.update({ours: cfg[name] for name, ours in RENAMED.items() if name in cfg})
    fields["momentum"] = 0.0
    if cfg.get("multitask"):
        fields["leak_task_grad"] = True
    else:
        fields["gamma"] = float(discount)
    return TDMPC2Config(**fields)


def model_of(golden: dict[str, Any], state: str = "state_dict") -> TDMPC2WorldModel:
    """A model with the configuration of a golden file and one of its state_dicts."""
    _, tensors = newest_layout(golden[state])
    for name in ("log_std_min", "log_std_dif"):
        tensors.pop(name, None)
    model = TDMPC2WorldModel(config_of(golden["cfg"], tensors, golden["discount"]))
    load_official(model, tensors)
    if model.networks.tasks is not None:
        model.networks.tasks.discount.copy_(torch.as_tensor(golden["discount"]).flatten())
    return model


def batch_of(update: dict[str, Any], multi_task: bool) -> Batch:
    """Official time-major transitions in the project's alignment (rewards one row later)."""
    obs, actions = update["obs"].transpose(0, 1), update["action"].transpose(0, 1)
    rewards, terminated = update["reward"], update.get("terminated")
    if terminated is None:
        terminated = torch.zeros_like(rewards)
    first = torch.zeros(1, *rewards.shape[1:])
    task = update.get("task")
    if multi_task:
        assert task is not None
        obs = {"obs": obs, "task": task.unsqueeze(1).expand(-1, obs.shape[1])}
    rows = rewards.shape[0] + 1
    terminations = torch.cat([first, terminated]).squeeze(-1).transpose(0, 1).bool()
    is_first = torch.zeros(terminations.shape, dtype=torch.bool)
    is_first[:, 0] = True
    last_action = torch.zeros_like(actions[:, :1])
    batch = Batch(
        obs=obs,
        actions=torch.cat([actions, last_action], dim=1),
        rewards=torch.cat([first, rewards]).squeeze(-1).transpose(0, 1),
        terminations=terminations,
        is_first=is_first,
    )
    assert batch.length == rows
    return batch
