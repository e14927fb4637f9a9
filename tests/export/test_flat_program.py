"""Programs in C and JavaScript against torch, operation by operation.

Without gcc or node the tests that need one are named as skipped.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.errors import CapabilityError
from worldflux.export.aten import policy_program, translate
from worldflux.export.html_page import runtime
from worldflux.export.source import c_source


class Network(nn.Module):
    """Calls a function of the observation, as a policy without memory."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, observation: Tensor, is_first: Tensor) -> dict[str, Tensor]:
        return {"action": self.function(observation, *self.parts)}


@functools.cache
def program_of(network: nn.Module, size: int) -> Any:
    example = {"observation": torch.zeros(size), "is_first": torch.tensor(False)}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own
        exported = torch.export.export(network, (), example, strict=False)
    return translate(exported, "C")


def layers(x: Tensor, linear: nn.Module, norm: nn.Module, rms: nn.Module) -> Tensor:
    h = F.mish(norm(linear(x.unsqueeze(0))))
    g = F.silu(rms(h)).view(1, 4, 6).transpose(1, 2)
    attention = torch.softmax(g, -1) + torch.log_softmax(g, 1)
    blocks = torch.bmm(attention.unflatten(1, (2, 3)).squeeze(0), torch.ones(2, 4, 5).cumsum(-1))
    best = F.one_hot(blocks.argmax(-1), 5).float()
    return torch.cat([blocks.flatten(), best.flatten(), h.squeeze(0)])


def elementwise(x: Tensor) -> Tensor:
    y = x.view(3, 4)
    pieces = [
        torch.sign(y) * torch.log1p(y.abs()),
        torch.expm1(y).clamp(-0.5, 2.0).reciprocal(),
        torch.where(y > 0.1, y.sqrt(), y.square()),
        y.sin() * y.cos() - y.floor() / 3 + y.ceil() * 0.5,
        (y.abs() + 1).log() ** 3,
        torch.maximum(y, y.flip(1)) + torch.minimum(y, -y.flip(0)),
        ((y >= 0) & ~(y.t().reshape(3, 4) < -1)).float(),
        y - y.amax(0, keepdim=True) + y.amin(1, keepdim=True),
        y.var(1, keepdim=True) * y + y.mean() + y.sum((0, 1)),
        y.to(torch.int64).float() + torch.sigmoid(y) * torch.tanh(y),
    ]
    return torch.stack(pieces).permute(2, 0, 1).flatten()


def networks() -> list[tuple[nn.Module, int]]:
    torch.manual_seed(0)
    norm, rms = nn.LayerNorm(24), nn.RMSNorm(24, 1e-4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return [(Network(layers, nn.Linear(7, 24), norm, rms), 7), (Network(elementwise), 12)]


NETWORKS = networks()


def in_c(program: Any, rows: Tensor, folder: Path) -> np.ndarray:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (folder / "net.c").write_text(c_source(program, "net", "a test */"))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-DWORLDFLUX_MAIN"]
    subprocess.run(["cc", *flags, "net.c", "-o", "net", "-lm"], cwd=folder, check=True)
    lines = "\n".join("0 " + " ".join(f"{number:.9g}" for number in row) for row in rows.tolist())
    done = subprocess.run([folder / "net"], input=lines, text=True, capture_output=True, check=True)
    return np.array([line.split() for line in done.stdout.splitlines()], np.float32)


def in_javascript(program: Any, rows: Tensor, folder: Path) -> np.ndarray:
    if shutil.which("node") is None:
        pytest.skip("no node")
    script = f"""{runtime({"act": program})}
        const agent = new Agent();
        const actions = {json.dumps(rows.tolist())}.map((row) => [...agent.step(row)]);
        console.log(JSON.stringify(actions));"""
    (folder / "net.js").write_text(script)
    done = subprocess.run(["node", folder / "net.js"], capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout), np.float32)


@pytest.mark.parametrize("run", [in_c, in_javascript])
@pytest.mark.parametrize(("network", "size"), NETWORKS, ids=["layers", "elementwise"])
def test_a_program_computes_what_torch_does(
    run: Callable[..., np.ndarray], network: nn.Module, size: int, tmp_path: Path
) -> None:
    rows = torch.randn(20, size, generator=torch.Generator().manual_seed(1)) * 2
    with torch.no_grad():
        expected = [network(row, torch.tensor(False))["action"] for row in rows]
    got = run(program_of(network, size), rows, tmp_path)
    np.testing.assert_allclose(got, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_the_program_in_c_says_what_a_line_is(tmp_path: Path) -> None:
    network, size = NETWORKS[1]
    in_c(program_of(network, size), torch.zeros(1, size), tmp_path)
    without_first = "1.0 " * size
    done = subprocess.run([tmp_path / "net"], input=without_first, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert '"1 OBSERVATION"' in done.stderr


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(lambda x, conv: conv(x[None]), nn.Conv1d(1, 1, 2)), r"aten\.convolution"),
        (Network(lambda x: x + torch.randn(4)), r"aten\.randn.* draws random numbers"),
        (Network(lambda x: x.bfloat16() * x), r"bfloat16"),
        (Network(lambda x: x.sort().values), r"aten\.sort\.default cannot be exported to C"),
    ],
)
def test_what_has_no_translation_is_named(network: nn.Module, message: str) -> None:
    with pytest.raises(CapabilityError, match=message) as caught:
        program_of(network, 4)
    assert caught.value.hint == "use --to onnx"


@pytest.mark.parametrize(
    ("space", "noise", "what"),
    [
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), {}, "sees images"),
        (spaces.Box(-1, 1, (3,)), {"normal": 8}, "draws random numbers"),
    ],
)
def test_images_and_planning_are_refused(space: spaces.Box, noise: Any, what: str) -> None:
    graph: Any = SimpleNamespace(leaves={"": space}, noise=noise)
    with pytest.raises(CapabilityError, match=f"a policy that {what} cannot be exported to C"):
        policy_program(graph, "C")
