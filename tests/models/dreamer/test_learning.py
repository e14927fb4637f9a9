"""One update: first values, which gradient reaches what, what a loss must not do, the recipes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.errors import ConfigurationError
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.rssm import Latent, from_codes, squashed
from worldflux.nn import ClippedAdam, LaProp

from .builders import IMAGE, SEVERAL, random_actions, random_batch, run_update, small_model


def official_1m(**changes: Any) -> DreamerV3WorldModel:
    torch.manual_seed(0)
    fields = {"obs_shape": (24,), "action_dim": 6, **changes}
    return DreamerV3WorldModel(DreamerV3Config.from_size("official_1m", **fields))


def test_first_update_has_the_values_that_the_initialisation_implies() -> None:
    """Zero heads: uniform over 255 bins, ln 255; the logits' unit outputs: a KL near its floor."""
    model = official_1m()
    batch = random_batch(model, size=4, length=9)
    losses = model.loss(batch).components
    assert_close(losses["reward"].item(), math.log(255), rtol=1e-5, atol=0)
    assert losses["critic"] <= 2 * math.log(255)
    per_state = losses["replay_critic"].item() / (1 - batch.lasts[:, 1:-1].float().mean().item())
    assert_close(per_state, 2 * math.log(255), rtol=1e-4, atol=0)
    assert 0.4 < losses["continue"] < 1.1
    # 32 groups of 4 classes, each a fraction of a nat apart at initialisation.
    assert 1.0 <= losses["kl_dynamics"] < 32 * 0.4
    assert_close(losses["kl_dynamics"], losses["kl_representation"])
    # Values are 0 and rewards are 0: nothing to prefer, only the entropy bonus is left.
    entropy = 6 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.9 / (1 + math.e**-2) + 0.1))
    assert -3e-4 * entropy * 1.1 < losses["actor"].item() < 0


def test_weights_start_with_unit_gain_and_output_heads_at_zero() -> None:
    model = official_1m(deter_dim=1024, hidden_dim=256)
    for weight in (model.rssm.deter_in.linear.weight, model.actor.mlp[0].linear.weight):
        assert_close(weight.std().item(), weight.shape[1] ** -0.5, rtol=0.03, atol=0)
        assert weight.abs().max() <= 2 * 1.1369 * weight.shape[1] ** -0.5
    assert model.reward.out.weight.abs().sum() == model.critic.out.weight.abs().sum() == 0
    mean = model.actor.heads["action"]["mean"].weight
    assert_close(mean.std().item(), 0.01 * mean.shape[1] ** -0.5, rtol=0.05, atol=0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.critic.parameters(), model.slow_critic.parameters(), strict=True)
    )
    # Trap 5: the whole input width counts, not the width of one block.
    full_width = model.rssm.gates.weight.shape[0] * model.rssm.gates.weight.shape[1]
    assert_close(model.rssm.gates.weight.std().item(), full_width**-0.5, rtol=0.03, atol=0)


# --------------------------------------------------------------------------- gradient routing

GROUPS = {
    "encoder": ("encoder.",),
    "core": ("rssm.deter_in", "rssm.stoch_in", "rssm.action_in", "rssm.dynamics", "rssm.gates"),
    "prior": ("rssm.prior",),
    "posterior": ("rssm.posterior",),
    "decoder": ("decoder.",),
    "reward": ("reward.",),
    "continue": ("continuation.",),
    "actor": ("actor.",),
    "critic": ("critic.",),
}
STATE = {"encoder", "core", "posterior"}
ROUTES = {
    "reconstruction": STATE | {"decoder"},
    "reward": STATE | {"reward"},
    "continue": STATE | {"continue"},
    # Through earlier latents the stopped posterior still depends on encoder and posterior.
    "kl_dynamics": STATE | {"prior"},
    "kl_representation": STATE,
    "actor": {"actor"},
    "critic": {"critic"},
    "replay_critic": STATE | {"critic"},
}


@pytest.mark.parametrize("loss", ROUTES)
@pytest.mark.parametrize("changes", [{}, IMAGE, SEVERAL], ids=["vector", "image", "several"])
def test_each_loss_reaches_exactly_its_own_networks(loss: str, changes: dict[str, Any]) -> None:
    model = small_model(recipe="official", kl_free=0.0, **changes)
    component = model.loss(random_batch(model)).components[loss]
    named = dict(model.named_parameters())
    learned = {name: p for name, p in named.items() if p.requires_grad}
    gradients = torch.autograd.grad(component, list(learned.values()), allow_unused=True)
    touched = {
        name for name, g in zip(learned, gradients, strict=True) if g is not None and g.any()
    }
    for group, prefixes in GROUPS.items():
        members = {name for name in learned if name.startswith(prefixes)}
        assert members
        assert members <= touched if group in ROUTES[loss] else not members & touched, group
    assert not any(p.requires_grad for n, p in named.items() if n.startswith("slow_critic."))


def test_every_learned_parameter_gets_a_gradient() -> None:
    model = small_model(recipe="official", **SEVERAL)
    model.loss(random_batch(model)).loss.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


# --------------------------------------------------------------------------- side effects


def test_loss_has_no_side_effect_and_after_update_moves_what_it_should() -> None:
    model = small_model(recipe="official")
    batch = random_batch(model)
    before = copy.deepcopy(model.state_dict())
    scratch: dict[str, Tensor] = {}
    (phase,) = model.phases(LearningOverrides())
    phase.loss(batch, scratch)
    model.loss(batch)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    written = model.after_update(scratch)
    moved = {n for n, value in model.state_dict().items() if not torch.equal(before[n], value)}
    assert {"return_normalizer.low_value", "return_normalizer.high_value"} <= moved
    assert all(name.startswith(("return_normalizer.", "slow_critic.")) for name in moved)
    assert written.keys() == {"deter", "stoch"}
    for name, value in model.slow_critic.named_parameters():
        fast = dict(model.critic.named_parameters())[name]
        assert_close(value, before[f"slow_critic.{name}"] * 0.98 + 0.02 * fast)


def test_without_actor_critic_only_the_world_model_learns() -> None:
    model = small_model(actor_critic=False)
    before = copy.deepcopy(model.state_dict())
    output, _ = run_update(model, random_batch(model))
    assert set(output.components) == set(DreamerV3Config().loss_scales)
    scales = DreamerV3Config().loss_scales
    total = sum(scales[name] * value for name, value in output.components.items())
    assert_close(output.loss, total)
    moved = {n.split(".")[0] for n, v in model.state_dict().items() if not before[n].equal(v)}
    assert moved == {"encoder", "rssm", "decoder", "reward", "continuation"}


def test_everything_that_must_survive_is_in_the_state_dict() -> None:
    model = small_model(recipe="official")
    for _ in range(3):
        run_update(model, random_batch(model))
    other = small_model(seed=9, recipe="official")
    other.load_state_dict(model.state_dict())
    batch = random_batch(model)
    for each in (model, other):
        each.sampling = False
    assert_close(other.loss(batch).loss, model.loss(batch).loss, rtol=0, atol=0)


# --------------------------------------------------------------------------- replay context


def test_context_gives_the_first_latent_and_the_previous_action() -> None:
    model = small_model(recipe="official")
    model.sampling = False
    batch = random_batch(model, size=2, length=4)
    _, written = run_update(model, batch)
    assert written["deter"].shape == (2, 3, 16)
    assert written["stoch"].shape == (2, 3, 3)
    fresh = small_model(recipe="official")
    stored = Latent(batch.extras["deter"][:, 0], from_codes(batch.extras["stoch"][:, 0], 4))
    deter = fresh.rssm.next_deter(stored, squashed(batch.actions[:, 0]))
    assert_close(written["deter"][:, 0], deter)


def test_without_stored_latents_a_sequence_starts_from_zeros() -> None:
    model = small_model(recipe="official")
    model.sampling = False
    batch = random_batch(model, size=2, length=4, latents=False)
    _, written = run_update(model, batch)
    fresh = small_model(recipe="official")
    zero = fresh.rssm.next_deter(fresh.rssm.initial(2), torch.zeros(2, 2))
    assert written["deter"].shape == (2, 4, 16)
    assert_close(written["deter"][:, 0], zero)


def test_the_first_reward_of_a_window_trains_the_reward_head_but_no_return() -> None:
    """Trap 8: a return begins with the reward that follows."""
    model = small_model(recipe="official")
    model.sampling = False
    batch = random_batch(model)
    before = model.loss(batch).components
    batch.rewards[:, 1] += 3.0  # the first step after the context
    after = model.loss(batch).components
    assert not torch.allclose(after["reward"], before["reward"])
    assert_close(after["replay_critic"], before["replay_critic"], rtol=0, atol=0)


def test_an_episode_start_hides_all_that_was_before() -> None:
    """Trap 10: state and previous action are zeroed."""
    model = small_model()
    model.sampling = False
    batch = random_batch(model, size=1, length=6)
    scratches: list[dict[str, Tensor]] = [{}, {}]
    (phase,) = model.phases(LearningOverrides())
    phase.loss(batch, scratches[0])
    batch.obs[:, :4] += 1.0
    batch.actions[:, :4] = random_actions(model, 1, 4)
    assert batch.firsts[0, 4]
    phase.loss(batch, scratches[1])
    assert_close(scratches[0]["deter"][:, 4:], scratches[1]["deter"][:, 4:])
    assert not torch.allclose(scratches[0]["deter"][:, 3], scratches[1]["deter"][:, 3])


# --------------------------------------------------------------------------- recipes


def test_the_two_recipes_choose_their_optimisers() -> None:
    official = small_model(recipe="official")
    (phase,) = official.phases(LearningOverrides())
    assert isinstance(phase.optimizer, LaProp)
    assert phase.grad_clip is None
    (group,) = phase.optimizer.param_groups
    assert (group["lr"], group["agc"], group["eps"]) == (4e-5, 0.3, 1e-20)
    assert (group["betas"], group["warmup"]) == ((0.9, 0.999), 1000)

    documented = small_model()
    (phase,) = documented.phases(LearningOverrides())
    assert isinstance(phase.optimizer, ClippedAdam)
    settings = [(g["lr"], g["eps"], g["max_norm"]) for g in phase.optimizer.param_groups]
    assert settings == [(1e-4, 1e-8, 1000.0), (3e-5, 1e-5, 100.0), (3e-5, 1e-5, 100.0)]
    counted = sum(len(g["params"]) for g in phase.optimizer.param_groups)
    assert counted == len(phase.parameters) == sum(p.requires_grad for p in documented.parameters())


def test_what_the_user_set_wins_over_the_recipe() -> None:
    overrides = LearningOverrides(
        learning_rate=0.5, grad_clip=7.0, weight_decay=0.25, optimizer="adamw"
    )
    (phase,) = small_model(recipe="official").phases(overrides)
    assert isinstance(phase.optimizer, ClippedAdam)
    group = phase.optimizer.param_groups[0]
    assert (group["lr"], group["max_norm"], group["weight_decay"]) == (0.5, 7.0, 0.25)
    (phase,) = small_model().phases(LearningOverrides(optimizer="laprop", grad_clip=3.0))
    assert isinstance(phase.optimizer, LaProp)
    assert phase.grad_clip == 3.0
    with pytest.raises(ConfigurationError, match="laprop"):
        small_model().phases(LearningOverrides(optimizer="sgd"))


def test_the_first_official_update_moves_nothing() -> None:
    """Trap 9: the warmup starts at a learning rate of 0."""
    model = small_model(recipe="official")
    (phase,) = model.phases(LearningOverrides())
    before = [p.detach().clone() for p in phase.parameters]
    for update in range(2):
        phase.optimizer.zero_grad(set_to_none=True)
        model.loss(random_batch(model)).loss.backward()
        phase.optimizer.step()
        same = [torch.equal(a, b) for a, b in zip(before, phase.parameters, strict=True)]
        assert all(same) == (update == 0)


def test_optimiser_state_survives_a_checkpoint() -> None:
    for recipe in ("documented", "official"):
        model = small_model(recipe=recipe, lr_warmup_updates=2)
        model.sampling = False
        batch = random_batch(model)
        (phase,) = model.phases(LearningOverrides())

        def step(m: DreamerV3WorldModel, optimizer: Any, data: Any = batch) -> None:
            optimizer.zero_grad(set_to_none=True)
            m.loss(data).loss.backward()
            optimizer.step()

        for _ in range(3):
            step(model, phase.optimizer)
        other = small_model(seed=5, recipe=recipe, lr_warmup_updates=2)
        other.sampling = False
        other.load_state_dict(model.state_dict())
        (again,) = other.phases(LearningOverrides())
        again.optimizer.load_state_dict(copy.deepcopy(phase.optimizer.state_dict()))
        step(model, phase.optimizer)
        step(other, again.optimizer)
        for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_bfloat16_stays_near_float32() -> None:
    plain, half = small_model(recipe="official"), small_model(recipe="official", dtype="bfloat16")
    plain.sampling = half.sampling = False
    batch = random_batch(plain)
    exact, rough = plain.loss(batch), half.loss(batch)
    assert rough.loss.dtype == torch.float32
    for name in ("reward", "continue", "reconstruction"):
        assert_close(rough.components[name], exact.components[name], rtol=0.1, atol=0.05)
    rough.loss.backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in half.parameters())


def test_losses_fall_on_a_batch_that_repeats() -> None:
    model = small_model(learning_rate=1e-2)
    batch = random_batch(model)
    (phase,) = model.phases(LearningOverrides())
    reconstructions = []
    for _ in range(60):
        phase.optimizer.zero_grad(set_to_none=True)
        scratch: dict[str, Tensor] = {}
        output = phase.loss(batch, scratch)
        output.loss.backward()
        phase.optimizer.step()
        model.after_update(scratch)
        reconstructions.append(output.components["reconstruction"].item())
    assert reconstructions[-1] < 0.6 * reconstructions[0]
