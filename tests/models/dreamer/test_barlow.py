"""Agents without a decoder: the Barlow loss at its edges, and a probe that changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from worldflux.core.learning import LearningOverrides
from worldflux.core.specs import Capability
from worldflux.errors import ConfigurationError, ShapeMismatchError
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.barlow import barlow_loss, barlow_terms

from .builders import IMAGE, SEVERAL, random_batch, small_config, small_model

BARLOW: dict[str, Any] = {"recipe": "official", "representation": "barlow"}


def test_a_constant_token_adds_one_and_its_rounding_no_more() -> None:
    """48 times 0.1 has a mean that is not exactly 0.1: the spread that is left is rounding."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 12, 6, generator=generator)
    tokens = torch.randn(4, 12, 5, generator=generator)
    weight = torch.randn(5, 6, generator=generator)
    tokens[..., 2] = 0.1
    assert tokens[..., 2].std() > 0
    cross = barlow_terms(features, tokens, weight).cross
    assert (cross[:, 2] == 0).all()
    tokens[..., 2] = 0.0
    assert torch.equal(barlow_terms(features, tokens, weight).cross, cross)


def test_a_small_honest_spread_counts() -> None:
    """What is constant is judged by its mean, not by a threshold."""
    generator = torch.Generator().manual_seed(0)
    features, tokens = (torch.randn(4, 12, width, generator=generator) for width in (6, 5))
    weight = torch.randn(5, 6, generator=generator)
    tiny = barlow_terms(features, 1e-4 * (tokens - tokens.mean((0, 1))), weight).cross
    assert_close(tiny, barlow_terms(features, tokens, weight).cross, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32_whatever_the_precision(dtype: torch.dtype) -> None:
    features, tokens, weight = torch.randn(4, 12, 6), torch.randn(4, 12, 5), torch.randn(5, 6)
    tokens[..., 0] = 3.0  # in float16 0 / (0 + epsilon) would be 0 / 0
    exact = barlow_loss(features, tokens, weight, 5e-4)
    with torch.autocast("cpu", dtype):
        assert torch.equal(barlow_loss(features, tokens, weight, 5e-4), exact)
    model = small_model(dtype=str(dtype).removeprefix("torch."), **BARLOW)
    output = model.loss(random_batch(model))
    assert output.components["barlow"].dtype == torch.float32
    assert torch.isfinite(output.loss)


def test_a_single_step_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="2 steps in a batch"):
        small_config(batch_size=1, batch_length=1, **BARLOW)
    features, tokens, weight = torch.randn(2, 1, 6), torch.randn(2, 1, 5), torch.randn(5, 6)
    with pytest.raises(ShapeMismatchError, match="1 step"):
        barlow_loss(features[:1], tokens[:1], weight, 5e-4)
    assert_close(barlow_terms(features, tokens, weight).cross.abs(), torch.full((5, 5), 0.5))


@pytest.mark.parametrize("changes", [{}, IMAGE, SEVERAL], ids=["vector", "image", "several"])
def test_without_a_decoder_nothing_decodes(changes: dict[str, Any]) -> None:
    model = small_model(**BARLOW, **changes)
    assert not [name for name, _ in model.named_parameters() if name.startswith("decoder.")]
    assert not model.supports(Capability.OBS_DECODER)
    state = model.rssm.initial(2).state()
    assert model.decode(state).predictions.keys() == {"reward", "continue", "value"}
    output = model.loss(random_batch(model))
    assert "reconstruction" not in output.components
    output.loss.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    with pytest.raises(ConfigurationError, match="decoder_module"):
        model.replace_component("decoder_module", model.decoder_module)


def test_a_probe_is_of_no_use_beside_a_decoder() -> None:
    with pytest.raises(ConfigurationError, match="has a decoder"):
        small_config(probe_decoder=True)


def updated(model: DreamerV3WorldModel, overrides: LearningOverrides, count: int) -> None:
    """Several updates as the Trainer makes them."""
    batch = random_batch(model)
    phases = model.phases(overrides)
    torch.manual_seed(5)
    for _ in range(count):
        scratch: dict[str, Tensor] = {}
        for phase in phases:
            phase.optimizer.zero_grad(set_to_none=True)
            phase.loss(batch, scratch).loss.backward()
            if phase.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip)
            phase.optimizer.step()
        model.after_update(scratch)


@pytest.mark.parametrize("optimizer", ["laprop", "adam"])
@pytest.mark.parametrize("changes", [{}, SEVERAL], ids=["vector", "several"])
def test_a_probe_decoder_learns_and_changes_nothing_else(
    changes: dict[str, Any], optimizer: str
) -> None:
    """Weights and random streams are bitwise those of the agent without it, clipped or not."""
    overrides = LearningOverrides(optimizer=optimizer, grad_clip=0.5, learning_rate=3e-3)
    fields = {**BARLOW, **changes, "lr_warmup_updates": 1}
    models, streams = [], []
    for probe in (False, True):
        torch.manual_seed(0)
        model = DreamerV3WorldModel(small_config(probe_decoder=probe, **fields))
        streams.append(torch.get_rng_state())
        before = copy.deepcopy(model.state_dict())
        updated(model, overrides, 3)
        models.append(model.state_dict())
    plain, probed = models
    assert torch.equal(*streams)
    assert all(torch.equal(value, probed[name]) for name, value in plain.items())
    own = probed.keys() - plain.keys()
    assert own
    assert all(name.startswith("decoder.") for name in own)
    assert not any(torch.equal(before[name], probed[name]) for name in own)
    assert model.supports(Capability.OBS_DECODER)
    decoded = model.decode(model.rssm.initial(2).state()).predictions
    assert len(decoded) == 3 + len(model.keys)


def test_a_probe_reaches_its_own_weights_only() -> None:
    model = small_model(**BARLOW, probe_decoder=True)
    _, probe = model.phases(LearningOverrides())
    scratch: dict[str, Tensor] = {}
    batch = random_batch(model)
    with torch.no_grad():
        model.first_loss(batch, scratch)
    probe.loss(batch, scratch).loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {name for name, _ in model.named_parameters() if name.startswith("decoder.")}
