"""With `training.compile` on a GPU an update is a recorded graph that gives the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldflux import Batch, LossOutput, create_world_model
from worldflux.core.learning import LearningOverrides, set_seed
from worldflux.training.config import TrainingConfig
from worldflux.training.update import Updater

from .test_precision import batches

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(name: str, graphs: bool) -> tuple[Tensor, list[float], Tensor]:
    """Weights, losses and the state of the generator after eight updates."""
    set_seed(0)
    changes = {"actor_critic": True} if name.startswith("dreamer") else {}
    model = create_world_model(name, obs_shape=(5,), action_dim=2, **changes).to("cuda").eval()
    updater = Updater(model, model.phases(LearningOverrides()), TrainingConfig())
    said: list[str] = []
    model.compile_for_training(said.append)
    if graphs:
        updater.use_graphs(said.append)
    losses = []
    for batch in batches(model, 8):
        metrics, scratch = updater.update(batch.to("cuda"), 1.0)
        model.after_update(scratch)
        losses.append(metrics["loss/model"])
    assert said == []
    assert (updater._graphs is not None) == graphs
    if updater._graphs is not None:
        assert updater._graphs._recordings
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights.cpu(), losses, torch.cuda.get_rng_state()


@pytest.mark.parametrize("name", ["dreamerv3:ci", "tdmpc2:ci"])
def test_graphs_change_no_number(name: str) -> None:
    weights, losses, random = trained(name, graphs=True)
    expected_weights, expected_losses, expected_random = trained(name, graphs=False)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-6)
    assert torch.equal(random, expected_random)  # so a resumed run draws the same


def test_a_loss_that_waits_for_the_gpu_goes_on_without_a_graph() -> None:
    set_seed(0)
    changes = {"actor_critic": True}
    model = create_world_model("dreamerv3:ci", obs_shape=(5,), action_dim=2, **changes).to("cuda")
    updater = Updater(model, model.phases(LearningOverrides()), TrainingConfig())
    model.steady_updates, said, plain = True, [], model.loss
    updater.use_graphs(said.append)

    def waits(batch: Batch) -> LossOutput:
        output = plain(batch)
        assert output.loss.item() != 0
        return output

    model.loss = waits  # type: ignore[method-assign]
    for batch in batches(model, 6):
        updater.update(batch.to("cuda"), 1.0)
    (reason,) = said
    assert "synchroniz" in reason
