"""NaN and infinity put into every place of an update, in both families."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import set_seed
from worldflux.core.outputs import LossOutput
from worldflux.core.saved_model import load_tensors
from worldflux.errors import NonFiniteError
from worldflux.factory import create_world_model
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import Callback
from worldflux.training.divergence import MAX_BYTES, optimizer_tensors

FAMILIES = ("tdmpc2:ci", "dreamer:ci")
AT = 3  # updates that are good before the bad one
PLACES = ("observation", "reward", "loss", "gradient", "weight")
CASES = tuple(itertools.product(FAMILIES, PLACES, (math.nan, math.inf)))
# What the error must name.
NAMED = {
    "observation": "batch obs",
    "reward": "batch rewards",
    "loss": "loss",
    "gradient": "gradient of ",
    "weight": "weight ",
}


def trainer_of(family: str, folder: Path, **settings: Any) -> Trainer:
    """A trainer of the smallest model of a family, for vectors of three and one action."""
    set_seed(0)
    short: dict[str, Any] = {"horizon": 2}
    if family.startswith("dreamer"):
        short = {"actor_critic": True, "imagination_horizon": 3}
    model = create_world_model(family, obs_shape=(3,), action_dim=1, **short)
    values = {"total_steps": 20, "save_interval": 2, "device": "cpu", **settings}
    return Trainer(model, TrainingConfig(output_dir=str(folder), **values))


def batches(count: int, seed: int = 0) -> list[Batch]:
    """Random batches `[4, 6, ...]`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(4, 6, *shape, generator=generator)

    no = torch.zeros(4, 6, dtype=torch.bool)
    return [Batch(draw(3), draw(1).clamp(-1, 1), draw(), no, no, no, {}) for _ in range(count)]


class Injection(Callback):
    """Puts `value` into one place right before update number `AT` (0-based), once."""

    def __init__(self, place: str, value: float, data: list[Batch], phase: int = 0) -> None:
        self.place, self.value, self.data, self.phase = place, value, data, phase
        self.before: list[Tensor] = []
        self.done = False

    def on_step_begin(self, trainer: Trainer) -> None:
        if trainer.step != AT or self.done:
            return
        self.done = True
        getattr(self, f"_into_{self.place}")(trainer)
        self.before = all_tensors(trainer)

    def _into_observation(self, trainer: Trainer) -> None:
        assert isinstance(self.data[AT].obs, Tensor)
        self.data[AT].obs[1, 2, 0] = self.value

    def _into_reward(self, trainer: Trainer) -> None:
        self.data[AT].rewards[2, 1] = self.value

    def _into_loss(self, trainer: Trainer) -> None:
        phase = trainer.phases[self.phase]
        loss = phase.loss

        def broken(batch: Batch, scratch: dict[str, Tensor]) -> LossOutput:
            output = loss(batch, scratch)
            phase.loss = loss
            return LossOutput(output.loss * self.value, output.components, output.metrics)

        phase.loss = broken

    def _into_gradient(self, trainer: Trainer) -> None:
        parameter = trainer.phases[self.phase].parameters[0]

        def broken(gradient: Tensor) -> Tensor:
            handle.remove()
            gradient = gradient.clone()
            gradient.view(-1)[0] = self.value
            return gradient

        handle = parameter.register_hook(broken)

    def _into_weight(self, trainer: Trainer) -> None:
        with torch.no_grad():
            trainer.phases[self.phase].parameters[0].view(-1)[0] = self.value


def all_tensors(trainer: Trainer) -> list[Tensor]:
    """Copies of every weight, buffer and optimiser tensor."""
    named = [*trainer.model.state_dict().items(), *optimizer_tensors(trainer.phases)]
    return [tensor.detach().clone() for _, tensor in named]


def injected(
    folder: Path, family: str, place: str, value: float, phase: int = 0
) -> dict[str, bool]:
    """Inject once; what held of: stopped at once, nothing changed, named, kept, nothing saved."""
    data = batches(8)
    injection = Injection(place, value, data, phase)
    trainer = trainer_of(family, folder)
    trainer.add_callback(injection)
    try:
        trainer.train(data)
    except NonFiniteError as error:
        message, where, code = error.message, str(error.where), error.exit_code
    else:
        return {"stopped": False}
    after = all_tensors(trainer)
    kept = folder / "failures" / f"step-{AT:09d}"
    size = sum(path.stat().st_size for path in kept.iterdir())
    return {
        "stopped": trainer.step == AT and code == 1,
        "unchanged": len(after) == len(injection.before)
        and all(map(_same_bits, after, injection.before)),
        "named": where.startswith(NAMED[place]) and f"update {AT + 1}" in message,
        "kept": {"batch.safetensors", "report.json"} <= {p.name for p in kept.iterdir()}
        and size <= MAX_BYTES,
        "last good": "step-000000002" in message and trainer.store.steps() == [2],
        "checkpoints finite": all(map(_finite, trainer.store.path(2).glob("*.safetensors"))),
    }


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(1.5), other.nan_to_num(1.5))


def _finite(path: Path) -> bool:
    return all(
        bool(torch.isfinite(t).all()) for t in load_tensors(path).values() if t.is_floating_point()
    )


def rolled_back(folder: Path, family: str) -> bool:
    """With `max_rollbacks` the run goes back, halves its rate and ends; it says what it did."""
    warnings: list[str] = []

    class Listen(Callback):
        def on_warning(self, trainer: Trainer, message: str) -> None:
            warnings.append(message)

    data = batches(20)
    trainer = trainer_of(family, folder, max_rollbacks=1, total_steps=6)
    trainer.add_callback(Injection("loss", math.nan, data))
    trainer.add_callback(Listen())
    rate = trainer.phases[0].optimizer.param_groups[0]["lr"]
    result = trainer.train(data)
    halved = trainer.phases[0].optimizer.param_groups[0]["lr"] == rate / 2
    reported = len(warnings) == 1 and "step-000000002" in warnings[0]
    return (
        result.step == 6 and halved and reported and trainer.rollbacks[0]["to"] == "step-000000002"
    )
