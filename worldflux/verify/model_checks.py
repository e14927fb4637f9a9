"""Does the model keep its contract, and does it predict what happens in fresh episodes.

The episodes are the agent's own and a random policy's. H horizon, W windows, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from worldflux.core.config.base import TASK
from worldflux.core.specs import Capability
from worldflux.core.world_model import WorldModel
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import WorldFluxError
from worldflux.evaluation.episodes import RecordedEpisode
from worldflux.evaluation.open_loop import (
    HorizonError,
    decoder_advice,
    evenly,
    joined,
    model_skill,
    observed_states,
    predict,
)

from .bootstrap import mean_lower_bound
from .verdict import Check, Status

HORIZON = 5
MAX_WINDOWS = 240
# Share of what rewards vary by that predictions may be off on average.
LARGEST_BIAS = 0.1
LEAST_CORRELATION = 0.5
# Relative growth of the error under shuffled actions below which a model ignores its actions.
LEAST_GAIN = 0.02
LEAST_EPISODES = 3
STARTS = 20  # of one episode
PLOTTED = 100  # pairs of predicted and received
_REWARD = "reward"  # a transition leaves it in its state, next to the latents
_CONSTANT = 1e-6
_NO_DECODER = "not measured: this model has no decoder"
_BATCH = 3


def check_contract(model: WorldModel, spec: EnvironmentSpec, seed: int) -> Check:
    """Encode, imagine, decode and act on inputs as the model declares them."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            problems = _contract_problems(model, spec, seed)
    except (WorldFluxError, NotImplementedError, RuntimeError, ValueError) as error:
        problems = [f"{type(error).__name__}: {error}"]
    words = "encode, rollout, decode and policy match the declared capabilities"
    return Check.unless(problems, "contract", words)


def _contract_problems(model: WorldModel, spec: EnvironmentSpec, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    named: dict[str, torch.Tensor] = {}
    for name, entry in model.modalities.items():
        shape = (_BATCH, *entry.shape)
        is_image = len(entry.shape) == 3
        drawn = rng.integers(0, 256, shape, np.uint8) if is_image else rng.normal(size=shape)
        named[name] = torch.from_numpy(np.asarray(drawn, np.uint8 if is_image else np.float32))
    if spec.tasks and TASK not in named:
        named[TASK] = torch.eye(len(spec.task_actions))[rng.integers(0, len(spec.tasks), _BATCH)]
    actions = torch.from_numpy(np.stack([spec.random_actions(rng, _BATCH) for _ in range(HORIZON)]))
    obs = named if len(named) > 1 else next(iter(named.values()))
    state = model.encode(obs, deterministic=True)
    first, second = (model.rollout(state, actions, deterministic=True) for _ in range(2))
    problems = []
    if len(first.states) != HORIZON + 1:
        problems.append(f"a rollout of {HORIZON} actions has {len(first.states)} states")
    for name, tensor in first.states[-1].tensors.items():
        if not torch.equal(tensor, second.states[-1].tensors[name]):
            problems.append(f"the state {name!r} differs between two deterministic rollouts")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            problems.append(f"the state {name!r} is not finite")
    if model.supports(Capability.REWARD_PRED):
        problems += _reward_problems(first.rewards)
    is_first = torch.ones(_BATCH, dtype=torch.bool)
    chosen, _ = model.policy(obs, model.initial_carry(_BATCH), is_first, explore=False)
    if tuple(chosen.shape) != (_BATCH, spec.action_dim) or not bool(torch.isfinite(chosen).all()):
        problems.append(f"its actions have shape {tuple(chosen.shape)} or are not finite")
    elif float(chosen.abs().max()) > 1.0 + 1e-5:
        problems.append("its actions are outside [-1, 1]")
    return problems


def _reward_problems(rewards: torch.Tensor | None) -> list[str]:
    if rewards is None or tuple(rewards.shape) != (HORIZON, _BATCH):
        return ["declares reward prediction but returned no rewards of shape [T, B]"]
    return [] if bool(torch.isfinite(rewards).all()) else ["predicted rewards are not finite"]


def check_predictions(
    model: WorldModel, episodes: Sequence[RecordedEpisode], alpha: float, seed: int
) -> list[Check]:
    """Open-loop errors next to two baselines, bias, whether actions matter, and the critic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # a pixel encoder may shift its images at random
        skill = model_skill(model, episodes, HORIZON, max_windows=MAX_WINDOWS)
        reward, observation = (skill.errors.get(name) for name in ("reward", "observation"))
        checks = [_baselines("reward model", reward, skill.windows)]
        checks.append(_baselines("observation model", observation, skill.windows))
        if not model.supports(Capability.OBS_DECODER):
            checks[-1] = Check(
                checks[-1].name, "not_applicable", _NO_DECODER + decoder_advice(model)
            )
        long = [episode for episode in episodes if len(episode) >= 2 * HORIZON]
        if len(long) >= LEAST_EPISODES:
            if reward is not None and reward.mean.mean() > _CONSTANT:
                checks.append(_check_bias(model, long, float(reward.mean.mean())))
            checks.append(_check_actions(model, long, alpha, seed))
        else:
            words = f"not measured: fewer than {LEAST_EPISODES} episodes have {2 * HORIZON} steps"
            checks += [Check(name, "not_applicable", words) for name in ("reward bias", "actions")]
        return [*checks, _check_value(model, episodes)]


def _baselines(name: str, error: HorizonError | None, windows: int) -> Check:
    """An error above that of the mean is no skill; above that of "no change", a warning."""
    if error is None:
        return Check(name, "not_applicable", "this model does not predict it")
    ours, stays, mean = (float(column.mean()) for column in vars(error).values())
    numbers = {"windows": windows, "horizon": len(error.model), **error.to_dict()}
    if mean <= _CONSTANT:
        return Check(name, "not_applicable", "it never changed in the fresh episodes", numbers)
    status: Status = "fail" if not ours < mean else "warn" if ours >= stays else "pass"
    words = (
        f"open-loop error {ours:.3g} over {len(error.model)} steps; predicting the mean "
        f"{mean:.3g}, no change {stays:.3g} ({windows} starts)"
    )
    return Check(name, status, words, numbers)


def _check_bias(model: WorldModel, episodes: Sequence[RecordedEpisode], spread: float) -> Check:
    """Whether predicted rewards are off in one direction."""
    pairs = [_reward_pairs(model, episode) for episode in episodes]
    bias = float(np.mean([(predicted - true).mean() for predicted, true in pairs]))
    predicted, true = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    points = _sampled(predicted, true)
    numbers = {"bias": bias, "spread": spread, "episodes": len(pairs), "points": points}
    words = (
        f"predictions are off by {bias / spread:+.1%} of what rewards vary by; "
        f"at most {LARGEST_BIAS:.0%} is allowed"
    )
    status: Status = "pass" if abs(bias) <= LARGEST_BIAS * spread else "fail"
    return Check("reward bias", status, words, numbers)


def _reward_pairs(model: WorldModel, episode: RecordedEpisode) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true rewards, `[H, W]` each, open loop from a few starts."""
    starts = _starts(episode)
    prediction = predict(model, episode, starts, HORIZON)
    happened = episode.rewards[starts[None, :] + np.arange(HORIZON)[:, None]]
    return prediction.imagined["reward"], happened


def _starts(episode: RecordedEpisode) -> np.ndarray:
    return evenly(0, len(episode) - HORIZON, STARTS)


def _check_actions(
    model: WorldModel, episodes: Sequence[RecordedEpisode], alpha: float, seed: int
) -> Check:
    """Whether what the model imagines depends on the actions as the environment does.

    Imagined latents are compared with those of the true observations: under the actions that
    were taken, and under the same ones in another order.
    """
    rng = np.random.default_rng(seed)
    gains = []
    for episode in episodes:
        taken = _latent_error(model, episode, episode.actions)
        shuffled = episode.actions[rng.permutation(len(episode))]
        gains.append(_latent_error(model, episode, shuffled) / max(taken, 1e-12) - 1.0)
    gain = np.array(gains)
    bound = mean_lower_bound(gain, alpha, seed)
    numbers = {"gain": float(gain.mean()), "gain_lower_bound": bound, "alpha": alpha}
    words = (
        f"imagined latents miss the observed ones by {gain.mean():+.1%} under shuffled actions "
        f"(at least {bound:+.1%} at {1 - alpha:.0%} confidence)"
    )
    status: Status = "pass" if bound > 0 else "fail" if gain.mean() < LEAST_GAIN else "warn"
    return Check("actions", status, words, numbers)


@torch.no_grad()
def _latent_error(model: WorldModel, episode: RecordedEpisode, actions: np.ndarray) -> float:
    """Mean distance of latents imagined under `actions` `[T, A]` from the observed ones."""
    observed = observed_states(model, episode)
    starts = _starts(episode)
    state = joined([observed[s] for s in starts])
    total = 0.0
    for k in range(HORIZON):
        action = torch.from_numpy(actions[starts + k]).to(model.device)
        state = model.transition(state, action, deterministic=True)
        target = joined([observed[s] for s in starts + k + 1])
        errors = [
            (state.tensors[name] - value).flatten(1).norm(dim=1).mean()
            for name, value in target.tensors.items()
            if value.is_floating_point() and name in state.tensors and name != _REWARD
        ]
        total += float(torch.stack(errors).mean()) / HORIZON
    return total


def _check_value(model: WorldModel, episodes: Sequence[RecordedEpisode]) -> Check:
    """The critic against discounted returns; after the last step they continue with its value."""
    if not model.supports(Capability.VALUE):
        return Check("value", "not_applicable", "this model has no critic")
    discount = _discount(model)
    if discount is None:
        return Check("value", "not_applicable", "the model's configuration names no discount")
    predicted, received = [], []
    for episode in episodes:
        values = predict(model, episode, np.array([0]), 1).seen.get("value")
        if values is None:
            return Check("value", "not_applicable", "this model decodes no values")
        following = float(values[-1])
        for t in reversed(range(len(episode))):
            following = float(episode.rewards[t]) + discount * following
            predicted.append(float(values[t]))
            received.append(following)
    x, y = np.array(predicted), np.array(received)
    if min(x.std(), y.std()) <= _CONSTANT:
        return Check("value", "warn", "the critic's values, or the returns, are all the same")
    correlation = float(np.corrcoef(x, y)[0, 1])
    numbers = {
        "correlation": correlation,
        "bias": float((x - y).mean()),
        "mean_absolute_error": float(np.abs(x - y).mean()),
        "return_deviation": float(y.std()),
        "discount": discount,
        "points": _sampled(x, y),
    }
    words = (
        f"the critic's values correlate with the returns received by {correlation:.2f}; "
        f"they are off by {numbers['bias']:+.3g} on average"
    )
    status: Status = "pass" if correlation >= LEAST_CORRELATION else "warn"
    return Check("value", status, words, numbers)


def _sampled(predicted: np.ndarray, received: np.ndarray) -> list[list[float]]:
    """Some pairs, evenly over `[N]` of them, for a plot."""
    chosen = evenly(0, len(predicted) - 1, PLOTTED)
    return [[float(f"{predicted[i]:.4g}"), float(f"{received[i]:.4g}")] for i in chosen]


def _discount(model: WorldModel) -> float | None:
    """The critic's discount: one, or the first of one per task; None for a family without."""
    one: float | None = getattr(model.config, "discount", None)
    several = getattr(model.config, "discounts", None)
    return one if one is not None else several[0] if several else None
