"""Checks of the settings, of what was learned with them, and of how long that takes."""

from __future__ import annotations

import numpy as np

from worldflux.run_log import is_number

from .evidence import Evidence, ModelProbe, standard_error
from .finding import Measured

_MOST_TIMES = 100.0
_LEAST_EVALUATIONS = 3
_COLLECTING = 500  # environment steps below which a run is a trial
_SURE = 3.0  # standard errors
_SMALL = 0.05  # share of a return that is no difference
_SETTLED = 1000  # updates before which a model, a critic or a policy is not judged


def rate(evidence: Evidence, limit: float, power: int) -> Measured | None:
    """A learning rate far above (`power` 1) or below (-1) the preset's."""
    used = evidence.number("resolved_training", "learning_rate")
    usual = evidence.preset.get("learning_rate")
    times = (used / usual) ** power if used and usual else 0.0
    if used is None or usual is None or times <= limit:
        return None
    side = "above" if power > 0 else "below"
    words = f"the learning rate {used:g} is {times:.3g} times {side} the preset's {usual:g}"
    return Measured(times / limit, words + _loss_words(evidence), {"rate": usual})


def _loss_words(evidence: Evidence) -> str:
    loss = evidence.curve("loss/model")
    if len(loss) < 2:
        return ""
    return f"; the model's loss went from {loss[0]:.3g} to {np.median(loss[-5:]):.3g}"


def updates(evidence: Evidence, limit: float, power: int) -> Measured | None:
    """Many more (`power` 1) or fewer (-1) updates for each environment step than the preset's."""
    steps, done = evidence.number("env_steps"), evidence.number("global_step")
    online = evidence.section("configuration", "online_collection")
    usual, warmup = evidence.preset.get("update_ratio"), online.get("warmup_transitions")
    if not steps or not done or not usual or not is_number(warmup):
        return None
    if evidence.manifest.get("data_mode") != "online" or steps - warmup < _COLLECTING:
        return None
    made = max(done - (warmup if online.get("pretrain") else 0), 1.0) / (steps - warmup)
    times = (made / usual) ** power
    if times <= limit:
        return None
    words = f"{made:.3g} updates for each environment step; the preset makes {usual:.3g}"
    return Measured(times / limit, words, {"steps": f"{1 / usual:g}"})


def planner_small(evidence: Evidence, limit: float) -> Measured | None:
    """Too few action sequences are tried for a plan to be better than its prior."""
    samples = evidence.number("model_config", "num_samples")
    plans = evidence.section("model_config").get("mpc", True)
    is_trial = (evidence.number("env_steps") or 0) < _COLLECTING
    if samples is None or not plans or is_trial or samples >= limit:
        return None
    words = f"the planner tries {samples:g} action sequences; at least {limit:g} are expected"
    returns = {} if evidence.played is None else evidence.played.returns
    if {"plan", "prior"} <= returns.keys():
        plan, prior = returns["plan"].mean(), returns["prior"].mean()
        words += f"; its return in fresh episodes is {plan:.1f}, its prior's alone {prior:.1f}"
    return Measured(limit / samples, words)


def planner_worse(evidence: Evidence, limit: float) -> Measured | None:
    """Plans that are surely worse than the policy that they start from."""
    returns = {} if evidence.played is None else evidence.played.returns
    if not {"plan", "prior"} <= returns.keys() or _is_early(evidence):
        return None
    plan, prior = returns["plan"], returns["prior"]
    error = float(np.hypot(plan.std(), prior.std()) / np.sqrt(len(plan)))
    least = _SMALL * max(abs(plan.mean()), abs(prior.mean()), 1e-9)
    behind = float(prior.mean() - plan.mean()) / max(error, least)
    if behind <= limit:
        return None
    words = (
        f"the plans' return is {plan.mean():.1f}, that of the policy alone {prior.mean():.1f}: "
        f"{behind:.1f} standard errors better; the model is not worth planning in yet"
    )
    return Measured(min(behind / limit, _MOST_TIMES), words, {"updates": evidence.twice()})


def replay_small(evidence: Evidence, limit: float) -> Measured | None:
    """A replay that has forgotten most of what was collected."""
    rows, steps = evidence.number("needs", "replay_rows"), evidence.number("env_steps")
    if rows is None or steps is None or rows >= limit or steps < 2 * rows:
        return None
    words = f"the replay keeps the last {rows:,.0f} of {steps:,.0f} steps"
    return Measured(limit / rows, words)


def replay_stale(evidence: Evidence, limit: float) -> Measured | None:
    """A replay that is nearly all random play from before the first update."""
    rows, steps = evidence.number("needs", "replay_rows"), evidence.number("env_steps")
    warmup = evidence.number("configuration", "online_collection", "warmup_transitions")
    if not rows or not steps or not warmup or _is_early(evidence):
        return None
    if evidence.manifest.get("data_mode") != "online" or steps - warmup < _COLLECTING:
        return None
    kept = min(rows, steps)
    share = (kept - (steps - warmup)) / kept
    if share <= limit:
        return None
    words = f"{share:.0%} of the {kept:,.0f} steps in the replay are random ones, of the warm-up"
    return Measured(share / limit, words, {"warmup": int(steps / 10)})


# ------------------------------------------------------------------ what was learned


def _is_early(evidence: Evidence) -> bool:
    return (evidence.number("global_step") or 0) < _SETTLED


def _settled(evidence: Evidence) -> ModelProbe | None:
    """What the model makes of episodes, after enough updates to be judged by."""
    return None if _is_early(evidence) else evidence.model


def latents_collapsed(evidence: Evidence, limit: float) -> Measured | None:
    """Latents that are the same whatever is observed."""
    probe = _settled(evidence)
    if probe is None or probe.latent_spread >= limit:
        return None
    spread = probe.latent_spread
    words = f"latents differ between observations by {spread:.2g} of their size"
    floor, kl = evidence.number("model_config", "kl_free"), evidence.curve("loss/kl_dynamics")
    if floor is not None and len(kl):
        words += f"; the KL loss is {kl[-1]:.2f}, its floor {floor:g}"
    if probe.decoder is not None:
        words += f"; decoded observations are off by {probe.decoder:.0%} of the mean's"
    setting = "use_decoder=true" if floor is None else "kl_free=0.1"
    return Measured(min(limit / max(spread, 1e-9), _MOST_TIMES), words, {"setting": setting})


def reward_biased(evidence: Evidence, limit: float) -> Measured | None:
    """Predicted rewards that are off in one direction."""
    probe = _settled(evidence)
    if probe is None or probe.reward_bias is None or probe.reward_spread <= 0:
        return None
    off = abs(probe.reward_bias) / probe.reward_spread
    if off <= limit:
        return None
    words = f"predicted rewards are off by {probe.reward_bias:+.3g}, true ones vary by "
    words += f"{probe.reward_spread:.3g}; the reward head has not settled"
    return Measured(off / limit, words, {"updates": evidence.twice()})


def value_high(evidence: Evidence, limit: float) -> Measured | None:
    """A critic that expects more than the agent gets."""
    probe = _settled(evidence)
    if probe is None or probe.value_bias is None or probe.value_spread <= 0:
        return None
    over = probe.value_bias / probe.value_spread
    if over <= limit:
        return None
    words = (
        f"the critic expects {probe.value_bias:.3g} more than the agent then received; returns "
        f"differ by {probe.value_spread:.3g}"
    )
    slow = evidence.number("model_config", "slow_critic_fraction")  # DreamerV3's; else TD-MPC2's
    setting = "tau=0.005" if slow is None else f"slow_critic_fraction={slow / 2:g}"
    return Measured(over / limit, words, {"setting": setting})


def policy_collapsed(evidence: Evidence, limit: float) -> Measured | None:
    """Nearly always the same extreme action, by an agent that is no better than random."""
    rows = evidence.experience
    if rows is None or not evidence.evaluations or evidence.has_learned() or _is_early(evidence):
        return None
    chosen = rows.action[~rows.random & ~rows.last]
    if len(chosen) < _COLLECTING:
        return None
    chosen = chosen[-_COLLECTING:]
    discrete = evidence.section("model_config").get("action_type") == "discrete"
    high, low = (chosen > 0.99).mean(0), (chosen < -0.99).mean(0)  # shares of each entry
    share = float(high.max() if discrete else np.maximum(high, low).min())
    if share <= limit:
        return None
    what = "one action is chosen" if discrete else "every action is at one end of its range"
    words = f"{what} in {share:.1%} of the last {len(chosen)} steps, and that does not pay"
    values = {"warmup": evidence.longer_warmup(5000)}
    return Measured(1 + (share - limit) / (1 - limit), words, values)


def evaluation_differs(evidence: Evidence, limit: float) -> Measured | None:
    """Training episodes surely better than evaluations, which act without exploration."""
    trained = evidence.curve("train/episode_return")[-5:]
    best = evidence.best()
    if len(trained) < 3 or best is None or _is_early(evidence):
        return None
    last = evidence.evaluations[-1]
    error = np.hypot(standard_error(last), trained.std() / np.sqrt(len(trained)))
    ahead = float(trained.mean() - last["return_mean"]) / float(error)
    gain = evidence.gain(last)
    if ahead <= limit or gain is None or trained.mean() - last["return_mean"] < abs(gain):
        return None
    words = (
        f"training episodes return {trained.mean():.1f} with exploration, evaluations "
        f"{last['return_mean']:.1f} without: {ahead:.1f} standard errors apart"
    )
    return Measured(min(ahead / limit, _MOST_TIMES), words)


def unstable(evidence: Evidence, limit: float) -> Measured | None:
    """Returns that rose and fell again."""
    best = evidence.best()
    if best is None or len(evidence.evaluations) < _LEAST_EVALUATIONS:
        return None
    last = evidence.evaluations[-1]
    most, gain = evidence.gain(best), evidence.gain(last)
    if most is None or gain is None or most <= _SURE * standard_error(best):
        return None
    lost = (most - gain) / most
    error = np.hypot(standard_error(best), standard_error(last))
    if lost <= limit or most - gain <= _SURE * error:
        return None
    words = (
        f"the return fell from {best['return_mean']:.1f} at update {best['step']:,} to "
        f"{last['return_mean']:.1f}"
    )
    used = evidence.number("resolved_training", "learning_rate") or 0.0
    return Measured(lost / limit, words, {"rate": f"{used / 3:.2g}"})


# ------------------------------------------------------------------ how long it takes


def too_short(evidence: Evidence, limit: float) -> Measured | None:
    """Fewer steps than the task takes, or a return that was still rising at the end."""
    steps, updates = evidence.number("env_steps"), evidence.number("global_step")
    if not steps or not updates:
        return None
    budget, why = evidence.budget, "published or measured runs of this task took"
    if budget is None or budget < steps:
        found = _still_rising(evidence)
        if found is None:
            return None
        budget, why = found, "its return was still rising; to double what it gained it takes"
    if budget / steps <= limit:
        return None
    words = f"{steps:,.0f} environment steps; {why} about {budget:,.0f}"
    total = int(round(_updates_until(evidence, budget, steps, updates), -2))
    return Measured(budget / steps / limit, words, {"updates": max(total, int(updates) + 1)})


def _updates_until(evidence: Evidence, budget: float, steps: float, updates: float) -> float:
    """Updates by which a run of so many steps and updates has taken `budget` environment steps."""
    online = evidence.section("configuration", "online_collection")
    each, warmup = online.get("collect_steps_per_update"), online.get("warmup_transitions")
    if evidence.manifest.get("data_mode") != "online" or not each or not is_number(warmup):
        return updates * budget / steps
    pretrained = warmup if online.get("pretrain") else 0  # updates without a step
    return max(updates, pretrained) + (budget - max(steps, warmup)) / each


def _still_rising(evidence: Evidence) -> float | None:
    """Environment steps by which the slope of the last half would double the gain, if it rises."""
    rows = list(evidence.evaluations)[len(evidence.evaluations) // 2 :]
    if len(rows) < _LEAST_EVALUATIONS or evidence.best() is not rows[-1]:
        return None
    x = np.array([row["env_steps"] for row in rows], float)
    y = np.array([row["return_mean"] for row in rows], float)
    gain = evidence.gain(rows[-1])
    if gain is None or gain <= 0 or np.ptp(x) == 0:
        return None
    slope = float(np.polyfit(x, y, 1)[0])
    rise = slope * np.ptp(x)
    error = np.hypot(standard_error(rows[0]), standard_error(rows[-1]))
    return float(x[-1]) + gain / slope if rise > _SURE * error else None


def unlucky(evidence: Evidence, limit: float) -> Measured | None:
    """Other seeds of the same configuration did much better."""
    best, others = evidence.best(), evidence.siblings
    gain = None if best is None else evidence.gain(best)
    if best is None or gain is None or not others:
        return None
    usual = float(np.median(others))
    ahead = gain + usual - float(best["return_mean"])  # what they gained over random
    if min(others) <= best["return_mean"] or ahead <= limit * max(gain, 0.0) or ahead <= 0:
        return None
    words = (
        f"this seed's best return is {best['return_mean']:.1f}, that of "
        f"{len(others)} other seeds {usual:.1f} (median)"
    )
    return Measured(min(ahead / max(gain, 1e-9) / limit, _MOST_TIMES), words)
