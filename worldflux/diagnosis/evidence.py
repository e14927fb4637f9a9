"""What is known of a run, gathered once from its files. Checks read nothing else.

What a run does not have is None. Legend: N rows of the replay in order, A numbers of an action.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from worldflux.data.columns import OBS, SINCE_FIRST
from worldflux.layout import EVALUATIONS, METRICS
from worldflux.run_log import Row, is_number, read_evaluations, read_rows, read_tail

from .statistics import Floats, effect, flat

SAMPLE_BYTES, SAMPLE_ROWS = 32 << 20, 20_000  # of the replay
SOON = 4  # steps within which an action has to show
LEAST_CHANGES, MOST_CHANGES = 200, 2_000  # random actions whose effect is looked at
TAIL_BYTES = 256 << 10  # of metrics.jsonl, which is read at each evaluation of training
TOLD = "; worldflux why says more"  # how a warning of training ends
_SURE = 3.0  # standard errors above random from which an agent has learned something
_KEPT = 0.5  # share of its best gain that it must still have


@dataclass(frozen=True)
class Experience:
    """Rows of a replay, one stream after another: what was observed, done and received.

    `obs` by name `[N, ...]`, `action` `[N, A]`, the rest `[N]`; the reward of an action is in the
    row after it. `age` is the number of rows since the episode began, `random` whether the action
    was a random one, `follows` whether the row comes after the row before it.
    """

    obs: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    last: np.ndarray
    terminal: np.ndarray
    age: np.ndarray
    random: np.ndarray
    follows: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def rewards(self) -> np.ndarray:
        """The rewards of actions, without the first rows of episodes, which have none."""
        return self.reward[self.age > 0]


@dataclass(frozen=True)
class ModelProbe:
    """What the last checkpoint's model makes of fresh episodes.

    Attributes:
        latent_spread: how much latents differ between observations, relative to their size.
        reward_bias, reward_spread: of predicted rewards, and how much true ones vary.
        value_bias, value_spread: how far the critic's mean is above nearly all returns, and how
            much these vary; None without a critic.
        decoder: error of decoded observations relative to their mean; None without a decoder.
    """

    latent_spread: float
    reward_bias: float | None = None
    reward_spread: float = 0.0
    value_bias: float | None = None
    value_spread: float = 0.0
    decoder: float | None = None


@dataclass(frozen=True)
class Played:
    """A few fresh episodes: returns by policy ("plan", "prior"), and what resets and actions do.

    Attributes:
        changed: share of trials in which another action changed what followed, all else the same;
            None where nothing repeats.
        repeats: whether the same seed and actions give the same observations at the reset, and
            after it.
        varies: whether another seed gives other observations under the same actions.
    """

    returns: Mapping[str, np.ndarray]
    changed: float | None
    repeats: tuple[bool, bool]
    varies: bool


@dataclass(frozen=True)
class Evidence:
    """Everything that checks read.

    Attributes:
        curves: metric -> its values by row of the log, NaN where a row has none.
        preset: numbers of the run's preset: "learning_rate" and "update_ratio".
        siblings: best returns of runs of the same configuration with other seeds.
        budget: environment steps that this task takes, as published or measured.
        run: the run's folder, as a command takes it.
    """

    manifest: Mapping[str, Any]
    curves: Mapping[str, Floats] = field(default_factory=dict)
    evaluations: Sequence[Row] = ()
    preset: Mapping[str, float] = field(default_factory=dict)
    experience: Experience | None = None
    model: ModelProbe | None = None
    played: Played | None = None
    siblings: tuple[float, ...] = ()
    budget: float | None = None
    run: str = "outputs"

    def has(self, part: str) -> bool:
        """Whether there is a part of it: "logs", "settings", "replay", "model" or "play"."""
        found: dict[str, Any] = {
            "settings": self.manifest.get("model_config"),
            "logs": self.evaluations,
            "replay": self.experience,
            "model": self.model,
            "play": self.played,
        }
        return bool(found[part]) if part in ("settings", "logs") else found[part] is not None

    def section(self, *names: str) -> Mapping[str, Any]:
        """A section of the manifest, empty where there is none."""
        found: Any = self.manifest
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def number(self, *names: str) -> float | None:
        """A number of the manifest, or None."""
        value = self.section(*names[:-1]).get(names[-1])
        return float(value) if is_number(value) else None

    def longer_warmup(self, least: int) -> int:
        """Transitions of a warm-up: `least`, or twice as many as this run's."""
        used = self.number("configuration", "online_collection", "warmup_transitions") or 0
        return max(least, int(2 * used))

    def twice(self) -> int:
        """Twice as many updates as were made."""
        return int(2 * (self.number("global_step") or 0))

    @property
    def notes(self) -> list[str]:
        """Why the run failed, and what it warned of, without earlier findings."""
        warnings = self.manifest.get("warnings")
        found = [self.manifest.get("reason"), *(warnings if isinstance(warnings, list) else ())]
        return [str(text) for text in found if text and not str(text).endswith(TOLD)]

    def curve(self, name: str) -> Floats:
        """The values of a metric that were logged."""
        values = self.curves.get(name, np.zeros(0))
        return np.asarray(values[np.isfinite(values)])

    def gain(self, row: Row) -> float | None:
        """How far the return of an evaluation is above a random policy's."""
        random = self.manifest.get("random_return_mean")
        return float(row["return_mean"]) - random if is_number(random) else None

    def best(self) -> Row | None:
        return max(self.evaluations, key=lambda row: row["return_mean"], default=None)

    def has_learned(self) -> bool:
        """Whether the last evaluation is surely above random, and keeps half of the best gain."""
        best = self.best()
        if best is None:
            return False
        last = self.evaluations[-1]
        gain, most = self.gain(last), self.gain(best)
        if gain is None or most is None:
            return False
        return gain > _SURE * standard_error(last) and gain >= _KEPT * most


def standard_error(row: Row) -> float:
    """Of an evaluation's mean return; never zero, and nobody knows that of a single episode."""
    if len(row["returns"]) < 2:
        return math.inf
    size = max(float(row["return_std"]), 1e-3 * abs(float(row["return_mean"])), 1e-9)
    return size / math.sqrt(len(row["returns"]))


def read_logs(folder: Path, tail_bytes: int | None = None) -> dict[str, Any]:
    """`curves` and `evaluations` of a run; with `tail_bytes` the end of a longer log alone."""
    path = folder / METRICS
    rows: list[Row] = []
    if tail_bytes is None:
        rows = list(read_rows(path))
    elif path.is_file():
        with path.open("rb") as file:
            begins_within = os.fstat(file.fileno()).st_size > tail_bytes
            rows = read_tail(file.fileno(), tail_bytes) if begins_within else list(read_rows(path))
    names = dict.fromkeys(name for row in rows for name, value in row.items() if is_number(value))
    curves = {
        name: np.array([row[name] if is_number(row.get(name)) else np.nan for row in rows], float)
        for name in names
    }
    return {"curves": curves, "evaluations": list(read_evaluations(folder / EVALUATIONS))}


def sample_length(row_bytes: float, streams: int) -> int:
    """How many steps of all streams a sample of the replay has."""
    return max(2, int(min(SAMPLE_BYTES / max(row_bytes, 1.0), SAMPLE_ROWS)) // streams)


def experience_of(
    blocks: Sequence[tuple[int, Mapping[str, np.ndarray]]], random_until: int
) -> Experience:
    """A sample from pieces of a replay: the step each begins with, and its columns `[T, E, ...]`.

    Actions before the step `random_until` were random ones.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for start, rows in blocks:
        follows = ~rows["is_first"]
        follows[0] = False
        steps = start + np.arange(len(follows))
        random = np.broadcast_to((steps < random_until)[:, None], follows.shape)
        for name, value in {**rows, "follows": follows, "random": random}.items():
            by_stream = value.swapaxes(0, 1).reshape(-1, *value.shape[2:])
            columns.setdefault(name, []).append(by_stream)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    obs = {n.removeprefix(OBS) or "obs": v for n, v in joined.items() if n.startswith(OBS)}
    return Experience(
        obs=obs,
        action=joined["action"],
        reward=joined["reward"],
        last=joined["is_last"],
        terminal=joined["is_terminal"],
        age=joined[SINCE_FIRST],
        random=joined["random"],
        follows=joined["follows"],
    )


def random_effect(experience: Experience) -> float | None:
    """The largest `effect` of random actions on one of the next steps, as actions may be late; None
    where there are too few, or images, of which one does not show what moves."""
    if any(values.dtype == np.uint8 for values in experience.obs.values()):
        return None
    seen = np.concatenate([flat(values) for values in experience.obs.values()], 1)
    found = []
    for late in range(1, min(SOON, len(seen) - 1) + 1):
        within = sliding_window_view(experience.follows[1:], late).all(1)
        chosen = np.flatnonzero(experience.random[:-late] & within)[:MOST_CHANGES]
        if len(chosen) < LEAST_CHANGES:
            break
        after, before = chosen + late, seen[chosen + late - 1]
        change = np.concatenate([seen[after] - before, experience.reward[after, None]], 1)
        found.append(effect(experience.action[chosen].astype(np.float64), before, change))
    return max(found, default=None)
