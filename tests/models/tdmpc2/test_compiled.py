"""Compiled functions give eager numbers; what cannot be compiled goes on eagerly, and is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch.testing import assert_close

from worldflux.core.compilation import CompiledFunction
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.errors import ConfigurationError
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.project.signals import Interrupted, interrupt
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import Callback

from .builders import random_batch, small_model

# torch's tracer and code generator meet warnings of torch's own; without this they fail on them.
pytestmark = pytest.mark.filterwarnings("default")

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler on this machine"
)


def traced(model: TDMPC2WorldModel) -> dict[str, Any]:
    """Whole graphs without generated code: seconds, where C++ takes minutes."""
    torch._dynamo.reset()

    def whole(function: Any) -> Any:
        return torch.compile(function, backend="aot_eager", fullgraph=True)

    return {name: whole(function) for name, function in model.functions.items()}


def updated(model: TDMPC2WorldModel) -> dict[str, torch.Tensor]:
    """Parameters after one update from a fixed seed."""
    torch.manual_seed(0)
    batch, scratch = random_batch(model.config), Scratch()
    for phase in model.phases(LearningOverrides()):
        phase.loss(batch, scratch).loss.backward()
        phase.optimizer.step()
    model.after_update(scratch)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"horizon": 2, "dropout": 0.1, "episodic": True},
        {"num_tasks": 2, "task_dim": 4, "task_action_dims": (2, 1), "horizon": 2},
    ],
    ids=["episodic", "two tasks"],
)
def test_an_update_is_traced_whole_and_gives_eager_parameters(changes: dict[str, Any]) -> None:
    eager, compiled = small_model(**changes), small_model(**changes)
    compiled.functions, compiled.networks.heads_as_indices = traced(compiled), True
    expected, got = updated(eager), updated(compiled)
    for name, value in expected.items():
        assert_close(got[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_plan_is_traced_whole_and_gives_the_eager_action() -> None:
    model = small_model()
    obs, first = torch.randn(2, 5), torch.ones(2, dtype=torch.bool)

    def act() -> torch.Tensor:
        torch.manual_seed(1)
        return model.policy(obs, model.initial_carry(2), first, explore=True)[0]

    expected = act()
    model.functions, model.networks.heads_as_indices = traced(model), True
    assert_close(act(), expected, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_generated_code_gives_eager_rewards() -> None:
    """Of one head, for plain processors: every further kernel costs ten seconds of C++."""
    model = small_model()
    rows = model.networks.rows(
        torch.rand(16, model.config.latent_dim), torch.rand(16, 2), model.networks.single_task
    )

    def rewards(given: torch.Tensor) -> torch.Tensor:
        return model.networks.mean(model.networks.reward(given))

    told: list[str] = []
    compiled = CompiledFunction(rewards, told.append)
    with torch.no_grad(), inductor.patch({"cpp.vec_isa_ok": False}):
        assert_close(compiled(rows), rewards(rows), rtol=1e-5, atol=1e-5)
    assert told == []


@pytest.mark.parametrize("named", [True, False])
def test_what_is_compiled_is_kept_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "named"))
    if not named:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("WORLDFLUX_CACHE_DIR", str(tmp_path / "cache"))
    CompiledFunction(torch.sin, [].append)
    assert cache_dir() == str(tmp_path / ("named" if named else "cache/compiled"))


def test_a_signal_while_it_compiles_is_no_failure_to_compile() -> None:
    torch._dynamo.reset()
    told: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        interrupt()

    with pytest.raises(Interrupted):
        CompiledFunction(torch.sin, told.append, backend=backend)(torch.ones(2))
    assert told == []


def test_without_a_compiler_training_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    told: list[str] = []

    class Listen(Callback):
        def on_warning(self, trainer: Trainer, message: str) -> None:
            told.append(message)

    def trained(**chosen: Any) -> TDMPC2WorldModel:
        model = small_model(horizon=1)
        config = TrainingConfig(
            total_steps=2, output_dir=str(tmp_path / "run"), device="cpu", **chosen
        )
        torch.manual_seed(0)
        batches = [random_batch(model.config) for _ in range(2)]
        Trainer(model, config, [Listen()], seed_streams=False).train(batches)
        return model

    missing = {"cpp.cxx": (str(tmp_path / "no-compiler"),), "force_disable_caches": True}
    with inductor.patch(missing):
        compiled = trained(compile=True)
    assert len(told) == 1
    assert told[0].startswith("compile_fallback")
    assert "InvalidCxxCompiler" in told[0]
    expected = trained().state_dict()
    for name, value in compiled.state_dict().items():
        assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_another_part_in_a_slot_is_not_compiled_in_silence() -> None:
    model = small_model()
    model.replace_component("decoder_module", small_model().decoder_module)
    with pytest.raises(ConfigurationError, match="component slot"):
        model.compile_for_training(print)
