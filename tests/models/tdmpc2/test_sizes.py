"""Exact parameter counts, initialisation, and any configuration in range plans and learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.core.config import TDMPC2Config
from worldflux.models.tdmpc2 import TDMPC2WorldModel

from .builders import observation, random_batch, run_updates, small_config, small_model

# Official sizes: observation and action sizes, task dimension -> learnable parameters.
OFFICIAL = {
    "1m": (1_214_651, 1_426_427, 1_435_067),
    "5m": (4_960_618, 5_241_066, 5_389_930),
    "19m": (18_062_442, 16_031_210, 18_970_218),
    "48m": (47_208_298, 48_242_410, 48_791_146),
    "317m": (312_595_417, 317_316_889, 317_383_129),
}


def learnable(config: TDMPC2Config) -> int:
    with torch.device("meta"):
        model = TDMPC2WorldModel(config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", OFFICIAL)
def test_official_sizes_to_the_last_digit(size: str) -> None:
    single, mt30, mt80 = OFFICIAL[size]
    preset = f"official_{size}"
    assert learnable(TDMPC2Config.from_size(preset, obs_shape=(24,), action_dim=6)) == single
    many = {"num_tasks": 30, "task_dim": 96 if size in ("1m", "317m") else 64}
    if size == "19m":
        many["latent_dim"] = 512
    assert learnable(TDMPC2Config.from_size(preset, obs_shape=(24,), action_dim=6, **many)) == mt30
    many = {"num_tasks": 80, "task_dim": 96}
    assert learnable(TDMPC2Config.from_size(preset, obs_shape=(39,), action_dim=6, **many)) == mt80


def test_sizes_of_the_parts() -> None:
    config = TDMPC2Config.from_size("official_5m", obs_shape=(24,), action_dim=6, episodic=True)
    with torch.device("meta"):
        networks = TDMPC2WorldModel(config).networks

    def count(module: torch.nn.Module | None) -> int:
        assert module is not None
        return sum(p.numel() for p in module.parameters())

    assert count(networks.encoder) == 139_520
    assert count(networks.dynamics) == 794_112
    assert count(networks.reward) == 582_245
    assert count(networks.policy) == 533_516
    assert count(networks.q) == 5 * 582_245 == count(networks.q_target)
    assert count(networks.termination) == 527_873
    pixels = TDMPC2Config.from_size("official_5m", obs_shape=(9, 64, 64), action_dim=6)
    assert learnable(pixels) == 4_879_370


def test_documented_sizes() -> None:
    # Spec section 5, C1 and C5: the documented dimensions do not have the counts on their labels.
    for size, expected in (("ci", 25_947), ("5m", 1_373_802)):
        config = TDMPC2Config.from_size(size, obs_shape=(39,), action_dim=6)
        assert learnable(config) == expected


def test_fresh_networks_predict_nothing_yet() -> None:
    torch.manual_seed(0)
    model = TDMPC2WorldModel(small_config())
    state = model.transition(model.encode(torch.randn(3, 5)), torch.zeros(3, 2))
    predictions = model.decode(state).predictions
    assert predictions["reward"].abs().max() < 1e-6
    assert predictions["value"].abs().max() < 1e-6
    wide = TDMPC2WorldModel(small_config(hidden_dim=256))
    weight = wide.networks.dynamics.hidden[1].linear.weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
    assert not wide.networks.dynamics.hidden[1].linear.bias.any()


@settings(deadline=None, max_examples=25)
@given(
    horizon=st.integers(1, 6),
    heads=st.integers(2, 6),
    groups=st.integers(1, 4),
    group=st.sampled_from([2, 4, 8]),
    batch=st.integers(1, 5),
    num_envs=st.integers(1, 3),
    actions=st.integers(1, 4),
    hidden_layers=st.integers(1, 3),
    elites=st.integers(1, 8),
    pi_trajs=st.integers(0, 12),
    momentum=st.sampled_from([0.0, 0.1]),
    episodic=st.booleans(),
    use_decoder=st.booleans(),
    dropout=st.sampled_from([0.0, 0.01, 0.5]),
)
def test_any_configuration_plans_and_learns(
    horizon: int,
    heads: int,
    groups: int,
    group: int,
    batch: int,
    num_envs: int,
    actions: int,
    hidden_layers: int,
    elites: int,
    pi_trajs: int,
    momentum: float,
    episodic: bool,
    use_decoder: bool,
    dropout: float,
) -> None:
    model = small_model(
        horizon=horizon,
        num_q_networks=heads,
        latent_dim=groups * group,
        simnorm_dim=group,
        action_dim=actions,
        num_hidden_layers=hidden_layers,
        num_samples=8,
        num_elites=elites,
        num_pi_trajs=pi_trajs,
        momentum=momentum,
        episodic=episodic,
        use_decoder=use_decoder,
        dropout=dropout,
    )
    carry, first = model.initial_carry(num_envs), torch.ones(num_envs, dtype=torch.bool)
    for explore in (True, False):
        obs = observation(model.config, num_envs)
        action, carry = model.policy(obs, carry, first, explore=explore)
        assert action.shape == (num_envs, actions)
        assert torch.isfinite(action).all()
        assert action.abs().max() <= 1
        assert carry["prev_mean"].shape == (num_envs, horizon, actions)
        first = torch.zeros_like(first)
    numbers, _ = run_updates(model, random_batch(model.config, size=batch), 2)
    assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
    assert float(model.policy_scale) >= 1.0
