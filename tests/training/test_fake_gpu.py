"""An update on a GPU that is not there: tensors of torch's meta device have no numbers, so that
reading one, mixing devices or computing in float64 is an error on any machine."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worldflux import Batch, create_world_model
from worldflux.core.learning import LearningOverrides

GPU = torch.device("meta")
AGENT = {"actor_critic": True, "imagination_horizon": 3}
IMAGE: dict[str, Any] = {**AGENT, "obs_shape": (3, 32, 32), "cnn_depth": 4, "decoder_blocks": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dreamerv3": ("dreamerv3:ci", {**AGENT, "obs_shape": (5,)}),
    "dreamerv3 of images": ("dreamerv3:ci", IMAGE),
    "dreamerv3 with choices": (
        "dreamerv3:ci",
        {**AGENT, "obs_shape": (5,), "action_type": "discrete"},
    ),
    "dreamerv3 without a decoder": ("dreamerv3:ci", {**IMAGE, "representation": "barlow"}),
    "dreamerv3 with a probe decoder": (
        "dreamerv3:ci",
        {**IMAGE, "representation": "barlow", "probe_decoder": True},
    ),
    "bmpc": ("bmpc:ci", {"obs_shape": (5,), "reanalyze_interval": 1}),
    "tdmpc2": ("tdmpc2:ci", {"obs_shape": (5,)}),
    "tdmpc2 with ends": ("tdmpc2:ci", {"obs_shape": (5,), "episodic": True}),
}


class Watch(TorchDispatchMode):
    """Refuses float64, and copies between the CPU and the GPU, which wait for each other."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device == GPU:
                assert tensor.dtype != torch.float64, f"{func} in float64"
                sources = {x.device.type for x in given if x.dim()}
                assert "cpu" not in sources, f"{func} copies from the CPU"
        return result


def fake_batch(model: Any) -> Batch:
    config, rows = model.config, (8, 6)
    columns = model.replay_columns().items() if config.model_type == "bmpc" else ()
    obs = torch.zeros(*rows, *config.obs_shape, device=GPU)
    return Batch(
        obs=obs.to(torch.uint8) if config.is_image else obs,
        actions=torch.zeros(*rows, config.action_dim, device=GPU),
        rewards=torch.zeros(rows, device=GPU),
        terminations=torch.zeros(rows, dtype=torch.bool, device=GPU),
        extras={name: torch.ones(*rows, *shape, device=GPU) for name, (shape, _) in columns},
    )


@pytest.mark.parametrize("case", CASES)
def test_an_update_stays_on_the_gpu(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes = CASES[case]
    model = create_world_model(name, action_dim=2, **changes).to(GPU).eval()
    if name.startswith(("tdmpc2", "bmpc")):
        model.networks.heads_as_indices = True  # as with training.compile
        model.known_count = 0  # read once a session
    batch, scratch = fake_batch(model), {}
    for phase in model.phases(LearningOverrides()):
        with Watch(), monkeypatch.context() as patch:
            patch.setattr(
                torch, "autocast", lambda *_, **__: nullcontext()
            )  # this device has none to switch off
            patch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("copies from the CPU"))
            phase.loss(batch, scratch).loss.backward()
        with Watch():
            phase.optimizer.step()
    with Watch():
        model.after_update(scratch)
