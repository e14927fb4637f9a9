"""R2-Dreamer beside numbers recorded from the authors' code: its loss, and whole updates.

Its files are known by their keys, wherever they are below `--fixtures DIR`. Sizes, observations
and actions are read from the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.learning import LearningOverrides
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.barlow import barlow_terms
from worldflux.models.dreamerv3.losses import experience_of
from worldflux.models.dreamerv3.official import official_names

from .fixture_files import fixtures_root
from .test_dreamerv3 import (
    BARLOW_WEIGHTS,
    SCALES,
    Record,
    assert_close,
    check_tensors,
    observations,
    recorded_batch,
    recorded_model,
    tensor,
)

# Where the exact gradient is zero, only rounding is recorded: compared absolutely.
ROUNDING = 1e-5


def records(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for path in sorted(root.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            yield path, set(file.files)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = list(records(fixtures_root(metafunc.config)))
    if "loss_case" in metafunc.fixturenames:
        cases = [
            (path, name.removesuffix(":grad_kernel"))
            for path, names in found
            for name in sorted(names)
            if name.endswith(":grad_kernel") and name.count(":") == 1
        ]
        metafunc.parametrize("loss_case", cases, ids=[f"{p.stem}-{case}" for p, case in cases])
    if "update_path" in metafunc.fixturenames:
        chosen = [path for path, names in found if BARLOW_WEIGHTS in names]
        metafunc.parametrize("update_path", chosen, ids=[path.stem for path in chosen])


def test_the_loss_and_its_gradients(loss_case: tuple[Path, str]) -> None:
    path, case = loss_case
    with np.load(path, allow_pickle=False) as file:
        prefix = f"{case}:"
        record = {
            name.removeprefix(prefix): tensor(file[name])
            for name in file.files
            if name.startswith(prefix)
        }
    features = record["feat"].requires_grad_()
    weight = record["kernel"].t().contiguous().requires_grad_()
    terms = barlow_terms(features, record["embed"], weight)
    loss = terms.invariance + float(record["lambda"]) * terms.redundancy
    loss.backward()
    assert weight.grad is not None
    ours = {"loss": loss, "cross": terms.cross, **terms._asdict()}
    ours |= {"grad_feat": features.grad, "grad_kernel": weight.grad.t()}
    two_rows = features[..., 0].numel() == 2
    for name in sorted(ours.keys() & record.keys()):
        if two_rows and name.startswith("grad"):
            assert (ours[name] - record[name]).abs().max() <= ROUNDING, name
        else:
            assert_close(ours[name], record[name], name)


def observation_modalities(record: Record) -> dict[str, dict[str, Any]]:
    """What the agent observes, as the batch shows it: images `[B, T, H, W, C]` are uint8."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in record.items():
        name = key.removeprefix("batch0:")
        other = name.startswith(("is_", "dyn/", "action")) or name == "reward"
        if name == key or other:
            continue
        if value.dtype == np.uint8:
            height, width, channels = value.shape[2:]
            found[name] = {"kind": "image", "shape": [channels, height, width]}
        else:
            found[name] = {"kind": "vector", "shape": list(value.shape[2:]) or [1]}
    return found


def test_whole_updates(update_path: Path) -> None:
    """Tokens, latents, the Barlow gradient alone, all losses and gradients, and the steps."""
    record = dict(np.load(update_path, allow_pickle=False))
    model = recorded_model(
        record,
        "param0:",
        int(record["cfg:classes"]),
        observation_modalities=observation_modalities(record),
        imagination_horizon=int(record["cfg:imag_length"]),
        learning_rate=float(record["cfg:lr"]),
        lr_warmup_updates=int(record["cfg:warmup"]),
        loss_scales={"barlow": float(record["cfg:barlow_scale"])},
        barlow_lambda=float(record["cfg:barlow_lambda"]),
    )
    assert model.decoder is None
    assert model.config.blocks == int(record["cfg:blocks"])
    (phase,) = model.phases(LearningOverrides())
    updates = len([key for key in record if key.startswith("loss") and key[4:].isdigit()])
    for index in range(updates):
        check_rollout(model, record, index)
        scratch: dict[str, Tensor] = {}
        phase.optimizer.zero_grad(set_to_none=True)
        output = phase.loss(recorded_batch(record, index, model), scratch)
        check_barlow_gradients(model, record, index, output.components["barlow"])
        output.loss.backward()
        assert_close(output.loss, record[f"loss{index}"], f"loss {index}")
        for ours, theirs in {**SCALES, "barlow": "barlow"}.items():
            assert_close(output.components[ours], record[f"met{index}:loss/{theirs}"], theirs)
        check_tensors(model, record, f"grad{index}:", gradients=True)
        phase.optimizer.step()
        written = model.after_update(scratch)
        check_tensors(model, record, f"param{index + 1}:")
        check_tensors(model, record, f"state{index + 1}:")
        assert_close(written["deter"], record[f"replay{index}:dyn/deter"], "deter")


def check_rollout(model: DreamerV3WorldModel, record: Record, index: int) -> None:
    batch = recorded_batch(record, index, model)
    with torch.no_grad():
        seen, zero = (
            observations(record, f"batch{index}:", model),
            model.rssm.initial(len(batch.rewards)),
        )
        data = experience_of(batch, seen, batch.actions, 1, zero)
        tokens = model.encoder(data.observations)
        found = model.rssm.observe(tokens, data.previous_actions, data.first, data.initial, None)
        ours = {
            "tokens": tokens,
            "deter": found.latent.deter,
            "stoch": found.latent.stoch,
            "post": found.logits,
            "prior": model.rssm.prior_logits(found.latent.deter),
        }
        for name, value in ours.items():
            assert_close(value, record[f"out{index}:{name}"], name)
        assert model.projector is not None
        terms = barlow_terms(found.latent.features(), tokens, model.projector.weight)
        for name in ("invariance", "redundancy"):
            recorded = record[f"met{index}:barlow/{name}"]
            assert_close(getattr(terms, name), recorded, name)


def check_barlow_gradients(
    model: DreamerV3WorldModel, record: Record, index: int, loss: Tensor
) -> None:
    """The Barlow loss alone reaches exactly the recorded tensors, with the recorded gradients."""
    official = official_names(model)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learned.values()), retain_graph=True, allow_unused=True)
    gradients = {
        official[name].name: (gradient, official[name].axes)
        for name, gradient in zip(learned, found, strict=True)
        if gradient is not None
    }
    prefix = f"gradb{index}:"
    recorded = {key.removeprefix(prefix) for key in record if key.startswith(prefix)}
    assert gradients.keys() == recorded
    for name, (gradient, axes) in gradients.items():
        expected = tensor(record[prefix + name])
        assert_close(gradient, expected if axes is None else expected.permute(axes), name)
