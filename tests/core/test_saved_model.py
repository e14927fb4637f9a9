"""Opening a saved model: bit-equal when whole, refused by name when damaged, never executed."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch

from worldflux import CheckpointError, create_world_model
from worldflux.core.saved_model import load_tensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_and_opened_it_gives_bit_equal_outputs(saved: Path) -> None:
    torch.manual_seed(0)
    first = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    second = create_world_model(str(saved))
    obs = torch.randn(5, 3)
    assert torch.equal(first.encode(obs)["latent"], second.encode(obs)["latent"])
    assert second.config == first.config


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('executed')",))


def hostile_files() -> dict[str, bytes]:
    def header(content: object, claimed: int | None = None) -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text) if claimed is None else claimed) + text

    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return {
        "pickle": pickle.dumps(Bomb()),
        "empty": b"",
        "torn": b"\x10\x00",
        "huge header": header({}, claimed=1 << 62),
        "no json": struct.pack("<Q", 4) + b"\xff\xfe{]",
        "deep json": struct.pack("<Q", 200_000) + b"[" * 200_000,
        "overlapping": header({"a": entry, "b": entry}) + b"\0" * 4,
        "out of the file": header({"a": {**entry, "data_offsets": [0, 1 << 40]}}) + b"\0" * 4,
        "another type": header({"a": {**entry, "dtype": "F99"}}) + b"\0" * 4,
        "traversal": header({"../../x": entry}) + b"\0" * 4,
    }


@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_weights_file_is_refused_by_name(saved: Path, name: str) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(hostile_files()[name])
    with pytest.raises(CheckpointError) as caught:
        create_world_model(str(saved))
    assert str(path) in str(caught.value)


def test_a_link_is_not_followed(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.rename(saved / "elsewhere")
    path.symlink_to(saved / "elsewhere")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_tensors(path)


def test_weights_of_another_shape_leave_the_model_untouched(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["hidden_dim"] = 64
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="has shape"):
        create_world_model(str(saved))
