"""Compiled functions give eager numbers; what cannot be compiled goes on eagerly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.batch import Batch
from worldflux.core.compilation import CompiledFunction
from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.errors import ConfigurationError
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.compiled import PIECE, in_pieces
from worldflux.models.dreamerv3.networks import TokenEncoder
from worldflux.models.dreamerv3.rssm import RSSMDynamics

# torch's tracer meets warnings of torch's own; without this it fails on them.
pytestmark = pytest.mark.filterwarnings("default")


def small(action_type: str = "continuous") -> DreamerV3WorldModel:
    torch.manual_seed(0)
    fields = {"obs_shape": (3,), "action_dim": 2, "action_type": action_type}
    return DreamerV3WorldModel(DreamerV3Config.from_size("ci", actor_critic=True, **fields))


def traced(model: DreamerV3WorldModel) -> DreamerV3WorldModel:
    """A copy whose functions are whole graphs, without a compiler."""
    torch._dynamo.reset()
    made = copy.deepcopy(model)
    made.functions = {
        name: torch.compile(function, backend="aot_eager", fullgraph=True)
        for name, function in model.functions.items()
    }
    made.functions["observed"] = in_pieces(made.functions["observed"])
    return made


def updated(model: DreamerV3WorldModel) -> dict[str, torch.Tensor]:
    """Parameters after one update from a fixed seed."""
    generator = torch.Generator().manual_seed(1)
    rows = PIECE + 2 + model.config.replay_context  # a piece of the recurrence, and a rest
    batch = Batch(
        obs=torch.randn(2, rows, 3, generator=generator),
        actions=torch.rand(2, rows, 2, generator=generator) * 2 - 1,
        rewards=torch.randn(2, rows, generator=generator),
        terminations=torch.zeros(2, rows, dtype=torch.bool),
        extras={
            "deter": torch.zeros(2, rows, model.config.deter_dim),
            "stoch": torch.zeros(2, rows, model.config.stoch_discrete),
        },
    )
    (phase,) = model.phases(LearningOverrides(learning_rate=1e-2))
    torch.manual_seed(2)
    for _ in range(2):
        scratch: Scratch = {}
        phase.optimizer.zero_grad()
        phase.loss(batch, scratch).loss.backward()
        phase.optimizer.step()
        model.after_update(scratch)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("action_type", ["continuous", "discrete"])
def test_whole_graphs_learn_the_same(action_type: str) -> None:
    eager = small(action_type)
    before = {name: value.clone() for name, value in eager.state_dict().items()}
    found, expected = updated(traced(eager)), updated(eager)
    assert any(not torch.equal(before[name], expected[name]) for name in before)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_whole_graphs_act_the_same() -> None:
    eager, acted = small(), []
    for model in (eager, traced(eager)):
        torch.manual_seed(3)
        carry, first = model.initial_carry(2), torch.tensor([True, False])
        actions = []
        for explore in (True, True, False, False):
            action, carry = model.policy(torch.ones(2, 3), carry, first, explore=explore)
            actions.append(action)
        acted.append((actions, carry))
    assert_close(acted[1], acted[0], rtol=1e-5, atol=1e-6)


def test_it_is_asked_for_and_goes_back_where_compiling_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*args: object) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, OSError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda function, **options: refuses)
    told: list[str] = []
    model, eager = small(), small()
    model.compile_for_training(told.append)
    assert isinstance(model.functions["imagined"], CompiledFunction)
    assert_close(updated(model), updated(eager), rtol=0, atol=0)
    assert told == ["OSError: no compiler"]
    assert model.functions == eager.functions


def test_of_a_model_with_a_replaced_encoder_only_the_recurrences_are_compiled() -> None:
    model, eager = small(), small()
    model.replace_component("observation_encoder", TokenEncoder(model.encoder))
    model.compile_for_training(print)
    changed = {n for n, function in model.functions.items() if function != eager.functions[n]}
    assert changed == {"observed", "imagined"}


def test_a_replaced_part_is_not_compiled() -> None:
    model = small()
    model.replace_component("dynamics_model", RSSMDynamics(model.rssm))
    with pytest.raises(ConfigurationError, match="own dynamics"):
        model.compile_for_training(print)
