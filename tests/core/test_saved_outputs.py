"""Saved, reopened and moved across devices, both families give bit-equal outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux import Batch, create_world_model

FAMILIES: dict[str, dict[str, Any]] = {
    "dreamer:ci": {"actor_critic": True, "imagination_horizon": 3},
    "tdmpc2:ci": {"horizon": 3, "num_samples": 32, "num_elites": 4, "num_pi_trajs": 4},
}
IMAGES: dict[str, dict[str, Any]] = {
    "dreamer:ci": {"obs_shape": (3, 32, 32), "cnn_depth": 4, "decoder_blocks": 2},
    "tdmpc2:ci": {"obs_shape": (3, 64, 64), "num_channels": 4},
}
CASES = [
    pytest.param(name, {**FAMILIES[name], **shape}, id=f"{name}-{kind}")
    for name in FAMILIES
    for kind, shape in (("vector", {"obs_shape": (5,)}), ("image", IMAGES[name]))
]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
NO_GPU = pytest.mark.skip(reason="needs a second device")


def perturbed(name: str, changes: dict[str, Any], device: str = "cpu") -> Any:
    """A model in which no head is zero."""
    torch.manual_seed(0)
    model = create_world_model(name, action_dim=2, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(device)


def outputs(model: Any) -> dict[str, Tensor]:
    """Everything that a model says: states, predictions, a rollout, a loss, two actions."""
    generator = torch.Generator().manual_seed(1)
    device, shape, length = model.device, model.config.obs_shape, 4
    steps = (3, length, *shape)
    if len(shape) == 3:
        obs = torch.randint(0, 256, steps, generator=generator, dtype=torch.uint8)
    else:
        obs = torch.randn(steps, generator=generator)
    batch = Batch(
        obs=obs,
        actions=torch.rand(3, length, 2, generator=generator) * 2 - 1,
        rewards=torch.randn(3, length, generator=generator),
        terminations=torch.zeros(3, length, dtype=torch.bool),
    ).to(device)
    torch.manual_seed(2)
    state = model.encode(batch.obs[:, 0])
    trajectory = model.rollout(state, batch.actions.transpose(0, 1))
    said = {f"state/{k}": v for k, v in trajectory.states[-1].tensors.items()}
    said |= {f"decoded/{k}": v for k, v in model.decode(trajectory.states[-1]).predictions.items()}
    said |= {"rewards": trajectory.rewards, "values": trajectory.values}
    said |= {"loss": model.loss(batch).loss}
    carry, first = model.initial_carry(3), torch.ones(3, dtype=torch.bool, device=device)
    for t in range(2):
        action, carry = model.policy(batch.obs[:, t], carry, first, explore=True)
        said[f"action/{t}"] = action
        first = torch.zeros_like(first)
    return {name: value.detach().cpu() for name, value in said.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_a_reopened_model_says_the_same_to_the_bit(
    name: str, changes: dict[str, Any], device: str, tmp_path: Path
) -> None:
    model = perturbed(name, changes, device)
    model.save_pretrained(tmp_path)
    again = create_world_model(tmp_path, device=device)
    assert again.device.type == device
    said = outputs(model)
    for what, value in outputs(again).items():
        assert torch.equal(value, said[what]), what


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_there_and_back_across_devices_changes_nothing(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Through float64 and every device at hand; on "meta" the whole pipeline has its shapes."""
    model = perturbed(name, changes)
    said = outputs(model)
    for device in DEVICES:
        model = model.to(torch.float64).to(device).to("cpu").to(torch.float32)
    for what, value in outputs(model).items():
        assert torch.equal(value, said[what]), what
    nowhere = create_world_model(name, action_dim=2, device="meta", **changes)
    state = nowhere.encode(torch.zeros(3, *model.config.obs_shape, device="meta"))
    trajectory = nowhere.rollout(state, torch.zeros(4, 3, 2, device="meta"))
    assert trajectory.rewards is not None
    assert trajectory.rewards.shape == said["rewards"].shape
    assert trajectory.to_tensor(next(iter(state.tensors))).device.type == "meta"


@pytest.mark.parametrize("device", DEVICES[1:] or [pytest.param("", marks=NO_GPU)])
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_saved_on_one_device_it_opens_on_the_other(
    name: str, changes: dict[str, Any], device: str, tmp_path: Path
) -> None:
    model = perturbed(name, changes)
    said = outputs(model)
    model.to(device).save_pretrained(tmp_path)
    for what, value in outputs(create_world_model(tmp_path, device="cpu")).items():
        assert torch.equal(value, said[what]), what
