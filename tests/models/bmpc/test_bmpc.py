"""BMPC beyond the recorded numbers: experts, pretraining, resume, several environments, ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from worldflux.core.batch import Batch
from worldflux.core.config import BMPCConfig
from worldflux.core.learning import LearningOverrides, set_seed
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import ReplaySource
from worldflux.errors import ConfigurationError
from worldflux.models.bmpc import BMPCWorldModel
from worldflux.models.bmpc.losses import stored_experts, value_targets
from worldflux.training import Trainer, TrainingConfig

SMALL: dict[str, Any] = {
    "obs_shape": (5,), "action_dim": 2, "latent_dim": 16, "hidden_dim": 16, "enc_dim": 16,
    "num_bins": 21, "num_samples": 16, "num_elites": 4, "num_pi_trajs": 4, "iterations": 2,
    "reanalyze_interval": 2, "reanalyze_batch_size": 3,
}  # fmt: skip
PRETRAINED = 2


def small_model(seed: int = 0, **changes: Any) -> BMPCWorldModel:
    """A model whose zero-initialised heads are perturbed, so that every output depends on input."""
    torch.manual_seed(seed)
    model = BMPCWorldModel(BMPCConfig(**{**SMALL, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Pretraining(ReplaySource):
    """Recorded episodes of random actions whose first updates count as pretraining."""

    def __init__(self, model: BMPCWorldModel) -> None:
        columns = {name: shape for name, (shape, _) in model.replay_columns().items()}
        super().__init__(ReplayBuffer(100, (5,), 2, extra_columns=columns, seed=1))
        rng = np.random.default_rng(0)
        for _ in range(2):
            obs = rng.normal(size=(13, 5)).astype(np.float32)
            actions = rng.uniform(-1, 1, (12, 2)).astype(np.float32)
            self.buffer.add_episode(obs, actions, np.ones(12, np.float32), np.zeros(12, bool))

    def pretrains(self, update: int) -> bool:
        return update < PRETRAINED


def trainer_in(folder: Path) -> tuple[Trainer, Pretraining]:
    model = small_model()
    config = TrainingConfig(total_steps=7, batch_size=4, output_dir=str(folder), save_interval=100)
    set_seed(3)
    return Trainer(model, config, seed_streams=False), Pretraining(model)


def state_of(trainer: Trainer, source: ReplaySource) -> dict[str, torch.Tensor]:
    columns = {n: torch.from_numpy(c.copy()) for n, c in source.buffer.columns.items()}
    return {**{n: t.clone() for n, t in trainer.model.state_dict().items()}, **columns}


def test_pretraining_leaves_policy_scale_count_and_experts(tmp_path: Path) -> None:
    trainer, source = trainer_in(tmp_path)
    before = state_of(trainer, source)
    trainer.train(source, PRETRAINED)
    after = state_of(trainer, source)
    kept = [n for n in before if n.startswith(("networks.policy", "policy_scale", "update_count"))]
    kept += [name for name in before if "expert" in name]
    assert len(kept) == 15
    for name in kept:
        assert_close(after[name], before[name], rtol=0, atol=0)
    assert "loss/policy" not in trainer.metrics
    assert not torch.equal(
        after["networks.q.layers.0.weight"], before["networks.q.layers.0.weight"]
    )
    assert not torch.equal(
        after["networks.q_target.layers.0.weight"], before["networks.q_target.layers.0.weight"]
    )
    trainer.train(source, 2)
    assert trainer.metrics["value/scale"] > 1
    assert int(trainer.model.update_count) == 2
    assert (source.buffer.columns["extra/expert_std"] > 0).any()  # the second one reanalysed


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_ends_as_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    whole, source = trainer_in(tmp_path / "whole")
    whole.train(source)
    expected = state_of(whole, source)
    first, source = trainer_in(tmp_path / "stopped")
    first.train(source, stop)
    first.save_checkpoint()
    second, source = trainer_in(tmp_path / "stopped")
    second.train(source, resume_from="last")
    assert second.step == whole.step
    for name, value in state_of(second, source).items():
        assert_close(value, expected[name], rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert second.metrics["loss/policy"] == whole.metrics["loss/policy"]


def test_rows_without_an_expert_read_as_a_standard_normal() -> None:
    std = torch.tensor([0.0, torch.nan, 0.5]).view(1, 3, 1)
    mean = torch.tensor([0.0, torch.nan, 0.25]).view(1, 3, 1)
    batch = Batch(
        torch.zeros(1, 3, 5), torch.zeros(1, 3, 1), torch.zeros(1, 3), torch.zeros(1, 3),
        extras={"expert_mean": mean, "expert_std": std},
    )  # fmt: skip
    found = [column.flatten().tolist() for column in stored_experts(batch, 3)]
    assert found == [[0.0, 0.0, 0.25], [1.0, 1.0, 0.5]]
    batch.extras.clear()
    found = [column.flatten().tolist() for column in stored_experts(batch, 3)]
    assert found == [[0.0] * 3, [1.0] * 3]


def test_each_environment_has_its_own_plan_and_expert() -> None:
    model = small_model()
    obs, first = torch.randn(3, 5), torch.ones(3, dtype=torch.bool)
    carry = model.initial_carry(3)
    assert not any(carry[name].any() for name in model.replay_columns())
    action, after = model.policy(obs, carry, first, explore=True)
    for name, (shape, dtype) in model.replay_columns().items():
        assert after[name].shape == (3, *shape)
        assert after[name].dtype == dtype
    mean, std = after["expert_mean"], after["expert_std"]
    assert len({tuple(row.tolist()) for row in mean}) == 3
    assert (std >= model.config.min_std).all()
    assert (std <= model.config.max_std).all()
    assert not torch.equal(action, mean)
    planned, after = model.policy(obs, carry, first, explore=False)
    assert_close(planned, after["expert_mean"], rtol=0, atol=0)
    torch.manual_seed(5)
    expected, memory = model.policy(obs, carry, first, explore=True)
    torch.manual_seed(5)
    *_, last = model.proposals(obs, carry, first, explore=True)
    assert_close(last.action, expected, rtol=0, atol=0)
    assert last.carry.keys() == memory.keys()


def test_an_expert_of_the_state_in_which_an_episode_ended_is_not_imitated() -> None:
    model = small_model(episodic=True)
    policy = model.phases(LearningOverrides())[1]
    first = torch.tensor([True, False, True, False]).expand(6, -1)  # ended in the second state

    def loss(changed: int) -> float:
        torch.manual_seed(0)
        mean = torch.zeros(6, 4, 2)
        mean[:, changed] = 0.7
        experts = {"expert_mean": mean, "expert_std": torch.full((6, 4, 2), 0.5)}
        rows = torch.rand(6, 4, 5), torch.rand(6, 4, 2), torch.ones(6, 4), first.roll(-1, 1)
        batch = Batch(*rows, is_first=first, extras=experts)
        return float(policy.loss(batch, {}).loss.detach())

    none = loss(3)  # no action of the sequence was taken there
    assert loss(1) == none
    assert loss(0) != none


@torch.no_grad()
def test_nothing_counts_after_an_imagined_end() -> None:
    model = small_model(episodic=True, td_horizon=2)
    networks, z = model.networks, torch.rand(3, 4, 16)
    noise = torch.randn(2, 3, 4, 2)
    assert networks.termination is not None
    task = networks.single_task
    rows = networks.rows(z, networks.policy_action(z, task, noise[0]), task)
    first_reward = networks.mean(networks.reward(rows))
    networks.termination.output.bias.fill_(99.0)  # type: ignore[operator]
    ended = value_targets(networks, z, task, noise, None)
    assert_close(ended, first_reward)
    networks.termination.output.bias.fill_(-99.0)  # type: ignore[operator]
    assert not torch.allclose(value_targets(networks, z, task, noise, None), ended)


@pytest.mark.parametrize("init_v", ["corrected", "published"])
def test_initial_values(init_v: str) -> None:
    """At the start V is 0; with the published code's initialisation it is not."""
    model = BMPCWorldModel(BMPCConfig(**{**SMALL, "init_v": init_v}))
    z = torch.rand(8, 16)
    value = model.networks.value(z, None)
    assert bool((value.abs() < 1e-6).all()) is (init_v == "corrected")
    hidden = model.networks.q.layers[0]
    assert bool(hidden.bias.any()) is (init_v == "published")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_tasks": 2}, "num_tasks = 2 is not allowed"),
        ({"expl_log_std_min": 2.0}, "expl_log_std_min"),
        ({"action_type": "discrete"}, "BMPC plans over continuous actions"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BMPCWorldModel(BMPCConfig(**{**SMALL, **fields}))
