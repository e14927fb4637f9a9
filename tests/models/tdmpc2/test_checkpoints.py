"""Official checkpoint layouts, rebuilt from one model by renaming; and what must be refused."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.saved_model import load_weights
from worldflux.errors import CheckpointError
from worldflux.models.tdmpc2 import TDMPC2Config, TDMPC2WorldModel
from worldflux.models.tdmpc2.official import (
    export_checkpoint,
    import_checkpoint,
    official_state_dict,
)

from .builders import small_model

PARTS = ("weight", "bias", "ln.weight", "ln.bias")


def as_l2(state: dict[str, Any]) -> dict[str, Any]:
    """L3 with the ensemble's views a second time under module names."""
    extra = {}
    for name, value in state.items():
        for view in ("_detach_Qs", "_target_Qs"):
            if name.startswith(f"{view}_params."):
                extra[name.replace(f"{view}_params.", f"{view}.params.", 1)] = value
    return {**state, **extra}


def as_l1(state: dict[str, Any]) -> dict[str, Any]:
    """Ensembles as flat numbered lists; no settings, masks or detached view."""
    out = {}
    for name, value in state.items():
        if name.startswith(("log_std", "_action_masks", "_detach")) or "__" in name:
            continue
        match = re.fullmatch(r"(_Qs\.params|_target_Qs_params)\.(\d+)\.(.+)", name)
        if match:
            prefix = "_Qs.params" if match[1] == "_Qs.params" else "_target_Qs.params"
            name = f"{prefix}.{4 * int(match[2]) + PARTS.index(match[3])}"
        out[name] = value
    return out


def as_l0(state: dict[str, Any]) -> dict[str, Any]:
    """Layers as numbered plain modules (activations and dropout leave gaps)."""
    out = {}
    for name, value in as_l1(state).items():
        match = re.fullmatch(r"(_encoder\.state|_dynamics|_reward|_pi)\.(\d+)\.(ln\.)?(\w+)", name)
        if match:
            network, layer, norm = match[1], int(match[2]), bool(match[3])
            if network == "_encoder.state":
                path = f"{1 + 3 * layer + norm}"
            elif network == "_dynamics" and layer == 2 and norm:
                path = "1"
            else:
                path = f"0.{3 * layer + norm}" if network == "_dynamics" else f"{3 * layer + norm}"
            name = f"{network}.{path}.{match[4]}"
        out[name] = value
    return out


LAYOUTS = {"L0": as_l0, "L1": as_l1, "L2": as_l2, "L3": dict}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_same(ours: TDMPC2WorldModel, state: dict[str, Any], without: str = "~") -> None:
    given = official_state_dict(ours)
    for name, value in state.items():
        if isinstance(value, Tensor) and not name.startswith(without):
            assert torch.equal(given[name], value), name


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_weights(layout: str, wrapped: bool, tmp_path: Path) -> None:
    state = official_state_dict(small_model())
    content = LAYOUTS[layout](state)
    if layout == "L0":
        assert "_dynamics.0.0.weight" in content
    file = saved({"model": content} if wrapped else content, tmp_path / "official.pt")
    model = import_checkpoint(file, tmp_path / "model")
    assert_same(model, state)
    reopened = TDMPC2WorldModel(TDMPC2Config.load(tmp_path / "model"))
    load_weights(reopened, tmp_path / "model" / "model.safetensors")
    assert_same(reopened, state)
    assert reopened.config.num_q_networks == 3
    assert (reopened.config.horizon, reopened.config.momentum) == (3, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"episodic": True},
        {"num_enc_layers": 4, "enc_dim": 24, "hidden_dim": 32},
        {"num_hidden_layers": 3, "num_q_networks": 2},
        {"obs_shape": (9, 64, 64), "num_channels": 4, "latent_dim": 64},
        {"num_tasks": 3, "task_dim": 4, "task_action_dims": (1, 2, 2)},
        {"log_std_min": -5.0, "log_std_max": 1.0},
    ],
)
def test_the_configuration_is_rebuilt_from_the_tensors(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    original = small_model(**changes)
    original.save_pretrained(tmp_path / "saved")
    export_checkpoint(tmp_path / "saved", tmp_path / "official.pt")
    model = import_checkpoint(tmp_path / "official.pt", tmp_path / "back")
    assert_same(model, official_state_dict(original))
    for name, value in changes.items():
        assert getattr(model.config, name) == value


def test_an_imported_agent_acts_as_the_original(tmp_path: Path) -> None:
    original = small_model(momentum=0.0, num_samples=512, num_elites=64, num_pi_trajs=24)
    original.save_pretrained(tmp_path / "saved")
    export_checkpoint(tmp_path / "saved", tmp_path / "official.pt")
    model = import_checkpoint(tmp_path / "official.pt", tmp_path / "back", iterations=2)
    obs, first = torch.randn(1, 5), torch.tensor([True])
    torch.manual_seed(0)
    expected, _ = original.policy(obs, original.initial_carry(1), first, explore=True)
    torch.manual_seed(0)
    action, _ = model.policy(obs, model.initial_carry(1), first, explore=True)
    assert torch.equal(action, expected)


def test_a_multi_task_file_without_masks_says_so(tmp_path: Path) -> None:
    state = official_state_dict(small_model(num_tasks=3, task_dim=4, task_action_dims=(1, 2, 2)))
    file = saved({"model": as_l1(state)}, tmp_path / "official.pt")
    with pytest.warns(UserWarning, match="task_action_dims"):
        import_checkpoint(file, tmp_path / "model")
    told = import_checkpoint(file, tmp_path / "told", task_action_dims=(1, 2, 2))
    assert_same(told, state)


# ---------------------------------------------------------------------------- refusals


class Payload:
    """Runs a command when it is unpickled by anything that executes pickles."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    state = official_state_dict(small_model())
    file = saved({"model": {**state, "extra": Payload(marker)}}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="never executed"):
        import_checkpoint(file, tmp_path / "model")
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(CheckpointError):
        import_checkpoint(plain, tmp_path / "model")
    assert not marker.exists()
    assert not (tmp_path / "model").exists()


def broken(state: dict[str, Any], how: str) -> dict[str, Any]:
    state = dict(state)
    if how == "missing":
        del state["_pi.1.ln.bias"]
    elif how == "foreign":
        state["_decoder.0.weight"] = torch.zeros(2, 2)
    elif how == "shape":
        state["_reward.1.weight"] = torch.zeros(3, 3)
    elif how == "target":
        state = {name: value for name, value in state.items() if not name.startswith("_target")}
    elif how == "not-tensor":
        state["_pi.0.bias"] = [1.0, 2.0]
    elif how == "hollow":
        state["_pi.0.weight"] = torch.zeros(1).expand(100_000, 100_000)
    elif how == "integers":
        state["_pi.0.weight"] = state["_pi.0.weight"].int()
    elif how == "other-model":
        state = {"conv.weight": torch.zeros(3, 3, 3, 3), "fc.bias": torch.zeros(3)}
    return state


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "_pi.1.ln.bias"),
        ("foreign", "_decoder.0.weight"),
        ("shape", "_reward.1.weight"),
        ("target", "q_target"),
        ("not-tensor", "_pi.0.bias"),
        ("hollow", "_pi.0.weight"),
        ("integers", "_pi.0.weight"),
        ("other-model", "not a TD-MPC2 checkpoint"),
    ],
)
def test_what_is_wrong_is_named(how: str, said: str, tmp_path: Path) -> None:
    state = broken(official_state_dict(small_model()), how)
    file = saved({"model": state}, tmp_path / "official.pt")
    with pytest.raises(CheckpointError, match=re.escape(said)) as error:
        import_checkpoint(file, tmp_path / "model")
    assert str(file) in str(error.value)
    assert not (tmp_path / "model").exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no regular file"):
        import_checkpoint(tmp_path / "absent.pt", tmp_path / "model")
    text = tmp_path / "text.pt"
    for content in ("hello", "root:x", "0", "(lp0\nI1\na."):
        text.write_text(content)
        with pytest.raises(CheckpointError, match="torch checkpoint"):
            import_checkpoint(text, tmp_path / "model")
    empty = tmp_path / "empty.pt"
    empty.write_bytes(b"")
    with pytest.raises(CheckpointError):
        import_checkpoint(empty, tmp_path / "model")
    with pytest.raises(CheckpointError, match="dict"):
        import_checkpoint(saved([1, 2], tmp_path / "list.pt"), tmp_path / "model")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("data.txt", "no pickle here")
    strange = tmp_path / "strange.pt"
    strange.write_bytes(archive.getvalue())
    with pytest.raises(CheckpointError):
        import_checkpoint(strange, tmp_path / "model")
    whole = saved({"model": official_state_dict(small_model())}, tmp_path / "whole.pt")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(CheckpointError):
        import_checkpoint(torn, tmp_path / "model")


def test_a_decoder_has_no_place_in_an_official_file(tmp_path: Path) -> None:
    small_model(use_decoder=True).save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="decoder"):
        export_checkpoint(tmp_path / "saved", tmp_path / "official.pt")
