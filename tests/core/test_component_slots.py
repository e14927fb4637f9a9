"""Every slot of both families takes a part by id, class, factory or instance, and uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux import (
    Batch,
    ConditionPayload,
    ConfigurationError,
    ModelOutput,
    State,
    Trajectory,
    WorldModel,
    create_world_model,
)
from worldflux.core.components import COMPONENT_SLOTS
from worldflux.core.rollout import AutoregressiveRollout

FAMILIES: dict[str, dict[str, Any]] = {
    "dreamer:ci": {"actor_critic": True, "imagination_horizon": 3},
    "tdmpc2:ci": {"horizon": 3, "num_samples": 32, "num_elites": 4, "num_pi_trajs": 4},
}
SHAPES = {"obs_shape": (5,), "action_dim": 2}


class OwnEncoder(nn.Module):
    """Tokens for DreamerV3's posterior, a latent for TD-MPC2; with weights of its own."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dreams = config.model_type == "dreamer"
        self.linear = nn.Linear(5, config.hidden_dim if self.dreams else config.latent_dim)

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        seen = torch.softmax(self.linear(observations["obs"]), -1)
        return State({"tokens" if self.dreams else "latent": seen})


class Paralysed:
    """Every action is no action."""

    def condition(self, state: State, action: Tensor | None, given: ConditionPayload) -> Tensor:
        assert action is not None
        nothing = torch.zeros_like(action)
        latent = state.get("latent")
        return nothing if latent is None else torch.cat([latent, nothing], -1)


class Standstill:
    """The next state is the state."""

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        if "latent" in state.tensors:
            return State({"latent": state["latent"], "reward": torch.zeros(state.batch_size)})
        tensors = {name: state[name] for name in ("deter", "stoch")}
        return State({**tensors, "logits": torch.zeros_like(state["stoch"])})


class FirstNumber:
    """Every prediction is read off the first numbers of the latent."""

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        z = state["latent"] if "latent" in state.tensors else state["deter"]
        first = z[:, 0]
        return ModelOutput(
            {"obs": z[:, :5], "reward": first, "value": first, "continue": torch.sigmoid(first)},
            state,
        )


class FirstActionAgain(AutoregressiveRollout):
    """Imagines the first action of a plan, again and again."""

    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        repeated = actions[:1].expand_as(actions)
        return super().rollout(model, initial_state, repeated, conditions, deterministic)


PARTS: dict[str, type] = {
    "observation_encoder": OwnEncoder,
    "action_conditioner": Paralysed,
    "dynamics_model": Standstill,
    "decoder_module": FirstNumber,
    "rollout_executor": FirstActionAgain,
}
# Where a part is at work. DreamerV3 acts without decoding or rolling out, and imagines under its
# policy instead of a given plan, so its loss does not go through the rollout executor.
EVERYWHERE = {"loss", "rollout", "acting"}
AT_WORK = {
    "dreamer:ci": {
        **dict.fromkeys(COMPONENT_SLOTS, EVERYWHERE),
        "decoder_module": {"loss", "rollout"},
        "rollout_executor": {"rollout"},
    },
    "tdmpc2:ci": dict.fromkeys(COMPONENT_SLOTS, EVERYWHERE),
}


def build(name: str, parts: dict[str, Any] | None = None) -> Any:
    """A model whose zero-initialised heads are perturbed, the same whatever its parts are."""
    torch.manual_seed(0)
    model = create_world_model(name, **SHAPES, **FAMILIES[name], component_overrides=parts)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in sorted(model.named_parameters()):
            if path.partition(".")[0] not in COMPONENT_SLOTS:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def effects(model: Any) -> dict[str, Tensor]:
    """Loss, an imagined trajectory and two actions, under fixed noise."""
    torch.manual_seed(2)
    length = 4
    batch = Batch(
        obs=torch.randn(3, length, 5),
        actions=torch.rand(3, length, 2) * 2 - 1,
        rewards=torch.randn(3, length),
        terminations=torch.zeros(3, length, dtype=torch.bool),
    )
    loss = model.loss(batch).loss.detach()
    state = model.encode(batch.obs[:, 0], deterministic=True)
    trajectory = model.rollout(state, batch.actions.transpose(0, 1), deterministic=True).detach()
    key = "latent" if "latent" in state.tensors else "deter"
    imagined = torch.cat([trajectory.to_tensor(key).flatten(), trajectory.rewards.flatten()])
    carry, first = model.initial_carry(3), torch.ones(3, dtype=torch.bool)
    actions = []
    for t in range(2):
        torch.manual_seed(3 + t)
        action, carry = model.policy(batch.obs[:, t], carry, first, explore=False)
        actions.append(action)
        first = torch.zeros(3, dtype=torch.bool)
    return {"loss": loss, "rollout": imagined, "acting": torch.cat(actions)}


@pytest.fixture(scope="module", params=FAMILIES)
def plain(request: pytest.FixtureRequest) -> tuple[str, dict[str, Tensor]]:
    return request.param, effects(build(request.param))


@pytest.mark.parametrize("slot", COMPONENT_SLOTS)
def test_a_part_is_at_work_where_its_slot_is(
    slot: str, plain: tuple[str, dict[str, Tensor]]
) -> None:
    name, before = plain
    after = effects(build(name, {slot: PARTS[slot]}))
    changed = {what for what, value in before.items() if not torch.equal(value, after[what])}
    assert changed == AT_WORK[name][slot]


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This module's parts as an installed distribution registers them."""
    info = tmp_path / "parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n")
    lines = [f"own-{slot} = own_parts:{part.__name__}" for slot, part in PARTS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[worldflux.components]", *lines]))
    (tmp_path / "own_parts.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    monkeypatch.syspath_prepend(str(tmp_path))


FORMS: dict[str, Callable[[str, Any], Any]] = {
    "id": lambda slot, config: f"own-{slot}",
    "class": lambda slot, config: PARTS[slot],
    "factory": lambda slot, config: lambda given: _made(slot, given),
    "factory of nothing": lambda slot, config: lambda: _made(slot, config),
    "instance": lambda slot, config: _made(slot, config),
}


def _made(slot: str, config: Any) -> Any:
    return PARTS[slot](config) if slot == "observation_encoder" else PARTS[slot]()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_parts_come_in_every_form(name: str, form: str) -> None:
    config = create_world_model(name, **SHAPES, **FAMILIES[name]).config
    parts = {slot: FORMS[form](slot, config) for slot in COMPONENT_SLOTS}
    model = create_world_model(name, **SHAPES, **FAMILIES[name], component_overrides=parts)
    for slot, given in parts.items():
        part = getattr(model, slot)
        assert type(part).__name__ == PARTS[slot].__name__
        assert form != "instance" or part is given
    assert effects(model)["acting"].shape == (6, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_fits_no_slot_is_refused(name: str) -> None:
    for parts, told in (
        ({"observationencoder": OwnEncoder}, "did you mean 'observation_encoder'"),
        ({"dynamics_model": Paralysed}, r"has no transition\(\)"),
        ({"dynamics_model": "nobodys"}, "no component is registered as 'nobodys'"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            create_world_model(name, **SHAPES, component_overrides=parts)
