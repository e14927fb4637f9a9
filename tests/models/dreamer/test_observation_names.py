"""Observations of any name, and images of several sizes, are learned and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux import Batch, create_world_model, get_config
from worldflux.models.dreamerv3.networks import module_name
from worldflux.training import TrainingConfig

NAMES = [
    "type",
    "values",
    "arm.pos",
    "",
    "~x",
    "a/b",
    "training",
    "keys",
    "100%.x",
    "pos",
    "reward",
]
SIZES = {"front": (3, 64, 64), "side": (1, 64, 64), "wrist.cam": (3, 32, 48)}
SMALL = {"cnn_depth": 8, "hidden_dim": 16, "num_mlp_layers": 1, "action_dim": 2}


def observations(shapes: dict[str, tuple[int, ...]], *leading: int) -> Any:
    return {name: torch.rand(*leading, *shape) for name, shape in shapes.items()}


def learned_and_saved(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Predictions of a model that learned once, the same after saving."""
    kinds = {
        n: {"kind": "image" if len(s) == 3 else "vector", "shape": s} for n, s in shapes.items()
    }
    model = create_world_model("dreamer:ci", observation_modalities=kinds, **SMALL)
    batch = Batch(
        obs=observations(shapes, 2, 3),
        actions=torch.zeros(2, 3, 2),
        rewards=torch.zeros(2, 3),
        terminations=torch.zeros(2, 3),
    )
    model.loss(batch).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("encoder", "decoder")):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    state = model.encode(observations(shapes, 2), deterministic=True)
    model.save_pretrained(folder)
    told = create_world_model(folder).decode(state).predictions
    for name, value in model.decode(state).predictions.items():
        assert torch.equal(told[name], value)
    return told


def test_any_name_is_learned_predicted_and_saved(tmp_path: Path) -> None:
    told = learned_and_saved(tmp_path, dict.fromkeys(NAMES, (2,)))
    for name in NAMES:
        assert told["obs.reward" if name == "reward" else name].shape == (2, 2)
    assert told["reward"].shape == (2,)  # the predicted reward is no observation


def test_images_of_several_sizes_have_an_encoder_and_a_decoder_each(tmp_path: Path) -> None:
    told = learned_and_saved(tmp_path, {**SIZES, "pos": (4,)})
    for name, shape in SIZES.items():
        assert told[name].shape == (2, *shape)
        image = told[name].detach()
        assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_weights_of_ordinary_names_and_one_size_are_called_as_ever() -> None:
    assert module_name("pos") == "pos"
    kinds = {"pos": {"shape": [2]}, "cam": {"kind": "image", "shape": [3, 32, 32]}}
    model = create_world_model("dreamer:ci", observation_modalities=kinds, **SMALL)
    names = model.state_dict().keys()
    assert {"decoder.heads.pos.weight", "encoder.convs.0.conv.weight"} <= names
    assert not [name for name in names if "further" in name or "~" in name]


def test_escaped_names_are_told_apart() -> None:
    odd = [*NAMES, "type%", "~type", "arm%2Epos", "~", "~arm%2Epos"]
    assert len({module_name(name) for name in odd}) == len(odd)


def test_actions_of_any_name_are_learned() -> None:
    parts = {"type": {"kind": "discrete", "dim": 2}, "arm.pos": {"kind": "continuous", "dim": 1}}
    spec = {"kind": "continuous", "dim": 3, "parts": parts}
    model = create_world_model("dreamer:ci", obs_shape=(3,), action_spec=spec, hidden_dim=16)
    first = torch.ones(2, dtype=torch.bool)
    actions, _ = model.policy(torch.rand(2, 3), model.initial_carry(2), first, explore=True)
    assert actions.shape == (2, 3)


@pytest.mark.parametrize("context", [0, 1])
def test_the_train_ratio_holds_for_the_batches_that_are_trained(context: int) -> None:
    config = get_config("dreamerv3:laptop", replay_context=context)
    ratio = config.train_ratio  # type: ignore[attr-defined]
    for sizes in ({}, {"batch_size": 4}, {"sequence_length": 9}, {"batch_size": 3, "seed": 1}):
        resolved = TrainingConfig(**sizes).resolve(config)  # type: ignore[arg-type]
        learned = resolved.batch_size * (resolved.sequence_length - context)
        assert resolved.update_ratio * learned == pytest.approx(ratio)
    smaller = config.with_overrides(batch_size=4)
    assert TrainingConfig().resolve(smaller).update_ratio * 4 * 32 == pytest.approx(ratio)
