"""A subclass trains with its own `loss`: of a family, or of a model that defines nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worldflux import (
    Batch,
    CapabilityError,
    ConfigurationError,
    LossOutput,
    WorldModel,
    WorldModelConfig,
    get_config,
)
from worldflux.models.dreamer import DreamerV3WorldModel
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.training import Trainer, TrainingConfig

FAMILIES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "tdmpc2:ci": (TDMPC2WorldModel, {"horizon": 2}),
    "dreamer:ci": (DreamerV3WorldModel, {"actor_critic": True, "replay_context": 1}),
}


def batches(count: int = 3, size: int = 4, length: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            obs=torch.randn(size, length, 5, generator=generator),
            actions=torch.rand(size, length, 2, generator=generator),
            rewards=torch.randn(size, length, generator=generator),
            terminations=torch.zeros(size, length),
        )
        for _ in range(count)
    ]


def config_of(name: str) -> Any:
    return get_config(name, obs_shape=(5,), action_dim=2, **FAMILIES[name][1])


def trained(model: WorldModel, folder: Path) -> Trainer:
    config = TrainingConfig(total_steps=3, device="cpu", output_dir=str(folder))
    trainer = Trainer(model, config)
    trainer.train(batches())
    return trainer


@pytest.mark.parametrize("name", FAMILIES)
def test_a_term_added_to_the_loss_of_a_family_is_trained(name: str, tmp_path: Path) -> None:
    family, _ = FAMILIES[name]

    class WithTerm(family):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.probe = nn.Parameter(torch.ones(()))
            self.calls = 0

        def loss(self, batch: Batch) -> LossOutput:
            self.calls += 1
            output = super().loss(batch)
            components = {**output.components, "probe": self.probe.detach()}
            return LossOutput(output.loss + self.probe, components, output.metrics)

    torch.manual_seed(0)
    model = WithTerm(config_of(name))
    trainer = trained(model, tmp_path / "with_term")
    assert model.calls == 3
    assert float(model.probe.detach()) < 1
    assert "loss/probe" in trainer.metrics
    torch.manual_seed(0)
    plain = family(config_of(name))
    assert trained(plain, tmp_path / "plain").metrics.keys() < trainer.metrics.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_that_replaces_a_familys_trains_with_its_other_phases(
    name: str, tmp_path: Path
) -> None:
    family, _ = FAMILIES[name]

    class Other(family):  # type: ignore[misc, valid-type]
        def loss(self, batch: Batch) -> LossOutput:
            weights = [p for p in self.parameters() if p.requires_grad]
            return LossOutput(torch.stack([w.square().sum() for w in weights]).sum())

    torch.manual_seed(0)
    model = Other(config_of(name))
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    trainer = trained(model, tmp_path)
    sizes = zip(before, (p for p in model.parameters() if p.requires_grad), strict=True)
    assert sum(float(b.norm() - a.detach().norm()) for b, a in sizes) > 0
    if name == "tdmpc2:ci":
        assert "loss/policy" in trainer.metrics


def test_with_the_familys_own_loss_a_subclass_trains_to_the_same_weights(tmp_path: Path) -> None:
    class Same(TDMPC2WorldModel):
        def loss(self, batch: Batch) -> LossOutput:
            return super().loss(batch)

    weights = []
    for number, family in enumerate((TDMPC2WorldModel, Same)):
        torch.manual_seed(0)
        model = family(config_of("tdmpc2:ci"))
        trained(model, tmp_path / str(number))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


class Mean(WorldModel):
    """Nothing but `loss`: the mean observation."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        self.mean = nn.Parameter(torch.zeros(config.obs_shape))

    def loss(self, batch: Batch) -> LossOutput:
        assert isinstance(batch.obs, torch.Tensor)
        return LossOutput((batch.obs - self.mean).square().mean())


def test_a_model_that_defines_only_loss_trains(tmp_path: Path) -> None:
    assert WorldModel.__abstractmethods__ == {"loss"}
    config = WorldModelConfig(obs_shape=(5,), action_dim=2, learning_rate=0.01, device="cpu")
    model = Mean(config)
    trainer = trained(model, tmp_path)
    assert 0.01 < float(model.mean.detach().abs().max()) < 0.031  # three Adam steps
    assert [phase.name for phase in trainer.phases] == ["model"]
    trainer.load_checkpoint("last")
    assert model.initial_carry(3) == {}
    with pytest.raises(CapabilityError, match="defines no policy"):
        model.policy(torch.zeros(1, 5), {}, torch.ones(1), explore=False)


def test_what_a_model_without_phases_cannot_be_trained_with_is_named(tmp_path: Path) -> None:
    class Empty(WorldModel):
        def loss(self, batch: Batch) -> LossOutput:
            return LossOutput(torch.zeros(()))

    config = WorldModelConfig(obs_shape=(5,), action_dim=2)
    with pytest.raises(ConfigurationError, match="Empty has no parameters"):
        Trainer(Empty(config), TrainingConfig(device="cpu", output_dir=str(tmp_path)))
    with pytest.raises(ConfigurationError, match=r"optimizer 'laprop'.*'adam' or 'adamw'"):
        Trainer(Mean(config), TrainingConfig(optimizer="laprop", device="cpu"))
