"""A few short episodes of a run's environment and agent, and what its model makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from worldflux.core.world_model import WorldModel
from worldflux.diagnosis.evidence import SOON, ModelProbe, Played
from worldflux.diagnosis.statistics import flat
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import (
    VERIFY,
    EpisodeResults,
    RecordedEpisode,
    play_episodes,
)
from worldflux.evaluation.open_loop import evenly, observed_states, predict
from worldflux.progress import Progress

from .open_run import OpenRun

EPISODES, STEPS = 4, 200  # of the agent, by each of its policies
_ROLLED = 32  # steps after a reset that are compared
# places of an action to change, of every phase, as actions may last several steps
_OTHER_ACTIONS = (1, 8, 15, 22)
_STARTS = 20  # of one episode
_OTHER_SEED = 1_000
_HIGH = 0.95  # share of the returns that a critic's mean may not exceed


def play_run(
    run: OpenRun, progress: Progress, *, acts: bool
) -> tuple[Played, list[RecordedEpisode]]:
    """Try the environment and, if the model `acts`, play the agent's episodes, which are recorded.

    Raises:
        EnvironmentFault, EnvironmentSetupError: where the environment fails or cannot be made.
    """
    envs = run.environments(EPISODES)
    try:
        progress.phase("trying the environment")
        repeats, varies = _resets(envs)
        changed = _changed(envs) if all(repeats) else None
        found: dict[str, np.ndarray] = {}
        recorded: list[RecordedEpisode] = []
        for name in run.model.policies() if acts else ():
            progress.phase(f"playing episodes of the agent ({name})")
            played = _play(run, envs, name)
            found[name] = played.returns
            recorded += played.recorded
    finally:
        envs.close()
    return Played(found, changed, repeats, varies), recorded


def _play(run: OpenRun, envs: VectorEnvironment, policy: str) -> EpisodeResults:
    most = min(STEPS, run.max_steps(envs) or STEPS)
    return play_episodes(
        run.model,
        envs,
        EPISODES,
        VERIFY,
        max_steps=most,
        record_episodes=EPISODES,
        record_steps=most,
        policy=policy,
    )


def _resets(envs: VectorEnvironment) -> tuple[tuple[bool, bool], bool]:
    """Whether a seed repeats an episode's first row and what follows; whether others vary."""
    once, again, other = (_rolled(envs, VERIFY + more) for more in (0, 0, _OTHER_SEED))
    repeats = bool(np.array_equal(once[0], again[0])), bool(np.array_equal(once, again))
    return repeats, not np.array_equal(once, other)


def _changed(envs: VectorEnvironment) -> float | None:
    """Share of trials in which another action, all else the same, soon changed what followed; an
    action at the end of an episode is none, as the reset takes its place."""
    changed: list[np.ndarray] = []
    for place in _OTHER_ACTIONS:
        seed = VERIFY + place * envs.num_envs
        one, other = (_rolled(envs, seed, differs=at) for at in (None, place))
        soon = slice(place + 1, place + 1 + SOON)
        acts = one[place, :, -1] == 0
        changed.append((one[soon] != other[soon]).any((0, 2))[acts])
    trials = np.concatenate(changed)
    return float(trials.mean()) if len(trials) else None


def _rolled(envs: VectorEnvironment, seed: int, differs: int | None = None) -> np.ndarray:
    """Observations, rewards and whether an episode ends `[T, E, D]` after a reset with this seed;
    the action at step `differs` is another one."""
    rng = np.random.default_rng(0)  # the same actions whatever the seed
    step, rows = envs.reset(seed), []
    for number in range(_ROLLED):
        named = step.obs if isinstance(step.obs, dict) else {"obs": step.obs}
        seen = [value.reshape(len(value), -1) for value in named.values()]
        rows.append(np.concatenate([*seen, step.reward[:, None], step.is_last[:, None]], 1))
        actions = envs.spec.random_actions(rng, envs.num_envs, step.obs)
        if number == differs:
            actions = _others(envs, actions)
        step = envs.step(actions)
    return np.stack(rows)


def _others(envs: VectorEnvironment, actions: np.ndarray) -> np.ndarray:
    """Actions `[E, A]` that differ from these: the opposite ones, or the next choice of each."""
    if envs.spec.action_type == "continuous":
        return np.where(actions > 0, -1.0, 1.0).astype(np.float32)
    widths = envs.spec.action_parts or (envs.spec.action_dim,)
    parts = np.split(actions, np.cumsum(widths)[:-1], axis=1)
    return np.concatenate([np.roll(part, 1, axis=1) for part in parts], 1)


@torch.no_grad()
def probe_model(model: WorldModel, episodes: Sequence[RecordedEpisode]) -> ModelProbe:
    """What a model makes of episodes: latents, rewards, values and decoded observations."""
    rewards, values, decoded = [], [], []
    for episode in episodes:
        starts = evenly(0, len(episode) - 1, _STARTS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a pixel encoder may shift its images at random
            prediction = predict(model, episode, starts, 1)
        if "reward" in prediction.imagined:
            rewards.append((prediction.imagined["reward"][0], episode.rewards[starts]))
        if "value" in prediction.seen:
            values.append(
                (prediction.seen["value"], _returns(model, episode, prediction.seen["value"]))
            )
        decoded += [
            (flat(made), flat(episode.obs[name.removeprefix("obs/")] / _unit(episode, name)))
            for name, made in prediction.seen.items()
            if name.startswith("obs/")
        ]
    probe: dict[str, float] = {"latent_spread": _latent_spread(model, episodes)}
    if rewards:
        made, true = (np.concatenate(parts) for parts in zip(*rewards, strict=True))
        probe |= {"reward_bias": float((made - true).mean()), "reward_spread": float(true.std())}
    if values:
        made, true = (np.concatenate(parts) for parts in zip(*values, strict=True))
        over = float(made.mean() - np.quantile(true, _HIGH))
        probe |= {"value_bias": over, "value_spread": float(true.std())}
    if decoded:
        made, true = (np.concatenate(parts) for parts in zip(*decoded, strict=True))
        base = np.abs(true - true.mean(0)).mean()
        probe["decoder"] = float(np.abs(made - true).mean() / max(float(base), 1e-9))
    return ModelProbe(**probe)


def _unit(episode: RecordedEpisode, name: str) -> float:
    return 255.0 if episode.obs[name.removeprefix("obs/")].dtype == np.uint8 else 1.0


def _returns(model: WorldModel, episode: RecordedEpisode, values: np.ndarray) -> np.ndarray:
    """Discounted returns `[T + 1]` that the agent received, and the critic's value after them."""
    discount = getattr(model.config, "discount", None) or getattr(model.config, "discounts", [1])[0]
    found = [float(values[-1])]
    for reward in episode.rewards[::-1]:
        found.append(float(reward) + discount * found[-1])
    return np.array(found[::-1])


def _latent_spread(model: WorldModel, episodes: Sequence[RecordedEpisode]) -> float:
    """Deviation of latents between observations, relative to their mean size; codes where there
    are any, because what is remembered differs whatever is seen."""
    states = [state for episode in episodes for state in observed_states(model, episode)]
    names = [n for n, v in states[0].tensors.items() if v.is_floating_point()]
    name = "stoch" if "stoch" in names else names[0]
    rows = torch.cat([state.tensors[name].flatten(1).float() for state in states])
    return float(rows.std(0).mean() / rows.abs().mean().clamp(min=1e-12))
