"""What `worldflux init` asks: the choices, their defaults, and the checks of every answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from worldflux.envs.namespaces import CHOICES, Namespace, namespace_of
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.catalog import family_of_model, resolve
from worldflux.models.registry import our_families
from worldflux.training.config import TrainingConfig

DEFAULT_NAME = "worldflux-project"
MAX_ENVIRONMENT_CHARS = 120
DEFAULT_CHOICE = "classic"
# Environments whose projects come with numbers that learn in minutes on a CPU, and their updates.
_QUICK = {"Pendulum-v1": 4_500, "CartPole-v1": 2_500, "worldflux/Catch-v0": 3_600}
_TOTAL_STEPS = {row.environment: row.environment_steps for row in CHOICES.values()} | _QUICK
WELL_KNOWN = set(_TOTAL_STEPS)
# Environment, beginning of its id or kind of actions -> what is picked, and what for.
_PICKS = {where: pick for row in our_families().values() for where, pick in row.picks.items()}
PICKED = dict(_PICKS.values())

_ID_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_ENVIRONMENT = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.]*:)?(?:{_ID_PART}/)?{_ID_PART}-v\d+")
_DISCRETE = re.compile(
    r"(?:CartPole|Acrobot|MountainCar|LunarLander|FrozenLake|FrozenLake8x8|Taxi|CliffWalking|"
    r"CliffWalkingSlippery|Blackjack)-v\d+|worldflux/Catch-v\d+|(?:MiniGrid|BabyAI)-.+"
)
# Continuous actions, and episodes that end before their time limit.
_ENDS_EARLY = re.compile(
    r"(?:Ant|Hopper|Walker2d|Humanoid|InvertedPendulum|InvertedDoublePendulum|"
    r"MountainCarContinuous|LunarLanderContinuous|CarRacing|BipedalWalker|BipedalWalkerHardcore)-v\d+"
)


@dataclass(frozen=True)
class Answers:
    """A complete, checked set of answers. None leaves a number to the model's own recipe."""

    name: str
    environment: str
    model: str
    total_steps: int
    batch_size: int | None = None
    device: str = "auto"

    @property
    def quick_start(self) -> str | None:
        """The environment, where numbers tuned for a CPU apply: for its default model, mostly."""
        also = family_of_model(self.model).also_quick.get(self.environment)
        suited = (default_model(self.environment), also)
        quick = self.environment in _QUICK and self.model in suited
        return self.environment if quick else None

    @property
    def episodic(self) -> bool | None:
        """Whether the model has to be set to learn where episodes end; None: unknown for the id."""
        if family_of_model(self.model).episodic_key is None or self.quick_start:
            return False
        return True if _ENDS_EARLY.fullmatch(self.environment) else None

    @property
    def needed_extra(self) -> Namespace | None:
        """The namespace whose extra the environment needs, if any."""
        namespace = namespace_of(self.environment)
        return namespace if namespace.extra else None


def environment_id(answer: str) -> str:
    """The Gymnasium id of a choice's name or of an id."""
    if answer in CHOICES:
        return CHOICES[answer].environment
    if len(answer) <= MAX_ENVIRONMENT_CHARS and _ENVIRONMENT.fullmatch(answer):
        return answer
    raise ConfigurationError(
        f"{answer[:60]!a} is no environment: the choices are {', '.join(CHOICES)}, "
        "or a Gymnasium id such as CartPole-v1",
        hint=did_you_mean(answer[:60], [*CHOICES, *(c.environment for c in CHOICES.values())]),
    )


def default_model(environment: str) -> str:
    """A model that fits the actions of the environment, as far as its id shows them."""
    kind = "discrete" if _is_discrete(environment) else "continuous"
    fitting = [where for where in _PICKS if environment.startswith(where)]
    return _PICKS[max(fitting, key=len, default=kind)][0]


def default_total_steps(environment: str) -> int:
    """Gradient updates after which the default model should have learned something."""
    return _TOTAL_STEPS.get(environment, namespace_of(environment).total_steps)


def _is_discrete(environment: str) -> bool:
    return namespace_of(environment).discrete or bool(_DISCRETE.fullmatch(environment))


def complete(
    name: str,
    environment: str | None = None,
    model: str | None = None,
    total_steps: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> Answers:
    """Checked answers, where None takes the default."""
    env = environment_id(environment or DEFAULT_CHOICE)
    model_id = resolve(model) if model else default_model(env)
    if "discrete" not in family_of_model(model_id).action_types and _is_discrete(env):
        raise ConfigurationError(
            f"{env} has discrete actions and {model_id} plans continuous ones",
            hint=f"choose one that takes them, such as --model {default_model(env)}",
        )
    steps = default_total_steps(env) if total_steps is None else total_steps
    numbers: dict[str, Any] = {"total_steps": steps, "device": device or "auto"}
    if batch_size is not None:
        numbers["batch_size"] = batch_size
    TrainingConfig(**numbers)  # checks them
    return Answers(name, env, model_id, steps, batch_size, device or "auto")
