"""The questions of `worldflux init` on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import questionary

from worldflux.errors import ConfigurationError
from worldflux.models.catalog import list_models
from worldflux.project.answers import (
    CHOICES,
    DEFAULT_NAME,
    PICKED,
    Answers,
    complete,
    default_model,
    default_total_steps,
    environment_id,
)

_CUSTOM = "custom"


def ask(
    name: str | None,
    env: str | None,
    model: str | None,
    steps: int | None,
    batch_size: int | None,
    device: str | None,
    check_new: Callable[[str], object],
) -> Answers:
    """Ask for every answer that is None, and check it at once. Ctrl-C raises KeyboardInterrupt.

    Args:
        check_new: refuses a name that is not allowed, or whose folder is taken.
    """
    name = name or _text("Project name", DEFAULT_NAME, check_new)
    environment = environment_id(env or _environment())
    model = model or _model(environment)
    if steps is None:
        default = str(default_total_steps(environment))
        steps = _count(_text("Gradient updates", default, _count))
    device = device or _choose("Device", [("auto", "auto"), ("cpu", "cpu"), ("cuda", "cuda")])
    answers = complete(name, environment, model, steps, batch_size, device)
    summary = f"{name}: {answers.environment}, {answers.model}, {steps:,} updates on {device}"
    if not questionary.confirm(f"Create {summary}?").unsafe_ask():
        raise KeyboardInterrupt
    return answers


def _environment() -> str:
    choices = [(f"{key:<8} {c.environment}: {c.description}", key) for key, c in CHOICES.items()]
    choices.append((f"{_CUSTOM:<8} any other Gymnasium id", _CUSTOM))
    answer = _choose("Environment", choices)
    return _text("Gymnasium id", "CartPole-v1", environment_id) if answer == _CUSTOM else answer


def _model(environment: str) -> str:
    """Offer the presets that fit the environment's actions: default first, with size and use."""
    entries = list_models(verbose=True, surface="public")
    fitting = [default_model(environment)]
    for model in dict.fromkeys([*PICKED, *list_models()]):
        with contextlib.suppress(ConfigurationError):  # TD-MPC2 for discrete actions
            fitting.append(complete(DEFAULT_NAME, environment, model).model)
    choices = []
    for model in dict.fromkeys(fitting):
        size = f"{entries[model]['parameters'] / 1e6:6.1f}M"
        choices.append((f"{model:<23}{size}  {PICKED.get(model, '')}", model))
    return _choose("Model", choices)


def _choose(question: str, choices: list[tuple[str, str]]) -> str:
    options = [questionary.Choice(title=title.rstrip(), value=value) for title, value in choices]
    answer: str = questionary.select(question, choices=options).unsafe_ask()
    return answer


def _text(question: str, default: str, check: Callable[[str], object]) -> str:
    """Ask for a line; an empty one takes the default, which is shown and not typed already."""

    def complaint(text: str) -> bool | str:
        try:
            check(text or default)
        except ConfigurationError as error:
            return f"{error.message}: {error.hint}" if error.hint else error.message
        return True

    asked = questionary.text(f"{question} ({default})", validate=complaint)
    return asked.unsafe_ask() or default


def _count(text: str) -> int:
    """A whole number above 0, as in 20000, 20_000, 20,000 or 2e4."""
    plain = text.strip().replace(",", "").replace("_", "")
    try:
        number = float(plain)
    except ValueError:
        number = 0.0
    if not (1 <= number < 1e15 and number == int(number)):
        raise ConfigurationError("a whole number above 0")
    return int(number)
