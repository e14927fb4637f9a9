"""The compiled imagined step gives eager numbers; what cannot be compiled goes on eagerly."""

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
from worldflux.models.dreamerv3.rssm import RSSM, RSSMDynamics

# torch's tracer meets warnings of torch's own; without this it fails on them.
pytestmark = pytest.mark.filterwarnings("default")


def small() -> DreamerV3WorldModel:
    torch.manual_seed(0)
    config = DreamerV3Config.from_size("ci", obs_shape=(3,), action_dim=2, actor_critic=True)
    return DreamerV3WorldModel(config)


def updated(model: DreamerV3WorldModel) -> dict[str, torch.Tensor]:
    """Parameters after one update from a fixed seed."""
    generator = torch.Generator().manual_seed(1)
    rows = 5 + model.config.replay_context
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


def test_a_whole_graph_of_the_imagined_step_learns_the_same() -> None:
    torch._dynamo.reset()
    eager = small()
    traced = copy.deepcopy(eager)
    traced._imagined = torch.compile(RSSM.imagined, backend="aot_eager", fullgraph=True)
    before = {name: value.clone() for name, value in eager.state_dict().items()}
    expected, found = updated(eager), updated(traced)
    assert any(not torch.equal(before[name], expected[name]) for name in before)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_it_is_asked_for_and_goes_back_where_compiling_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    model, eager = small(), small()
    model.compile_for_training(told.append)
    assert isinstance(model._imagined, CompiledFunction)

    def refuses(*args: object) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, OSError("no compiler"), None)

    model._imagined._compiled = refuses  # type: ignore[assignment]
    assert_close(updated(model), updated(eager), rtol=0, atol=0)
    assert told == ["OSError: no compiler"]
    assert model._imagined is RSSM.imagined


def test_a_replaced_part_is_not_compiled() -> None:
    model = small()
    model.replace_component("dynamics_model", RSSMDynamics(model.rssm))
    with pytest.raises(ConfigurationError, match="own dynamics"):
        model.compile_for_training(print)
