"""Official weights by their flat names: read back, checked, and refused when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from worldflux.core.config import DreamerV3Config
from worldflux.errors import CheckpointError
from worldflux.factory import create_world_model
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.official import import_official, official_names

from .builders import SEVERAL, observation, small_model

POOLED = {"cnn_downsample": "pool", "cnn_kernels": (5, 5)}
DISCRETE = {"action_type": "discrete", "action_dim": 4, "obs_shape": (3, 16, 16), **POOLED}
TWO_ACTIONS = {
    "action_spec": {
        "kind": "continuous",
        "dim": 2,
        "parts": {"arm": {"kind": "continuous", "dim": 1}, "leg": {"kind": "continuous", "dim": 1}},
    }
}


def official_arrays(model: DreamerV3WorldModel) -> dict[str, Any]:
    """The weights of a model under official names and layouts."""
    arrays = {}
    for name, source in official_names(model).items():
        tensor = model.state_dict()[name]
        if source.axes is not None:
            tensor = tensor.permute(np.argsort(source.axes).tolist())
        arrays[source.name] = tensor.numpy()
    return arrays


def official_file(folder: Path, arrays: dict[str, Any], prefix: str = "agent/") -> Path:
    np.savez(folder / "agent.npz", **{prefix + name: value for name, value in arrays.items()})
    return folder / "agent.npz"


@pytest.mark.parametrize(
    "changes",
    [
        {"obs_shape": (7,)},
        {**DISCRETE, "cnn_mults": (1, 2)},
        TWO_ACTIONS,
        {"num_dynamics_layers": 2, "num_posterior_layers": 2, "num_reward_layers": 2},
    ],
    ids=["vector", "discrete image", "two actions", "deeper"],
)
def test_an_imported_agent_answers_as_the_original(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = small_model(recipe="official", stoch_discrete=32, stoch_classes=2, **changes)
    model.return_normalizer.commit(torch.tensor([-3.0, 4.0]))
    for prefix in ("", "agent/", "param:", "param7:"):
        path = official_file(tmp_path, official_arrays(model), prefix)
        imported = import_official(path)
        original = model.state_dict()
        assert imported.state_dict().keys() == original.keys()
        for name, value in imported.state_dict().items():
            assert torch.equal(value, original[name]), name
    assert imported.config.recipe == "official"
    given = observation(model, 3)
    answers = [m.decode(m.encode(given, deterministic=True)) for m in (imported, model)]
    ours, theirs = (answer.predictions for answer in answers)
    for name, value in theirs.items():
        assert_close(ours[name], value)


def test_an_imported_agent_saves_and_opens(tmp_path: Path) -> None:
    model = small_model(recipe="official", stoch_discrete=32, stoch_classes=2, **SEVERAL_VECTORS)
    imported = import_official(official_file(tmp_path, official_arrays(model)))
    assert [(key.name, key.shape) for key in imported.keys] == [("arm", (3,)), ("leg", (2,))]
    imported.save_pretrained(tmp_path / "saved")
    opened = create_world_model(tmp_path / "saved")
    for name, value in opened.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


SEVERAL_VECTORS = {
    "obs_shape": (3,),
    "observation_modalities": {
        "leg": {"kind": "vector", "shape": [2]},
        "arm": {"kind": "vector", "shape": [3]},
    },
}


def test_every_kind_of_model_has_a_name_for_every_tensor() -> None:
    for changes in ({}, DISCRETE, {**SEVERAL, **POOLED}):
        model = small_model(recipe="official", **{"cnn_mults": (1, 2), **POOLED, **changes})
        assert official_names(model).keys() == model.state_dict().keys()
        assert len({s.name for s in official_names(model).values()}) == len(model.state_dict())


def test_an_official_agent_of_today_gives_its_size(tmp_path: Path) -> None:
    config = DreamerV3Config.from_size("official_1m", obs_shape=(24,), action_dim=6)
    model = DreamerV3WorldModel(config)
    imported = import_official(official_file(tmp_path, official_arrays(model)))
    same = ("deter_dim", "stoch_discrete", "stoch_classes", "hidden_dim", "blocks", "obs_shape")
    for name in (*same, "action_dim", "num_mlp_layers", "num_prior_layers", "action_type"):
        assert getattr(imported.config, name) == getattr(config, name), name


def test_without_slow_critic_and_normaliser_they_start_fresh(tmp_path: Path) -> None:
    model = small_model(recipe="official", stoch_discrete=32, stoch_classes=2)
    arrays = {
        name: value
        for name, value in official_arrays(model).items()
        if not name.startswith(("slowval/", "retnorm/"))
    }
    imported = import_official(official_file(tmp_path, arrays))
    for slow, fast in zip(
        imported.slow_critic.parameters(), imported.critic.parameters(), strict=True
    ):
        assert torch.equal(slow, fast)
    assert imported.return_normalizer.high_value == 0


def test_of_a_recorded_training_the_last_weights_are_taken(tmp_path: Path) -> None:
    """And what is recorded beside them (gradients, batches) is no weight."""
    model = small_model(recipe="official")  # 3 latents of 4 classes: told by the batch
    arrays = official_arrays(model)
    content = {"batch0:dyn/stoch": np.zeros((2, 5, 3, 4), np.float32)}
    for name, value in arrays.items():
        kind = "state" if name.startswith(("slowval/", "retnorm/")) else "param"
        content |= {f"{kind}2:{name}": value + 1, f"{kind}10:{name}": value}
        content[f"grad10:{name}"] = value + 2
    np.savez(tmp_path / "training.npz", **content)
    imported = import_official(tmp_path / "training.npz")
    assert imported.config.stoch_classes == 4
    for name, value in imported.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_what_is_no_agent_is_told(tmp_path: Path) -> None:
    model = small_model(recipe="official", stoch_discrete=32, stoch_classes=2)
    arrays = official_arrays(model)
    with pytest.raises(CheckpointError, match="no npz"):
        import_official(tmp_path / "missing.npz")
    np.savez_compressed(tmp_path / "whole.npz", **{"enc/mlp0/kernel": np.arange(300)})
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    for torn in (b"PK\x03\x04 torn", b"root:x", array, whole[:60] + b"\xff" * 20 + whole[80:]):
        (tmp_path / "torn.npz").write_bytes(torn)
        with pytest.raises(CheckpointError, match="npz"):
            import_official(tmp_path / "torn.npz")
    np.savez(tmp_path / "pickled.npz", **{"enc/mlp0/kernel": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(CheckpointError, match="npz"):
        import_official(tmp_path / "pickled.npz")
    without = {name: value for name, value in arrays.items() if name != "dyn/obs0/kernel"}
    with pytest.raises(CheckpointError, match="dyn/obs0/kernel"):
        import_official(official_file(tmp_path, without))
    with pytest.raises(CheckpointError, match="not a DreamerV3 agent"):
        import_official(official_file(tmp_path, {"some/other/kernel": np.zeros(3)}))
    wrong = {**arrays, "dyn/obs0/kernel": np.zeros((2, 2), np.float32)}
    with pytest.raises(CheckpointError, match=r"dyn/obs0/kernel.*\(2, 2\)"):
        import_official(official_file(tmp_path, wrong))
