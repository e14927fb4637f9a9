"""Twenty updates of each family end at the very weights that were recorded.

A change that only moves code leaves every bit as it is. Bits depend on the processor's kernels too,
so a hash counts on the kind of machine that recorded it; on any other, the weights' sums must agree
to rounding. Record anew, on purpose, with: python tests/golden/test_bit_exact.py (the variable
MKL_CBWR as tests/golden/conftest.py sets it)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux import create_world_model
from worldflux.core.learning import set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import ReplaySource
from worldflux.training import Trainer, TrainingConfig

RECORDED = Path(__file__).parent / "recorded" / "bit_exact.json"
UPDATES = 20
CASES: dict[str, dict[str, Any]] = {
    "tdmpc2-state": {"model": "tdmpc2:ci", "obs_shape": (5,), "action_dim": 2},
    "tdmpc2-laptop": {"model": "tdmpc2:laptop", "obs_shape": (5,), "action_dim": 2},
    "tdmpc2-episodic": {
        "model": "tdmpc2:ci", "obs_shape": (5,), "action_dim": 2, "episodic": True
    },
    "tdmpc2-pixels": {"model": "tdmpc2:ci", "obs_shape": (3, 64, 64), "action_dim": 2},
    "dreamer-state": {"model": "dreamer:ci", "obs_shape": (5,), "action_dim": 2},
    "dreamer-laptop": {"model": "dreamerv3:laptop", "obs_shape": (5,), "action_dim": 2},
    "dreamer-discrete": {
        "model": "dreamer:ci", "obs_shape": (5,), "action_dim": 3, "action_type": "discrete"
    },
    "dreamer-pixels": {"model": "dreamer:ci", "obs_shape": (3, 64, 64), "action_dim": 2},
}  # fmt: skip


def machine() -> str:
    """What decides the bits: torch, its kernels, and the processor they were chosen for."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    parts = re.findall(r"^(?:cpu family|model|model name|stepping)\s*: (.*)$", text, re.MULTILINE)
    kernels = torch.backends.cpu.get_cpu_capability()
    products = os.environ.get("MKL_CBWR", "")
    return " ".join(["torch", torch.__version__, kernels, *parts[:4], products]).strip()


def trained(name: str, folder: str) -> WorldModel:
    """The case's model after its updates on seeded random episodes of 30 steps."""
    case = dict(CASES[name])
    set_seed(7)
    model = create_world_model(case.pop("model"), **case)
    config = model.config
    columns = model.replay_columns()
    buffer = ReplayBuffer(
        2_000,
        config.obs_shape,
        config.action_dim,
        extra_columns={column: shape for column, (shape, _) in columns.items()},
    )
    rng = np.random.default_rng(7)
    for _ in range(40):
        buffer.add_episode(*_episode(rng, config.obs_shape, config.action_dim, config.action_type))
    own = config.model_type == "dreamer"
    trainer = Trainer(
        model,
        TrainingConfig(
            total_steps=UPDATES, batch_size=4, device="cpu", output_dir=folder, seed=7,
            **({"sequence_length": 9} if own else {}),
        ),
    )  # fmt: skip
    trainer.train(ReplaySource(buffer, within_episode=not own))
    return model


def _episode(
    rng: np.random.Generator, obs_shape: tuple[int, ...], action_dim: int, action_type: str
) -> tuple[Any, ...]:
    obs = rng.standard_normal((31, *obs_shape)).astype(np.float32)
    if len(obs_shape) == 3:
        obs = rng.integers(0, 256, (31, *obs_shape)).astype(np.uint8)
    actions = rng.uniform(-1, 1, (30, action_dim)).astype(np.float32)
    if action_type == "discrete":
        actions = np.eye(action_dim, dtype=np.float32)[rng.integers(0, action_dim, 30)]
    ends = np.zeros(30, bool)
    ends[-1] = True
    return obs, actions, rng.standard_normal(30).astype(np.float32), ends


def told(model: WorldModel) -> dict[str, Any]:
    """A hash over every tensor by name, and the sum of their sizes for other machines."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    total = sum(t.detach().double().abs().sum().item() for t in model.state_dict().values())
    return {"hash": digest.hexdigest(), "sum": total}


@pytest.mark.parametrize("name", CASES)
def test_twenty_updates_end_at_the_recorded_weights(name: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = told(trained(name, str(tmp_path)))
    finally:
        torch.set_num_threads(threads)
    recorded = json.loads(RECORDED.read_text())
    assert found["sum"] == pytest.approx(recorded["sums"][name], rel=1e-4)
    expected = recorded["hashes"].get(machine(), {}).get(name)
    if expected is not None:
        assert found["hash"] == expected


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = json.loads(RECORDED.read_text()) if RECORDED.exists() else {"hashes": {}}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: told(trained(name, f"{folder}/{name}")) for name in CASES}
    content["hashes"][machine()] = {name: one["hash"] for name, one in found.items()}
    content["sums"] = {name: one["sum"] for name, one in found.items()}
    RECORDED.write_text(json.dumps(content, indent=1) + "\n")
