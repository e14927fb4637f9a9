"""Configurations keep what was set: equal ones train with equal numbers, contradictions fail."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from worldflux import (
    ConfigurationError,
    DreamerV3Config,
    TDMPC2Config,
    WorldModelConfig,
    create_world_model,
    get_config,
)
from worldflux.training import TrainingConfig

COPIES: dict[str, Callable[[Any], Any]] = {
    "dict": lambda c: type(c).from_dict(c.to_dict()),
    "json": lambda c: type(c).from_dict(json.loads(json.dumps(c.to_dict()))),
    "keywords": lambda c: type(c)(**c.to_dict()),
    "replace": dataclasses.replace,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda c: pickle.loads(pickle.dumps(c)),
    "with_overrides": lambda c: c.with_overrides(),
}
MODELS = {
    "tdmpc2": TDMPC2Config.from_size("ci", obs_shape=(3,), action_dim=1),
    "tdmpc2 clip": TDMPC2Config.from_size("ci", obs_shape=(3,), grad_clip=100.0),
    "dreamer": DreamerV3Config.from_size("ci"),
    "dreamer official": DreamerV3Config.from_size(
        "official_1m", obs_shape=(4,), encoder_type="mlp"
    ),
    "dreamer loss only": DreamerV3Config.from_size("ci", actor_critic=False),
}
TRAININGS = {"unset": TrainingConfig(), "set": TrainingConfig(batch_size=16, seed=3)}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_of_a_model_configuration_trains_with_the_same_numbers(name: str, way: str) -> None:
    config = MODELS[name]
    again = COPIES[way](config)
    assert again == config
    assert again.set_fields == config.set_fields
    assert again.for_agent(200) == config.for_agent(200)
    assert TrainingConfig().resolve(again) == TrainingConfig().resolve(config)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_copy_of_a_training_configuration_trains_with_the_same_numbers(
    name: str, way: str
) -> None:
    config = TRAININGS[name]
    again = COPIES[way](config)
    assert again == config
    assert again.set_fields == config.set_fields
    for model in MODELS.values():
        assert again.resolve(model) == config.resolve(model)


def test_configurations_that_train_differently_are_not_equal() -> None:
    assert TrainingConfig() != TrainingConfig(batch_size=16)
    assert TrainingConfig() == TrainingConfig(total_steps=100_000)
    assert TDMPC2Config() != TDMPC2Config(grad_clip=100.0)
    assert DreamerV3Config() != DreamerV3Config(actor_critic=False)


def test_what_replace_and_assignment_change_counts_as_set() -> None:
    replaced = dataclasses.replace(TrainingConfig(), batch_size=16)
    assigned = TrainingConfig()
    assigned.batch_size = 16
    for config in (replaced, assigned):
        assert config.set_fields == {"batch_size"}
        assert config.resolve(MODELS["tdmpc2"]).batch_size == 16
        assert config.resolve(MODELS["tdmpc2"]).grad_clip == 20.0
    with pytest.raises(ConfigurationError, match="batch_size = -1"):
        assigned.batch_size = -1
    with pytest.raises(ConfigurationError, match=r"no field 'bach_size'\n.*'batch_size'"):
        assigned.bach_size = 3  # type: ignore[attr-defined]
    assert assigned == replaced


def test_sizes_that_change_change_the_specs_derived_from_them() -> None:
    config = TDMPC2Config(obs_shape=(39,))
    for changed in (
        dataclasses.replace(config, obs_shape=(7,), action_dim=4),
        config.with_overrides(obs_shape=(7,), action_dim=4),
    ):
        assert changed.observation_modalities == {"obs": {"kind": "vector", "shape": (7,)}}
        assert changed.action_spec == {"kind": "continuous", "dim": 4}
    config.obs_shape = (9,)
    assert config.observation_modalities["obs"]["shape"] == (9,)


def test_a_spec_gives_the_size_that_was_not_set() -> None:
    spec = {"kind": "continuous", "dim": 4}
    model = create_world_model("tdmpc2:ci", obs_shape=(7,), action_spec=spec)
    assert model.config.action_dim == 4
    chosen = get_config("dreamer:ci", action_spec={"kind": "discrete", "dim": 3})
    assert (chosen.action_dim, chosen.action_type) == (3, "discrete")
    seen = get_config("tdmpc2:ci", observation_modalities={"o": {"kind": "vector", "shape": [5]}})
    assert seen.obs_shape == (5,)
    pair = {"a": {"shape": [5]}, "b": {"kind": "image", "shape": [3, 32, 32]}}
    assert get_config("dreamer:ci", observation_modalities=pair).obs_shape == (3, 32, 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda spec: TDMPC2Config(obs_shape=(7,), observation_modalities=spec),
        lambda spec: WorldModelConfig(obs_shape=(7,), observation_modalities=spec),
        lambda spec: get_config("tdmpc2:ci", obs_shape=(7,), observation_modalities=spec),
        lambda spec: dataclasses.replace(TDMPC2Config(observation_modalities=spec), obs_shape=(7,)),
        lambda spec: TDMPC2Config(observation_modalities=spec).with_overrides(obs_shape=(7,)),
        lambda spec: DreamerV3Config(
            obs_shape=(7,), observation_modalities={**spec, "b": {"shape": [5]}}
        ),
    ],
)
def test_a_shape_that_contradicts_the_modalities_is_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"obs_shape = \(7,\).*\(39,\)"):
        make({"obs": {"kind": "vector", "shape": [39]}})


def test_action_specs_that_contradict_the_sizes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="action_spec"):
        TDMPC2Config(action_dim=3, action_spec={"kind": "continuous", "dim": 4})
    with pytest.raises(ConfigurationError, match="action_spec"):
        dataclasses.replace(TDMPC2Config(action_spec={"dim": 4}), action_dim=3)


def test_a_damaged_record_of_what_was_set_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"set_fields = 3 .*list of field names"):
        TDMPC2Config.from_dict({**TDMPC2Config().to_dict(), "set_fields": 3})
