"""The table of checks: what each reads, its threshold and where that comes from, what to try.

docs/why.md has the same rows. A cause of an earlier stage explains those of a later one, so stages
come first in a diagnosis, and within a stage the number of times beyond the threshold.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

from worldflux.progress import counted

from . import environment_checks as env
from . import learning_checks as learning
from .evidence import Evidence
from .finding import Diagnosis, Finding, Measured


class Stage(IntEnum):
    """In the order in which causes explain one another."""

    ENVIRONMENT = 0
    SETTINGS = 1
    LEARNING = 2
    LENGTH = 3


@dataclass(frozen=True)
class Check:
    """A row of the table.

    Attributes:
        name: of the cause.
        reads: parts of the evidence, of which it needs one: "logs", "settings", "replay", "model"
            or "play" ("files": the manifest alone).
        limit: its threshold.
        origin: where that number comes from.
        advice: what to try, with the values that it measured in braces, `{again}` for the command
            that began the run, whose options a new run keeps, `{more}` for its last one, and
            `{run}` for its folder.
        measure: the check.
        early: whether it also runs during training; those that need "model" or "play" do not.
    """

    name: str
    stage: Stage
    reads: tuple[str, ...]
    limit: float
    origin: str
    advice: str
    measure: Callable[[Evidence, float], Measured | None]
    early: bool = True

    def finding(self, evidence: Evidence) -> Finding | None:
        found = self.measure(evidence, self.limit)
        if found is None:
            return None
        sessions = evidence.manifest.get("sessions") or [evidence.manifest]
        again, more = (_typed(session.get("command")) for session in (sessions[0], sessions[-1]))
        named = {"again": again, "more": more, "run": shlex.quote(evidence.run)}
        command = self.advice.format(**found.values, **named)
        return Finding(self.name, round(found.times, 2), found.words, command)


def _typed(command: object) -> str:
    """A command of training, to add options to."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    own = {"--overwrite", "--resume", "--resume=auto"}
    return shlex.join(w for w in words if w not in own) if "train" in words else "worldflux train"


_CALIBRATED = "calibration runs"
_RETRAIN = "{again} --overwrite --set "
_CONTINUE = "{more} --resume --steps {updates}"
_STEPS = _RETRAIN + "online_collection.collect_steps_per_update={steps}"
_RATE = _RETRAIN + "training.learning_rate={rate:g}"
_fewer, _more = partial(learning.updates, power=-1), partial(learning.updates, power=1)
_lower, _higher = partial(learning.rate, power=-1), partial(learning.rate, power=1)
_E, _S, _L, _T = Stage

CHECKS = (
    Check(
        "actions-ignored", _E, ("play", "replay"), 4.0, _CALIBRATED,
        "follow an action from step() to the simulator, through each wrapper of make_env in "
        "dataset.py", env.actions,
    ),
    Check(
        "reward-constant", _E, ("replay",), 200.0, "as many steps as an episode of Pendulum",
        "where a goal pays, find it by more random steps: " + _RETRAIN
        + "online_collection.warmup_transitions={warmup}; else return a reward from step() that "
        "differs between good and bad steps", env.reward_constant,
    ),
    Check(
        "reward-rare", _E, ("replay",), 10.0, "fewer than ten examples in the whole replay",
        _RETRAIN + "online_collection.warmup_transitions={warmup}", env.reward_rare,
    ),
    Check(
        "reward-scale", _E, ("replay", "files"), 1000.0, "largest reward of Gymnasium's and "
        "dm_control's tasks is about 100",
        "in make_env of dataset.py: "
        "gymnasium.wrappers.TransformReward(env, lambda reward: {factor} * reward)",
        env.reward_scale,
    ),
    Check(
        "time-limit-as-death", _E, ("replay",), 0.8, "share of equal lengths; " + _CALIBRATED,
        "return truncated instead of terminated at the time limit, or leave it to "
        "gymnasium.make(..., max_episode_steps=N)", env.limit_as_death,
    ),
    Check(
        "death-unseen", _E, ("replay",), 0.5, "a time limit gives most episodes one length",
        "return terminated=True from step() where an episode ends by itself", env.death_unseen,
    ),
    Check(
        "ends-ignored", _E, ("files",), 1.0, "any true end; no threshold",
        _RETRAIN + "architecture.episodic=true", env.ends_ignored,
    ),
    Check(
        "observation-constant", _E, ("replay",), 0.9, "share of numbers that never change",
        "print {name!r} in step(), then after each wrapper of make_env in dataset.py",
        env.observation_constant,
    ),
    Check(
        "observation-scale", _E, ("replay",), 300.0, _CALIBRATED,
        "multiply entry {index} of {name!r} by {factor} (gymnasium.wrappers.TransformObservation)",
        env.observation_scale,
    ),
    Check(
        "pixels-dark", _E, ("replay",), 2.0, "images scaled to 0 to 1 before they became bytes",
        "give {name!r} as uint8 from 0 to 255", env.pixels_dark,
    ),
    Check(
        "pixels-still", _E, ("replay",), 10.0, "40 or more at 64 x 64 in 13 environments",
        "crop {name!r} to what moves, or resize it less (environment_kwargs.image_size); worldflux "
        "imagine shows what the agent sees", env.pixels_still,
    ),
    Check(
        "seed-ignored", _E, ("play",), 1.0, "any difference; no threshold",
        "call super().reset(seed=seed) and draw from self.np_random only", env.seed_ignored,
    ),
    Check(
        "stopped", _E, ("files",), 1.0, "an error, no threshold",
        "fix what it names, then: {more} --resume", env.failed, early=False,
    ),
    Check(
        "rate-high", _S, ("settings",), 5.0, "a sweep finds no better one that far away",
        _RATE, _higher,
    ),
    Check(
        "rate-low", _S, ("settings",), 10.0, "a sweep finds no better one that far away",
        _RATE, _lower,
    ),
    Check(
        "updates-few", _S, ("settings",), 4.0, "half of that costs little (docs/howto/tune.md)",
        _STEPS, _fewer,
    ),
    Check(
        "updates-many", _S, ("settings",), 8.0, "published replay ratios go up to eight times more",
        _STEPS, _more,
    ),
    Check(
        "planner-small", _S, ("settings",), 32.0, "a quarter of the laptop preset's",
        _RETRAIN + "architecture.num_samples=128", learning.planner_small,
    ),
    Check(
        "replay-small", _S, ("settings",), 5000.0, "25 episodes of 200 steps",
        _RETRAIN + "data.buffer_capacity=100000", learning.replay_small,
    ),
    Check(
        "replay-stale", _S, ("settings",), 0.9, "Pendulum's recipe ends at 0.63",
        _RETRAIN + "online_collection.warmup_transitions={warmup}", learning.replay_stale,
    ),
    Check(
        "latents-collapsed", _L, ("model",), 0.01, _CALIBRATED,
        _RETRAIN + "architecture.{setting}", learning.latents_collapsed,
    ),
    Check(
        "reward-biased", _L, ("model",), 4.0, _CALIBRATED,
        _CONTINUE, learning.reward_biased,
    ),
    Check(
        "value-high", _L, ("model",), 3.0, _CALIBRATED,
        _RETRAIN + "architecture.{setting}", learning.value_high,
    ),
    Check(
        "planner-worse", _L, ("play",), 4.0, "standard errors",
        _CONTINUE, learning.planner_worse,
    ),
    Check(
        "policy-collapsed", _L, ("replay",), 0.95, _CALIBRATED,
        _RETRAIN + "online_collection.warmup_transitions={warmup}", learning.policy_collapsed,
    ),
    Check(
        "evaluation-differs", _L, ("logs",), 4.0, "standard errors",
        "worldflux eval --target {run} --checkpoint last --episodes 50",
        learning.evaluation_differs,
    ),
    Check(
        "unstable", _L, ("logs",), 0.6, "share of the best gain that was lost",
        _RETRAIN + "training.learning_rate={rate}", learning.unstable,
    ),
    Check(
        "too-short", _T, ("logs",), 1.5, "published and measured curves differ by as much",
        _CONTINUE, learning.too_short, early=False,
    ),
    Check(
        "unlucky-seed", _T, ("logs",), 2.0, "the other seeds gained twice as much",
        "worldflux train --seeds 5", learning.unlucky, early=False,
    ),
    Check(
        "reset-fixed", _T, ("play",), 1.0, "any difference; no threshold",
        "draw where an episode begins from self.np_random in reset()", env.reset_fixed,
    ),
)  # fmt: skip


def early_checks() -> list[Check]:
    """Those that run at each evaluation of training: no model, no episode is played."""
    apart = {"model", "play"}
    return [check for check in CHECKS if check.early and not apart.issuperset(check.reads)]


def findings(evidence: Evidence, checks: Collection[Check] = CHECKS) -> list[Finding]:
    """What the checks find, most likely first: by stage, then by times beyond the threshold."""
    found = [(check.stage, check.finding(evidence)) for check in checks]
    real = [(stage, finding) for stage, finding in found if finding is not None]
    real.sort(key=lambda pair: (pair[0], -pair[1].score))
    return [finding for _, finding in real]


def diagnose(evidence: Evidence, missing: Collection[str] = ()) -> Diagnosis:
    """Every check that has what it reads, and whether the run learned."""
    checked = [c for c in CHECKS if any(p == "files" or evidence.has(p) for p in c.reads)]
    return Diagnosis(
        findings=tuple(findings(evidence, checked)),
        learned=evidence.has_learned(),
        summary=_summary(evidence, len(checked)),
        checked=tuple(check.name for check in checked),
        missing=tuple(missing),
    )


def _summary(evidence: Evidence, checks: int) -> str:
    """How good the agent is, in words."""
    best, random = evidence.best(), evidence.number("random_return_mean")
    told = counted(checks, "check")
    if best is None:
        return f"the run was never evaluated ({told})"
    last = evidence.evaluations[-1]["return_mean"]
    words = f"last return {last:.1f}, best {best['return_mean']:.1f}"
    if len(best["returns"]) == 1:
        words = f"one episode an evaluation says little; {words}"
    if evidence.manifest.get("status") == "running":
        words = f"still running; {words}"
    return f"{words}, a random policy's {'unknown' if random is None else f'{random:.1f}'} ({told})"
