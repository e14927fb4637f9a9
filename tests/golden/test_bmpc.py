"""BMPC against numbers recorded from the official implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.models.bmpc import BMPCWorldModel
from worldflux.models.bmpc.losses import gaussian_kl, stored_experts, value_targets
from worldflux.models.bmpc.planner import BMPCImagination, reanalyse
from worldflux.models.tdmpc2.layers import ensemble_forward
from worldflux.models.tdmpc2.maths import running_scale, two_hot
from worldflux.models.tdmpc2.planner import num_iterations

from .bmpc_files import EXPERT, GoldenReplay, config_of, model_of, tensors_of, weights_of
from .fixture_files import family_files
from .tdmpc2_files import read
from .test_tdmpc2 import CLOSE, METRICS, PARAMETERS, run_phase

REANALYSED: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
VALUES: dict[str, Any] = {"rtol": 2e-6, "atol": 1e-4}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        files = [
            path
            for path in family_files(metafunc.config, "bmpc", "*.pt")
            if "reanalyse_plan" in read(path)
        ]
        metafunc.parametrize("golden", files, ids=[p.stem for p in files], indirect=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    return read(path)


# ---------------------------------------------------------------------------- initialisation


def test_initial_weights_and_the_random_stream_after_them(golden: dict[str, Any]) -> None:
    torch.manual_seed(golden["init_seed"])
    model = BMPCWorldModel(config_of(golden))
    after = torch.rand(4)
    own, official = weights_of(model), tensors_of(golden["state_dict_at_init"])
    assert own.keys() == official.keys()
    for name, tensor in official.items():
        assert_close(own[name], tensor, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert_close(after, golden["rng_after_init"], rtol=0, atol=0)


# ---------------------------------------------------------------------------- functions


@torch.no_grad()
def test_functions(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    networks, values = model.networks, golden["functions"]
    task, z = networks.single_task, values["z"]
    rows = networks.rows(z, values["action"], task)
    assert_close(networks.encode(values["obs"], task), values["encode"], **CLOSE)
    assert_close(networks.dynamics(rows), values["next"], **CLOSE)
    assert_close(networks.reward(rows), values["reward_logits"], **CLOSE)
    assert_close(networks.mean(values["reward_logits"]), values["reward"].squeeze(-1), **CLOSE)
    assert_close(networks.value_logits(z, task), values["v_all"], **CLOSE)
    target = ensemble_forward(z, networks.q_target.tensors())
    assert_close(target, values["v_all_target"], **CLOSE)
    assert_close(gaussian_kl_of(values["kl_in"]), values["kl"], **CLOSE)
    encoded = two_hot(values["two_hot_in"].squeeze(-1), networks.bins)
    assert_close(encoded, values["two_hot"], **CLOSE)
    scale = torch.ones(1)
    for x, expected in values["running_scale"]:
        scale = running_scale(scale, x.squeeze(-1), model.config.tau)
        assert_close(scale, expected, **CLOSE)


def gaussian_kl_of(given: list[torch.Tensor]) -> torch.Tensor:
    mean, std, to_mean, to_std = given
    return gaussian_kl(mean, std.log(), to_mean, to_std)


@torch.no_grad()
def test_sampled_functions(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    networks, values = model.networks, golden["functions"]
    z, z_time = values["z"], values["z_time"]
    for kind, wide in (("pi", False), ("pi_expl", True)):
        torch.manual_seed(values[f"{kind}_seed"])
        sample = networks.sample(z, wide=wide)
        for part in ("action", "mean", "log_std"):
            assert_close(getattr(sample, part), values[f"{kind}_{part}"], **CLOSE)
        for part in ("entropy", "scaled_entropy"):
            assert_close(getattr(sample, part), values[f"{kind}_{part}"].squeeze(-1), **CLOSE)
    torch.manual_seed(values["v_train_seed"])
    dropout = networks.draw_dropout(z_time[..., 0].numel())
    trained = networks.q(z_time.flatten(0, 1), dropout).unflatten(1, z_time.shape[:2])
    assert_close(trained, values["v_all_train"], **CLOSE)
    torch.manual_seed(values["v_avg_seed"])
    assert_close(networks.value(z, networks.draw_heads()), values["v_avg"].squeeze(-1), **CLOSE)
    torch.manual_seed(values["v_avg_target_seed"])
    target = networks.target_value(z, networks.draw_heads())
    assert_close(target, values["v_avg_target"].squeeze(-1), **CLOSE)
    torch.manual_seed(values["td_seed"])
    noise = [networks.draw_noise(z_time) for _ in range(model.config.td_horizon)]
    targets = value_targets(
        networks, z_time, networks.single_task, torch.stack(noise), networks.draw_heads()
    )
    check_sums(targets, values["td_target"].squeeze(-1))


def check_sums(ours: torch.Tensor, official: torch.Tensor) -> None:
    """Sums of decoded rewards and values to 1e-6 of the largest: terms of either sign cancel, and
    the recording itself is about as far from what float64 gives."""
    assert_close(ours, official, rtol=1e-6, atol=1e-6 * max(1.0, float(official.abs().max())))


@torch.no_grad()
def test_imagined_returns(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    values = golden["functions"]
    torch.manual_seed(values["trajectory_seed"])
    imagination = BMPCImagination(model.networks, model.functions["returns"])
    # [states, H, samples, A] -> [H, states * samples, A]
    actions = values["trajectory_actions"].transpose(0, 1).flatten(1, 2)
    z = values["trajectory_z"]
    returns = imagination.returns(z.flatten(0, 1), actions, model.networks.single_task)
    check_sums(returns.view(z.shape[:2]), values["trajectory_value"].squeeze(-1))


# ---------------------------------------------------------------------------- planning


def test_plans(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    assert num_iterations(model.config) == golden["iterations_used"]
    carry = model.initial_carry(1)
    for call in golden["plan"]:
        torch.manual_seed(call["seed"])
        first = torch.tensor([bool(call["t0"])])
        obs = call["obs"].unsqueeze(0)
        action, carry = model.policy(obs, carry, first, explore=not call["eval_mode"])
        assert_close(action[0], call["action"], **CLOSE)
        assert_close(carry["prev_mean"][0], call["prev_mean_after"], **CLOSE)
        for name in EXPERT:
            tolerance = VALUES if name == "expert_value" else CLOSE
            assert_close(carry[name][0], call[name].view_as(carry[name][0]), **tolerance)


def test_the_policy_alone(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    act, first = model.policy_named("prior"), torch.ones(1, dtype=torch.bool)
    for call in golden["act_policy"]:
        torch.manual_seed(call["seed"])
        obs, carry = call["obs"].unsqueeze(0), model.initial_carry(1)
        action, carry = act(obs, carry, first, explore=not call["eval_mode"])
        assert_close(action[0], call["action"], **CLOSE)
        assert not carry["expert_std"].any()


@torch.no_grad()
def test_a_reanalysing_plan(golden: dict[str, Any]) -> None:
    model, call = model_of(golden), golden["reanalyse_plan"]
    networks = model.networks
    z = networks.encode(call["obs"], networks.single_task)
    torch.manual_seed(call["seed"])
    imagination = BMPCImagination(networks, model.functions["returns"], wide=True)
    expert = reanalyse(imagination, model.config, z, networks.single_task)
    assert_close(expert.mean, call["expert_mean"], **REANALYSED)
    assert_close(expert.std, call["expert_std"], **REANALYSED)
    assert_close(expert.value, call["expert_value"], **VALUES)


# ---------------------------------------------------------------------------- updates


def test_updates(golden: dict[str, Any]) -> None:
    model = model_of(golden)
    phases = model.phases(LearningOverrides())
    replay = GoldenReplay(golden)
    for update in golden["updates"]:
        batch = replay.batch(update)
        check_batch(batch, update)
        torch.manual_seed(update["seed"])
        model.pretraining = update["pretrain"]
        scratch: Scratch = {}
        running = [phase for phase in phases if phase.pretrains or not model.pretraining]
        logs = {phase.name: run_phase(phase, batch, scratch) for phase in running}
        written = model.after_update(scratch)
        check_reanalysed(written, update)
        replay.source.write_back(batch, written)
        check_metrics(logs, update["metrics"])
        assert_close(model.policy_scale, update["scale"].squeeze(), **CLOSE)
        assert int(model.update_count) == update["update_count_after"]
        expected, given = tensors_of(update["state_dict_after"]), weights_of(model)
        for name, tensor in expected.items():
            assert_close(given[name], tensor, **PARAMETERS, msg=lambda m, n=name: f"{n}: {m}")
        check_buffer(replay, update["buffer_expert_after"])


def check_batch(batch: Any, update: dict[str, Any]) -> None:
    """Our replay hands out the transitions and experts that the official sampler did."""
    steps = update["action"].shape[0]
    assert_close(batch.obs.transpose(0, 1), update["obs"], rtol=0, atol=0)
    assert_close(batch.actions[:, :steps].transpose(0, 1), update["action"], rtol=0, atol=0)
    rewards = batch.rewards[:, 1:].transpose(0, 1)
    assert_close(rewards, update["reward"].squeeze(-1), rtol=0, atol=0)
    mean, std = stored_experts(batch, steps)
    known = ~update["expert_mean"].isnan()
    assert_close(mean[known], update["expert_mean"][known], **REANALYSED)
    assert_close(std[known], update["expert_std"][known], **REANALYSED)
    assert (mean[~known] == 0).all()
    assert (std[~known] == 1).all()


def check_reanalysed(written: dict[str, Any], update: dict[str, Any]) -> None:
    expected = update.get("reanalysed")
    if expected is None:
        assert written == {}
        return
    # An official row holds the action that led to it, ours the action taken there.
    assert_close(written["replay_index"], expected["rows"] - 1, rtol=0, atol=0)
    assert_close(written["expert_mean"], expected["mean"], **REANALYSED)
    assert_close(written["expert_std"], expected["std"], **REANALYSED)
    assert_close(written["expert_value"].squeeze(-1), expected["value"].squeeze(-1), **VALUES)


def check_metrics(logs: dict[str, dict[str, float]], expected: dict[str, float]) -> None:
    model, policy = logs["model"], logs.get("policy", {})
    ours = {
        "consistency_loss": model["consistency"],
        "reward_loss": model["reward"],
        "value_loss": model["value"],
        "total_loss": model["loss"],
        "grad_norm": model["grad_norm"],
        "pi_loss": policy.get("policy"),
        "pi_grad_norm": policy.get("grad_norm"),
        "pi_entropy": policy.get("policy_entropy"),
        "pi_scaled_entropy": policy.get("policy_scaled_entropy"),
        "pi_scale": policy.get("policy_scale"),
        "pi_log_std": policy.get("policy_log_std"),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, rel=METRICS["rtol"], abs=METRICS["atol"]), name


def check_buffer(replay: GoldenReplay, expected: dict[str, Any]) -> None:
    """Every row's expert, also those that an update did not touch."""
    for name in EXPERT:
        ours, official = replay.experts(name), expected[name]
        tolerance = VALUES if name == "expert_value" else REANALYSED
        official = official.view_as(ours)
        assert_close(ours, official, equal_nan=True, **tolerance)
