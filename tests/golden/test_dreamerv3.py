"""DreamerV3 beside numbers recorded from the official implementation.

Every file of `--fixtures DIR` that holds a known kind of record is checked; what a record holds
(images or vectors, discrete or continuous actions, sizes) is read from the file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.models.dreamerv3 import DreamerV3Config, DreamerV3WorldModel
from worldflux.models.dreamerv3.config import ActionPart
from worldflux.models.dreamerv3.losses import imagination_loss, replay_value_loss
from worldflux.models.dreamerv3.maths import (
    BoundedNormal,
    MeanSquared,
    OneHotCategorical,
    ReturnNormalizer,
    SymexpTwohot,
    bernoulli_loss,
    entropy,
    kl_divergence,
    lambda_returns,
    straight_through,
    symexp_bins,
    unimix_probs,
)
from worldflux.models.dreamerv3.networks import ActionDistribution
from worldflux.models.dreamerv3.official import (
    import_official,
    load_official,
    official_config,
    official_names,
)
from worldflux.models.dreamerv3.rssm import Latent, squashed, to_codes
from worldflux.nn import LaProp

from .fixture_files import family_files

TOLERANCE = 1e-5

# A record of each kind is known by one of its keys.
KINDS = {
    "twohot": "pred_zero",
    "categorical": "dkl_da",
    "heads": "symlog_mse",
    "lambda_return": "lam",
    "retnorm": "offset_scale",
    "optimizer": "warmup",
    "network": "out:core",
    "imagination": "g_value",
    "replay": "repval",
    "training": "loss0",
}
BARLOW_WEIGHTS = "param0:prj/kernel"  # of an agent without a decoder: test_r2dreamer.py


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    files = family_files(metafunc.config, "dreamerv3", "*.npz")
    for kind, key in KINDS.items():
        name = f"{kind}_record"
        if name in metafunc.fixturenames:
            held = {path: np.load(path).files for path in files}
            chosen = [p for p, keys in held.items() if key in keys and BARLOW_WEIGHTS not in keys]
            records = [dict(np.load(path, allow_pickle=False)) for path in chosen]
            metafunc.parametrize(name, records, ids=[path.stem for path in chosen])
    if "network_path" in metafunc.fixturenames:
        chosen = [path for path in files if KINDS["network"] in np.load(path).files]
        metafunc.parametrize("network_path", chosen, ids=[path.stem for path in chosen])


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def assert_close(ours: Tensor, theirs: Any, what: str = "") -> None:
    """|ours - theirs| at most 1e-5 |theirs|, in the Euclidean norm of the whole tensor.

    Where zero is recorded, 1e-9 counts as zero.
    """
    expected = (theirs if isinstance(theirs, Tensor) else tensor(theirs)).float()
    ours = ours.detach().float()
    assert ours.shape == expected.shape, (what, ours.shape, expected.shape)
    scale, difference = expected.norm().item(), (ours - expected).norm().item()
    assert difference <= TOLERANCE * scale + 1e-9, f"{what}: {difference} against {scale}"


Record = dict[str, np.ndarray]


# --------------------------------------------------------------------------- functions


def test_twohot_prediction_loss_and_gradient(twohot_record: Record) -> None:
    bins = tensor(twohot_record["bins"])
    assert_close(symexp_bins(len(bins)), bins, "bins")
    logits = tensor(twohot_record["logits"]).requires_grad_()
    distribution = SymexpTwohot(logits, symexp_bins(len(bins)))
    (loss,) = distribution.loss(tensor(twohot_record["target"]))
    loss.sum().backward()
    assert_close(distribution.pred(), twohot_record["pred"], "pred")
    assert_close(loss, twohot_record["loss"], "loss")
    assert_close(logits.grad, twohot_record["grad"], "gradient")
    zero = SymexpTwohot(torch.zeros(1, len(bins)), symexp_bins(len(bins))).pred()
    assert zero.item() == float(twohot_record["pred_zero"].item()) == 0.0


def test_categorical_kl_entropy_and_straight_through(categorical_record: Record) -> None:
    record = categorical_record
    a, b = (tensor(record[name]).requires_grad_() for name in ("a", "b"))
    log_a, log_b = unimix_probs(a, 0.01).log(), unimix_probs(b, 0.01).log()
    kl = kl_divergence(log_a, log_b)
    grad_a, grad_b = torch.autograd.grad(kl.sum(), [a, b])
    assert_close(kl, record["kl"], "kl")
    assert_close(entropy(log_a).sum(-1), record["ent"], "entropy")
    assert_close(grad_a, record["dkl_da"], "d kl / d a")
    assert_close(grad_b, record["dkl_db"], "d kl / d b")

    one_hot = tensor(record["onehot"])
    drawn = straight_through(one_hot.argmax(-1), unimix_probs(a, 0.01))
    assert torch.equal(drawn.detach().round(), one_hot)
    (grad,) = torch.autograd.grad((drawn * tensor(record["w"])).sum(), a)
    assert_close(grad, record["straight_through_grad"], "straight-through gradient")

    plain = OneHotCategorical(a.detach())
    assert_close(plain.log_prob(one_hot), record["cat_logp"], "log-probability")
    assert_close(plain.entropy(), record["cat_ent"], "plain entropy")


def test_head_distributions(heads_record: Record) -> None:
    record = {name: tensor(value) for name, value in heads_record.items()}
    assert_close(bernoulli_loss(record["logit"], record["y"]), record["bin_loss"], "bernoulli")
    assert_close(torch.sigmoid(record["logit"]), record["bin_prob1"], "probability")
    normal = BoundedNormal(record["mean_raw"], record["std_raw"])
    assert_close(normal.std, record["std"], "std")
    assert_close(normal.log_prob(record["act"]), record["logp"], "log-probability")
    assert_close(normal.entropy(), record["ent"], "entropy")
    (squared,) = MeanSquared(record["mean_raw"], use_symlog=True).loss(record["t"])
    assert_close(squared.sum(-1), record["symlog_mse"], "symlog squared error")


def test_lambda_returns(lambda_return_record: Record) -> None:
    record = lambda_return_record
    last, term, rew, boot = (tensor(record[name]) for name in ("last", "term", "rew", "boot"))
    returns = lambda_returns(
        last.float(), term.float(), rew, boot, float(record["disc"]), float(record["lam"])
    )
    assert_close(returns, record["ret"], "returns")


def test_return_normaliser(retnorm_record: Record) -> None:
    normalizer = ReturnNormalizer()
    for values, (offset, scale) in zip(
        tensor(retnorm_record["xs"]), retnorm_record["offset_scale"], strict=True
    ):
        percentiles = normalizer.updated(values)
        normalizer.commit(percentiles)
        assert_close(percentiles[0], offset, "offset")
        assert_close(normalizer.scale(percentiles), scale, "scale")


def test_optimizer_steps(optimizer_record: Record) -> None:
    record = optimizer_record
    names = [key.removeprefix("p0:") for key in record if key.startswith("p0:")]
    weights = {name: tensor(record[f"p0:{name}"]).requires_grad_() for name in names}
    lr, warmup = float(record["lr"]), int(record["warmup"])
    optimizer = LaProp(weights.values(), lr=lr, warmup=warmup)
    steps = len(record[f"g:{names[0]}"])
    for n in range(steps):
        for name, weight in weights.items():
            weight.grad = tensor(record[f"g:{name}"][n])
        optimizer.step()
        for name, weight in weights.items():
            moved = weight.detach() - tensor(record[f"p0:{name}"])
            expected = record[f"p:{name}"][n] - record[f"p0:{name}"]
            assert_close(weight, record[f"p:{name}"][n], f"{name} after step {n + 1}")
            # The movement, too; recorded weights round at 1e-7 of their size.
            slack = 2e-7 * np.abs(record[f"p0:{name}"]).max()
            error = np.abs(moved.numpy() - expected).max()
            assert error <= TOLERANCE * np.abs(expected).max() + slack, (name, n)


def recorded_policy(record: Record) -> tuple[ActionDistribution, dict[str, Tensor], Tensor]:
    """The policy of an imagination record (all steps but the last), its leaves, the actions."""
    if "mean_raw" in record:
        leaves = {
            "g_mean": tensor(record["mean_raw"]).requires_grad_(),
            "g_std": tensor(record["std_raw"]).requires_grad_(),
        }
        actions = tensor(record["act"])
        part = ActionPart("action", "continuous", actions.shape[-1], 0)
        normal = BoundedNormal(leaves["g_mean"][:, :-1], leaves["g_std"][:, :-1])
        return ActionDistribution([part], [normal]), leaves, actions[:, :-1]
    raw = next(name for name in record if "logit" in name and name.startswith(("pol", "act")))
    gradient = next(name for name in record if name.startswith("g_") and name != "g_value")
    leaves = {gradient: tensor(record[raw]).requires_grad_()}
    actions = tensor(record["act"])
    if actions.ndim == 2:
        actions = F.one_hot(actions.long(), leaves[gradient].shape[-1])
    part = ActionPart("action", "discrete", actions.shape[-1], 0)
    categorical = OneHotCategorical(leaves[gradient][:, :-1])
    return ActionDistribution([part], [categorical]), leaves, actions[:, :-1].float()


def test_imagination_losses_and_gradients(imagination_record: Record) -> None:
    record = imagination_record
    policy, leaves, actions = recorded_policy(record)
    logits = tensor(record["value_logits"]).requires_grad_()
    bins = symexp_bins(logits.shape[-1])
    losses = imagination_loss(
        DreamerV3Config(recipe="official"),
        actions=actions,
        reward=tensor(record["rew"]),
        continues=tensor(record["con"]),
        policy=policy,
        value=SymexpTwohot(logits, bins),
        slow_value=SymexpTwohot(tensor(record["slow_logits"]), bins).pred(),
        normalizer=ReturnNormalizer(),
    )
    assert_close(losses.returns, record["ret"], "returns")
    assert_close(losses.actor, record["policy"], "actor loss")
    assert_close(losses.critic, record["value"], "critic loss")
    (losses.actor.sum() + losses.critic.sum()).backward()
    assert_gradient(logits.grad, record["g_value"], losses.critic.numel(), "critic logits")
    for name, leaf in leaves.items():
        assert_gradient(leaf.grad, record[name], losses.actor.numel(), name)


def assert_gradient(ours: Tensor | None, theirs: Any, count: int, what: str) -> None:
    """A gradient of the summed loss, or of its mean, as the record has it."""
    assert ours is not None
    ratio = float(np.abs(theirs).max()) / ours.abs().max().item()
    divisor = count if abs(ratio * count - 1) < 0.01 else 1
    assert_close(ours / divisor, theirs, what)


def test_replay_value_loss(replay_record: Record) -> None:
    record = {name: tensor(value) for name, value in replay_record.items()}
    bins = symexp_bins(record["value_logits"].shape[-1])
    loss, returns = replay_value_loss(
        DreamerV3Config(recipe="official"),
        last=record["last"].float(),
        terminal=record["term"].float(),
        reward=record["rew"],
        bootstrap=record["boot"],
        value=SymexpTwohot(record["value_logits"], bins),
        slow_value=SymexpTwohot(record["slow_logits"], bins).pred(),
    )
    assert_close(loss, record["repval"], "loss")
    assert_close(returns, record["ret"], "returns")


# --------------------------------------------------------------------------- networks


def recorded_model(record: Record, prefix: str, classes: int, **overrides: Any) -> Any:
    """A model of the record's sizes with the weights under `prefix`."""
    weights = {key.removeprefix(prefix): v for key, v in record.items() if key.startswith(prefix)}
    config = official_config(weights, stoch_classes=classes, **overrides)
    model = DreamerV3WorldModel(config)
    load_official(model, weights)
    model.sampling = False
    return model


def observations(record: Record, prefix: str, model: DreamerV3WorldModel) -> dict[str, Tensor]:
    """The model's observations, channels first, scalars with an axis of their own."""
    found = {}
    for key in model.keys:
        value = tensor(record[f"{prefix}{key.name}"])
        if key.kind == "image":
            value = value.movedim(-1, -3)
        found[key.name] = value.reshape(*value.shape[:2], *key.shape)
    return found


def recorded_actions(record: Record, prefix: str, model: DreamerV3WorldModel) -> Tensor:
    """The action vector `[B, T, A]`; whole numbers become one-hot columns."""
    columns = []
    for part in model.parts:
        value = tensor(record[f"{prefix}{part.name}"])
        if part.kind == "discrete" and not value.is_floating_point():
            value = F.one_hot(value.long(), part.width)
        columns.append(value.float())
    return torch.cat(columns, -1)


def test_networks(network_record: Record) -> None:
    record = network_record
    model = recorded_model(record, "param:", record["in:stoch"].shape[-1])
    seen = observations(record, "obs:", model)
    with torch.no_grad():
        tokens = model.encoder(seen)
        assert_close(tokens, record["out:tokens"], "tokens")
        actions = recorded_actions(record, "act:", model)
        if "out:act_concat" in record:
            assert_close(actions[:, 0], record["out:act_concat"], "concatenated action")
        latent = Latent(tensor(record["in:deter"]), tensor(record["in:stoch"]))
        rssm = model.rssm
        core = rssm.next_deter(latent, squashed(actions[:, 0]))
        assert_close(core, record["out:core"], "core")
        assert_close(rssm.prior_logits(core), record["out:prior"], "prior")
        check_posterior(model, record, tokens, latent)
        features = Latent(tensor(record["in:fd"]), tensor(record["in:fs"]))
        raw = model.decoder(features.deter, features.stoch.flatten(-2))
        for key in model.keys:
            recorded = record[f"out:rec:{key.name}"]
            ours = raw[key.name].movedim(-3, -1) if key.kind == "image" else raw[key.name]
            assert_close(ours.reshape(recorded.shape), recorded, f"reconstruction {key.name}")
        check_heads(model, record, features.features())


def test_a_recorded_agent_is_imported_as_it_stands(network_path: Path) -> None:
    """The file alone, without a hint, gives a model with the recorded outputs."""
    record = dict(np.load(network_path, allow_pickle=False))
    model = import_official(network_path)
    with torch.no_grad():
        tokens = model.encoder(observations(record, "obs:", model))
        assert_close(tokens, record["out:tokens"], "tokens")
        check_heads(model, record, tensor(record["out:inp"]))


def check_posterior(
    model: DreamerV3WorldModel, record: Record, tokens: Tensor, latent: Latent
) -> None:
    """One observing step from the recorded latent, with the record's reset flags."""
    first = tensor(record["obs:is_first"])[:, :1]
    actions = squashed(recorded_actions(record, "act:", model))[:, :1]
    seen = model.rssm.observe(tokens[:, :1], actions, first, latent, None)
    assert_close(seen.latent.deter[:, 0], record["out:obs_deter"], "observed deter")
    assert_close(seen.logits[:, 0], record["out:post"], "posterior")


def check_heads(model: DreamerV3WorldModel, record: Record, features: Tensor) -> None:
    assert_close(features, record["out:inp"], "features")
    assert_close(model.reward(features).pred(), record["out:rew_pred"], "reward")
    probability = torch.sigmoid(model.continuation(features))
    assert_close(probability, record["out:con_prob"], "continue")
    assert_close(model.critic(features).pred(), record["out:val_pred"], "value")
    for distribution in model.actor(features).distributions:
        if isinstance(distribution, BoundedNormal):
            assert_close(distribution.mean, record["out:pol_mean"], "policy mean")
            assert_close(distribution.std, record["out:pol_std"], "policy std")
        else:
            name = next(key for key in record if key.startswith("out:pol"))
            recorded = torch.as_tensor(record[name]).log_softmax(-1)
            if "prob" in name:
                recorded = torch.as_tensor(record[name]).log()
            assert_close(distribution.log_probs, recorded, "policy")


# --------------------------------------------------------------------------- whole updates


def recorded_batch(record: Record, index: int, model: DreamerV3WorldModel) -> Batch:
    prefix = f"batch{index}:"
    return Batch(
        obs=observations(record, prefix, model),
        actions=recorded_actions(record, prefix, model),
        rewards=tensor(record[f"{prefix}reward"]),
        terminations=tensor(record[f"{prefix}is_terminal"]),
        is_first=tensor(record[f"{prefix}is_first"]),
        is_last=tensor(record[f"{prefix}is_last"]),
        extras={
            "deter": tensor(record[f"{prefix}dyn/deter"]),
            "stoch": to_codes(tensor(record[f"{prefix}dyn/stoch"])),
        },
    )


def number_of(record: Record, name: str, default: float) -> float:
    return float(record[name]) if name in record else default


def test_whole_updates(training_record: Record) -> None:
    """Losses, all gradients, the step, the normaliser, the slow critic and the latents."""
    record = training_record
    classes = record["batch0:dyn/stoch"].shape[-1]
    model = recorded_model(
        record,
        "param0:",
        classes,
        imagination_horizon=int(number_of(record, "cfg:imag_length", 5)),
        learning_rate=number_of(record, "cfg:lr", 1e-3),
        lr_warmup_updates=int(number_of(record, "cfg:warmup", 2)),
    )
    (phase,) = model.phases(LearningOverrides())
    assert phase.grad_clip is None
    updates = len([key for key in record if key.startswith("loss") and key[4:].isdigit()])
    for index in range(updates):
        scratch: dict[str, Tensor] = {}
        phase.optimizer.zero_grad(set_to_none=True)
        output = phase.loss(recorded_batch(record, index, model), scratch)
        output.loss.backward()
        check_losses(model, record, index, output.loss, output.components)
        check_tensors(model, record, f"grad{index}:", gradients=True)
        phase.optimizer.step()
        written = model.after_update(scratch)
        check_tensors(model, record, f"param{index + 1}:")
        check_tensors(model, record, f"state{index + 1}:")
        assert_close(written["deter"], record[f"replay{index}:dyn/deter"], "deter")
        codes = to_codes(tensor(record[f"replay{index}:dyn/stoch"]))
        assert torch.equal(written["stoch"], codes)


# Our losses, and what the records call them.
SCALES = {
    "reward": "rew",
    "continue": "con",
    "kl_dynamics": "dyn",
    "kl_representation": "rep",
    "actor": "policy",
    "critic": "value",
    "replay_critic": "repval",
}


def check_losses(
    model: DreamerV3WorldModel,
    record: Record,
    index: int,
    total: Tensor,
    components: dict[str, Tensor],
) -> None:
    assert_close(total, record[f"loss{index}"], f"loss {index}")
    for ours, theirs in SCALES.items():
        assert_close(components[ours], record[f"met{index}:loss/{theirs}"], theirs)
    parts = [record[f"met{index}:loss/{key.name}"] for key in model.keys]
    assert_close(components["reconstruction"], np.sum(parts), "reconstruction")


def check_tensors(
    model: DreamerV3WorldModel, record: Record, prefix: str, *, gradients: bool = False
) -> None:
    """Every recorded tensor under `prefix` beside ours, and none left out."""
    ours = dict(model.named_parameters()) if gradients else model.state_dict()
    names = {source.name: (name, source.axes) for name, source in official_names(model).items()}
    recorded = [key for key in record if key.startswith(prefix)]
    assert recorded
    for key in recorded:
        name, axes = names[key.removeprefix(prefix)]
        value = ours[name].grad if gradients else ours[name]
        expected = torch.as_tensor(record[key])
        if axes is not None:
            expected = expected.permute(axes)
        assert_close(value, expected, key)
