"""TD-MPC2 against numbers recorded from the official implementation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.models.tdmpc2.layers import (
    INIT_STD,
    PixelEncoder,
    ensemble_forward,
    shift_images,
    shift_offsets,
)
from worldflux.models.tdmpc2.maths import running_scale, two_hot
from worldflux.models.tdmpc2.networks import Task
from worldflux.models.tdmpc2.official import (
    export_checkpoint,
    import_checkpoint,
    newest_layout,
    official_state_dict,
)

from .fixture_files import HERE, family_files, fixtures_root
from .tdmpc2_files import batch_of, model_of, read

CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
PARAMETERS: dict[str, Any] = {"rtol": 0.0, "atol": 1e-6}
METRICS: dict[str, Any] = {"rtol": 2e-6, "atol": 1e-6}


@cache
def kind_of(path: Path) -> str:
    content = read(path)
    if "functions" in content:
        return "agent"
    return "pixels" if "encode4" in content else "checkpoint"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in ("agent", "pixels", "checkpoint"):
        if f"{name}_file" in metafunc.fixturenames:
            files = [
                p for p in family_files(metafunc.config, "tdmpc2", "*.pt") if kind_of(p) == name
            ]
            metafunc.parametrize(f"{name}_file", files, ids=[p.stem for p in files])


def task_of(model: TDMPC2WorldModel, index: Tensor | int | None) -> Task:
    if isinstance(index, int):
        index = torch.tensor([index])
    return model.networks.task(index)


# ---------------------------------------------------------------------------- functions


@torch.no_grad()
def test_functions(agent_file: Path) -> None:
    golden = read(agent_file)
    model = model_of(golden)
    networks, values = model.networks, golden["functions"]
    task = task_of(model, values.get("task"))
    z, action = values["z"], values["action"]
    rows = networks.rows(z, action, task)
    assert_close(networks.encode(values["obs"], task), values["encode"], **CLOSE)
    assert_close(networks.dynamics(rows), values["next"], **CLOSE)
    assert_close(networks.reward(rows), values["reward_logits"], **CLOSE)
    assert_close(networks.mean(values["reward_logits"]), values["reward"].squeeze(-1), **CLOSE)
    assert_close(networks.q(rows), values["q_all"], **CLOSE)
    target = ensemble_forward(rows, networks.q_target.tensors())
    assert_close(target, values["q_all_target"], **CLOSE)
    if "termination_prob" in values:
        logits = networks.termination(networks.state_rows(z, task))
        assert_close(torch.sigmoid(logits), values["termination_prob"], **CLOSE)


@torch.no_grad()
def test_sampled_functions(agent_file: Path) -> None:
    golden = read(agent_file)
    model = model_of(golden)
    networks, values = model.networks, golden["functions"]
    task = task_of(model, values.get("task"))
    torch.manual_seed(values["pi_seed"])
    sample = networks.policy_sample(values["z"], task)
    assert_close(sample.action, values["pi_action"], **CLOSE)
    assert_close(sample.mean, values["pi_mean"], **CLOSE)
    assert_close(sample.log_std, values["pi_log_std"], **CLOSE)
    assert_close(sample.entropy, values["pi_entropy"].squeeze(-1), **CLOSE)
    assert_close(sample.scaled_entropy, values["pi_scaled_entropy"].squeeze(-1), **CLOSE)
    rows = networks.rows(values["z"], values["action"], task)
    torch.manual_seed(values["q_min_seed"])
    target = networks.target_value(rows, networks.draw_heads())
    assert_close(target, values["q_min_target"].squeeze(-1), **CLOSE)
    torch.manual_seed(values["q_avg_seed"])
    assert_close(networks.value(rows, networks.draw_heads()), values["q_avg"].squeeze(-1), **CLOSE)


def test_two_hot_and_running_scale(agent_file: Path) -> None:
    golden = read(agent_file)
    model = model_of(golden)
    values = golden["functions"]
    encoded = two_hot(values["two_hot_in"].squeeze(-1), model.networks.bins)
    assert_close(encoded, values["two_hot"], **CLOSE)
    scale = torch.ones(1)
    for x, expected in values["running_scale"]:
        scale = running_scale(scale, x.squeeze(-1), model.config.tau)
        assert_close(scale, expected, **CLOSE)


# ---------------------------------------------------------------------------- planning


def test_plans(agent_file: Path) -> None:
    golden = read(agent_file)
    check_plans(model_of(golden), golden)


def check_plans(model: TDMPC2WorldModel, golden: dict[str, Any]) -> None:
    carry = model.initial_carry(1)
    for call in golden["plan"]:
        torch.manual_seed(call["seed"])
        obs: Tensor | dict[str, Tensor] = call["obs"].unsqueeze(0)
        if call["task"] is not None:
            obs = {"obs": obs, "task": torch.tensor([int(call["task"])])}
        first = torch.tensor([bool(call["t0"])])
        action, carry = model.policy(obs, carry, first, explore=not call["eval_mode"])
        assert_close(action[0], call["action"], **CLOSE)
        assert_close(carry["prev_mean"][0], call["prev_mean_after"], **CLOSE)


def test_a_batch_of_environments_plans_each_on_its_own(agent_file: Path) -> None:
    golden = read(agent_file)
    model = model_of(golden)
    observations: Any = torch.stack([call["obs"] for call in golden["plan"]])
    if model.networks.tasks is not None:
        tasks = torch.tensor([int(call["task"]) for call in golden["plan"]])
        observations = {"obs": observations, "task": tasks}
    carry = model.initial_carry(3)
    carry["prev_mean"].fill_(0.5)
    carry["valid"].fill_(True)
    torch.manual_seed(0)
    reset = torch.tensor([True, False, True])
    actions, after = model.policy(observations, carry, reset, explore=False)
    assert actions.shape == (3, model.config.action_dim)
    fresh = model.initial_carry(3)
    fresh["prev_mean"][1].fill_(0.5)
    fresh["valid"][1] = True
    torch.manual_seed(0)
    same, same_after = model.policy(observations, fresh, torch.zeros(3).bool(), explore=False)
    assert_close(actions, same, rtol=0, atol=0)
    assert_close(after["prev_mean"], same_after["prev_mean"], rtol=0, atol=0)


# ---------------------------------------------------------------------------- updates


def run_phase(phase: Phase, batch: Any, scratch: Scratch) -> dict[str, float]:
    """What the Trainer does with a phase."""
    phase.optimizer.zero_grad(set_to_none=True)
    output = phase.loss(batch, scratch)
    output.loss.backward()
    assert phase.grad_clip is not None
    norm = torch.nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip)
    phase.optimizer.step()
    numbers = {name: float(value) for name, value in output.components.items()}
    return {**numbers, **output.metrics, "loss": output.loss.item(), "grad_norm": float(norm)}


def test_updates(agent_file: Path) -> None:
    golden = read(agent_file)
    model = model_of(golden)
    phases = model.phases(LearningOverrides())
    for update in golden["updates"]:
        batch = batch_of(update, bool(golden["cfg"].get("multitask")))
        torch.manual_seed(update["seed"])
        scratch: Scratch = {}
        logs = {phase.name: run_phase(phase, batch, scratch) for phase in phases}
        assert model.after_update(scratch) == {}
        check_metrics(logs, update["metrics"])
        assert_close(model.policy_scale, update["scale"].squeeze(), **CLOSE)
        _, expected = newest_layout(update["state_dict_after"])
        given = official_state_dict(model)
        for name, tensor in expected.items():
            assert_close(given[name], tensor, **PARAMETERS, msg=lambda m, n=name: f"{n}: {m}")


def check_metrics(logs: dict[str, dict[str, float]], expected: dict[str, float]) -> None:
    model, policy = logs["model"], logs["policy"]
    ours = {
        "consistency_loss": model["consistency"],
        "reward_loss": model["reward"],
        "value_loss": model["value"],
        "termination_loss": model.get("termination", 0.0),
        "total_loss": model["loss"],
        "grad_norm": model["grad_norm"],
        "termination_rate": model.get("termination_rate"),
        "termination_f1": model.get("termination_f1"),
        "pi_loss": policy["policy"],
        "pi_grad_norm": policy["grad_norm"],
        "pi_entropy": policy["policy_entropy"],
        "pi_scaled_entropy": policy["policy_scaled_entropy"],
        "pi_scale": policy["policy_scale"],
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, rel=METRICS["rtol"], abs=METRICS["atol"]), name


# ---------------------------------------------------------------------------- initialisation


def test_initialisation_has_the_official_statistics(agent_file: Path) -> None:
    golden = read(agent_file)
    fresh = official_state_dict(TDMPC2WorldModel(model_of(golden, "state_dict_at_init").config))
    for name, official in newest_layout(golden["state_dict_at_init"])[1].items():
        if name.startswith(("log_std", "_action_masks", "_encoder.rgb")):
            continue
        ours = fresh[name]
        assert ours.shape == official.shape, name
        if not official.any():
            assert not ours.any(), name
        elif (official == 1).all():
            assert (ours == 1).all(), name
        elif official.numel() >= 200 and name != "_task_emb.weight":
            assert ours.std() == pytest.approx(INIT_STD, rel=0.25), name
            assert abs(float(ours.mean())) < INIT_STD / 4, name
    assert_close(fresh["_target_Qs_params.0.weight"], fresh["_Qs.params.0.weight"], rtol=0, atol=0)


# ---------------------------------------------------------------------------- pixels


@torch.no_grad()
def test_pixel_encoder(pixels_file: Path) -> None:
    golden = read(pixels_file)
    obs = golden["obs"]
    encoder = PixelEncoder(tuple(obs.shape[-3:]), golden["num_channels"], golden["latent_dim"], 8)
    for index, official in enumerate((2, 4, 6, 8)):
        convolution = encoder.convolutions[index]
        for part in ("weight", "bias"):
            tensor = golden["state_dict"][f"_encoder.rgb.{official}.{part}"]
            getattr(convolution, part).copy_(tensor)
    torch.manual_seed(golden["seed_aug"])
    first_channel = obs[0][:, :1].float()
    shifted = shift_images(first_channel, shift_offsets(len(first_channel), obs.device))
    assert_close(shifted, golden["aug"].view_as(shifted), rtol=1e-6, atol=1e-4)
    torch.manual_seed(golden["seed4"])
    assert_close(encoder(obs[0]), golden["encode4"], **CLOSE)
    torch.manual_seed(golden["seed5"])
    encoded = encoder(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])
    assert_close(encoded, golden["encode5"], **CLOSE)


# ---------------------------------------------------------------------------- checkpoints


def single_file(config: pytest.Config) -> Path:
    found = [p for p in family_files(config, "tdmpc2", "single.pt") if p.is_file()]
    return found[0] if found else HERE / "data" / "tdmpc2" / "single.pt"


def test_checkpoint(checkpoint_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The same weights as single.pt, whatever the layout; and the official plan follows."""
    golden = read(single_file(request.config))
    cfg = golden["cfg"]
    model = import_checkpoint(
        checkpoint_file,
        tmp_path / "model",
        num_samples=cfg["num_samples"],
        num_elites=cfg["num_elites"],
        num_pi_trajs=cfg["num_pi_trajs"],
        horizon=cfg["horizon"],
        episode_length=cfg["episode_length"],
    )
    expected = newest_layout(golden["state_dict"])[1]
    given = official_state_dict(model)
    for name, tensor in expected.items():
        assert_close(given[name], tensor, rtol=0, atol=0)
    check_plans(model, golden)


def test_a_head_that_was_not_used_is_left_out(
    checkpoint_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Files of April 2025 have a termination head in any case; without it the plan is official."""
    golden, content = read(single_file(request.config)), read(checkpoint_file)
    state = content.get("model", content)
    head = {
        f"_termination.{name.removeprefix('_reward.')}": tensor[:, :16]
        if name == "_reward.0.weight"
        else tensor[:1]
        if name.startswith("_reward.2.")
        else tensor
        for name, tensor in state.items()
        if name.startswith("_reward.")
    }
    torch.save({"model": {**state, **head}}, tmp_path / "april.pt")
    cfg = golden["cfg"]
    told = {name: cfg[name] for name in ("num_samples", "num_elites", "num_pi_trajs", "horizon")}
    told["episode_length"] = cfg["episode_length"]
    with_head = import_checkpoint(tmp_path / "april.pt", tmp_path / "with", **told)
    assert with_head.config.episodic
    model = import_checkpoint(tmp_path / "april.pt", tmp_path / "model", episodic=False, **told)
    assert not any("termination" in name for name in model.state_dict())
    check_plans(model, golden)


def test_export_is_the_newest_layout(
    checkpoint_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import_checkpoint(checkpoint_file, tmp_path / "model")
    export_checkpoint(tmp_path / "model", tmp_path / "out.pt")
    written = read(tmp_path / "out.pt")["model"]
    newest = family_files(request.config, "tdmpc2", "ckpt_L3*.pt")
    official = read((newest or sorted((HERE / "data" / "tdmpc2").glob("ckpt_L3*.pt")))[0])
    official = official.get("model", official)  # wrapped or bare
    assert written.keys() == official.keys()
    for name, value in official.items():
        if isinstance(value, Tensor):
            assert written[name].dtype == value.dtype, name
            assert_close(written[name], value, rtol=0, atol=0)
        else:
            assert written[name] == value


def test_there_are_files(request: pytest.FixtureRequest) -> None:
    root = fixtures_root(request.config)
    found = [path for kind in ("*.pt", "*.npz") for path in root.rglob(kind)]
    assert found, f"no golden files under {root}"
