"""Precision: bfloat16, float16 with loss scaling, skipped steps; what is measured to be faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from line_family import LineModel, line_model
from torch import Tensor

from worldflux import create_world_model
from worldflux.core.batch import Batch
from worldflux.core.outputs import LossOutput
from worldflux.core.precision import COMPUTE_TYPES
from worldflux.errors import ConfigurationError, TrainingError
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import Callback
from worldflux.training.precision import Precision
from worldflux.training.update import set_type


def batches(model: Any, count: int = 3) -> list[Batch]:
    torch.manual_seed(0)
    size, length = 4, 6
    shape = model.config.obs_shape
    return [
        Batch(
            obs=torch.randn(size, length, *shape),
            actions=torch.rand(size, length, model.config.action_dim) * 2 - 1,
            rewards=torch.randn(size, length),
            terminations=torch.zeros(size, length, dtype=torch.bool),
        )
        for _ in range(count)
    ]


def config(folder: Path, **values: Any) -> TrainingConfig:
    return TrainingConfig(output_dir=str(folder), device="cpu", **values)


def weights(model: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("settings", "dtype", "expected"),
    [
        ({}, "float32", "float32"),
        ({"mixed_precision": True}, "float32", "bfloat16"),
        ({"mixed_precision": True}, "float16", "float16"),
        ({}, "float16", "float16"),
        ({}, "bfloat16", "bfloat16"),
        ({"precision": "bfloat16"}, "float32", "bfloat16"),
        ({"precision": "float16"}, "float32", "float16"),
        ({"precision": "auto"}, "float32", None),
        ({"precision": "auto"}, "bfloat16", "bfloat16"),
    ],
)
def test_which_type_computes(settings: dict[str, Any], dtype: str, expected: str | None) -> None:
    model = line_model()
    model.config = model.config.with_overrides(dtype=dtype)
    assert set_type(TrainingConfig(**settings), model) == expected


def test_mixed_precision_is_no_second_choice() -> None:
    with pytest.raises(ConfigurationError, match="left out with mixed_precision"):
        TrainingConfig(mixed_precision=True, precision="auto")


class Watched(LineModel):
    """Notes the type that its layer computed in."""

    seen: torch.dtype | None = None

    def loss(self, batch: Batch) -> LossOutput:
        inputs = torch.cat([batch.obs, batch.actions], -1)  # type: ignore[list-item]
        self.seen = self.line(inputs).dtype
        return super().loss(batch)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_layers_compute_in_the_type_and_weights_stay_whole(tmp_path: Path, dtype: str) -> None:
    model = Watched(line_model().config.with_overrides(dtype=dtype))
    trainer = Trainer(model, config(tmp_path, mixed_precision=True, total_steps=3))
    before = weights(model)
    trainer.train(batches(model))
    assert model.seen is getattr(torch, dtype)
    assert weights(model).dtype is torch.float32
    assert not torch.equal(weights(model), before)
    assert ("loss_scale" in trainer.metrics) == (dtype == "float16")


@pytest.mark.parametrize("name", ["dreamer:ci", "tdmpc2:ci"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_both_families_learn_in_half_precision(tmp_path: Path, name: str, dtype: str) -> None:
    shapes = {"obs_shape": (3,), "action_dim": 1, "dtype": dtype}
    further = {"actor_critic": True, "imagination_horizon": 3} if name == "dreamer:ci" else {}
    model = create_world_model(name, **shapes, **further)
    before = weights(model)
    # The scale starts high: the first steps in float16 may be skipped.
    settings = config(tmp_path, mixed_precision=True, total_steps=12)
    metrics = Trainer(model, settings).train(batches(model)).metrics
    assert torch.isfinite(weights(model)).all()
    assert not torch.equal(weights(model), before)
    assert all(value == 0.0 for key, value in metrics.items() if key.startswith("skipped/"))
    whole = create_world_model(name, **{**shapes, "dtype": "float32"}, **further)
    whole.load_state_dict(model.state_dict())
    batch = batches(model)[0]
    torch.manual_seed(5)
    exact = whole.loss(batch).loss
    torch.manual_seed(5)
    with torch.autocast("cpu", getattr(torch, dtype)):
        rounded = model.loss(batch).loss
    assert rounded.item() == pytest.approx(exact.item(), rel=0.1)


class Overflowing(LineModel):
    """A gradient that overflows float16 while the loss scale is above a limit."""

    limit = 1024.0
    scale_now = 0.0

    def loss(self, batch: Batch) -> LossOutput:
        output = super().loss(batch)
        output.loss.register_hook(self._overflow)
        return output

    def _overflow(self, gradient: Tensor) -> Tensor:
        return gradient * torch.inf if float(gradient.abs()) > self.limit else gradient


class Steps(Callback):
    def __init__(self) -> None:
        self.skipped: list[float] = []
        self.scales: list[float] = []
        self.weights: list[Tensor] = []

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.skipped.append(metrics["skipped/line"])
        self.scales.append(metrics["loss_scale"])
        self.weights.append(weights(trainer.model))


def test_infinite_steps_are_skipped_and_the_scale_halves(tmp_path: Path) -> None:
    model = Overflowing(line_model().config.with_overrides(dtype="float16"))
    before, steps = weights(model), Steps()
    trainer = Trainer(model, config(tmp_path, mixed_precision=True, total_steps=9), [steps])
    trainer.train(batches(model))
    # 65536 is six halvings above the limit.
    assert steps.skipped == [1.0] * 6 + [0.0] * 3
    assert steps.scales[:7] == [65536 / 2**n for n in (1, 2, 3, 4, 5, 6, 6)]
    assert torch.equal(steps.weights[5], before)
    assert not torch.equal(steps.weights[6], before)


def test_the_scale_is_in_the_checkpoint(tmp_path: Path) -> None:
    settings = config(tmp_path, mixed_precision=True, total_steps=4)
    model = Overflowing(line_model().config.with_overrides(dtype="float16"))
    Trainer(model, settings).train(batches(model))
    again = Trainer(Overflowing(model.config), settings)
    again.load_checkpoint()
    assert again.updater.scaler.state_dict()["scale"] == 65536 / 2**4


def test_a_gradient_that_no_scale_explains_stops_the_run(tmp_path: Path) -> None:
    model = Overflowing(line_model().config.with_overrides(dtype="float16"))
    model.limit = 0.0
    before = weights(model)
    trainer = Trainer(model, config(tmp_path, mixed_precision=True, total_steps=40))
    with pytest.raises(TrainingError, match="grad_norm/line became"):
        trainer.train(batches(model))
    assert trainer.step == 16  # from 65536 down to 1
    assert torch.equal(weights(model), before)


# ------------------------------------------------------------------ acting, and what is measured


@pytest.mark.parametrize("name", ["dreamer:ci", "tdmpc2:ci", "bmpc:ci"])
def test_acting_computes_in_its_type_and_returns_whole_numbers(name: str) -> None:
    model = create_world_model(name, obs_shape=(3,), action_dim=2)
    seen: set[torch.dtype] = set()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda layer, given, result: seen.add(result.dtype))
    model.acting_dtype = torch.bfloat16
    first, carry = torch.ones(4, dtype=torch.bool), model.initial_carry(4)
    for act in model.policies().values():
        action, _ = act(torch.randn(4, 3), carry, first, explore=True)
        assert action.dtype is torch.float32
        assert torch.isfinite(action).all()
    assert seen == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", ["tdmpc2:ci", "bmpc:ci"])
def test_between_proposals_the_caller_computes_as_it_likes(name: str) -> None:
    model = create_world_model(name, obs_shape=(3,), action_dim=2)
    model.acting_dtype = torch.bfloat16
    first, obs = torch.ones(1, dtype=torch.bool), torch.randn(1, 3)
    torch.manual_seed(0)
    actions = []
    for proposal in model.proposals(obs, model.initial_carry(1), first, explore=False):
        actions.append(proposal.action)
        assert not torch.is_autocast_enabled("cpu")
    torch.manual_seed(0)
    planned, _ = model.policy(obs, model.initial_carry(1), first, explore=False)
    assert torch.equal(actions[-1], planned)


def timed(update: float, act: float) -> Any:
    """Stands in for the stop-watch: what bfloat16 takes of float32's time."""
    return lambda model, config, batch, envs, name: (
        (update, act) if name == "bfloat16" else (1.0, 1.0)
    )


@pytest.mark.parametrize(
    ("update", "act", "learning", "acting"),
    [
        (0.5, 1.2, "bfloat16", "float32"),
        (1.2, 0.5, "float32", "bfloat16"),
        (0.95, 0.95, "float32", "float32"),
    ],
)
def test_what_is_faster_is_chosen_for_each(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    update: float,
    act: float,
    learning: str,
    acting: str,
) -> None:
    monkeypatch.setattr("worldflux.training.precision.seconds_of", timed(update, act))
    model = line_model()
    trainer = Trainer(model, config(tmp_path, precision="auto", total_steps=2))
    assert trainer.precision is None
    trainer.train(batches(model))
    assert trainer.precision is not None
    assert (trainer.precision.learning, trainer.precision.acting) == (learning, acting)
    assert f"{update:.2f} and {act:.2f}" in str(trainer.precision)
    assert trainer.updater.dtype is COMPUTE_TYPES[learning]
    assert model.acting_dtype is COMPUTE_TYPES[acting]


def test_a_resumed_run_keeps_what_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, precision="auto", total_steps=2)
    monkeypatch.setattr("worldflux.training.precision.seconds_of", timed(0.5, 0.5))
    Trainer(line_model(), settings).train(batches(line_model()))
    monkeypatch.setattr("worldflux.training.precision.seconds_of", timed(2.0, 2.0))
    again = Trainer(line_model(), settings.with_overrides(total_steps=4))
    again.train(batches(line_model()), resume_from="last")
    assert again.precision is not None
    assert again.precision.learning == "bfloat16"
    assert again.updater.dtype is torch.bfloat16


class Uninterested(Trainer):
    """Measures, and computes in float32 all the same."""

    def use_precision(self, precision: Precision) -> None:
        self.precision = precision


def test_measuring_draws_no_number_of_the_run(tmp_path: Path) -> None:
    begun = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    found = []
    for kind, precision in ((Trainer, "float32"), (Uninterested, "auto")):
        model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
        model.load_state_dict(begun.state_dict())
        trainer = kind(model, config(tmp_path / precision, precision=precision, total_steps=3))
        trainer.train(batches(model))
        assert trainer.precision is not None
        found.append(weights(model))
    assert torch.equal(*found)
