"""The questions of `worldflux init` on a terminal."""

from __future__ import annotations

from collections.abc import Callable

import questionary

from worldflux.errors import ConfigurationError
from worldflux.models.catalog import list_models
from worldflux.project.answers import (
    CHOICES,
    DEFAULT_NAME,
    Answers,
    complete,
    default_model,
    default_total_steps,
    environment_id,
)
from worldflux.project.names import check_name

_CUSTOM = "custom"


def ask(
    name: str | None,
    env: str | None,
    model: str | None,
    steps: int | None,
    batch_size: int | None,
    device: str | None,
) -> Answers:
    """Ask for every answer that is None, and check it at once. Ctrl-C raises KeyboardInterrupt."""
    name = name or _text("Project name", DEFAULT_NAME, check_name)
    environment = environment_id(env or _environment())
    model = model or _model(environment)
    if steps is None:
        default = str(default_total_steps(environment))
        steps = int(_text("Gradient updates", default, _check_count))
    device = device or _choose("Device", [("auto", "auto"), ("cpu", "cpu"), ("cuda", "cuda")])
    return complete(name, environment, model, steps, batch_size, device)


def _environment() -> str:
    choices = [(f"{key:<8} {c.environment}: {c.description}", key) for key, c in CHOICES.items()]
    choices.append((f"{_CUSTOM:<8} any other Gymnasium id", _CUSTOM))
    answer = _choose("Environment", choices)
    return _text("Gymnasium id", "CartPole-v1", environment_id) if answer == _CUSTOM else answer


def _model(environment: str) -> str:
    """Offer the supported presets that fit the environment's actions, the default first."""
    fitting = []
    for model in list_models():
        try:
            fitting.append(complete(DEFAULT_NAME, environment, model).model)
        except ConfigurationError:
            continue  # TD-MPC2 for discrete actions
    first = default_model(environment)
    ordered = [first, *(model for model in fitting if model != first)]
    return _choose("Model", [(model, model) for model in ordered])


def _choose(question: str, choices: list[tuple[str, str]]) -> str:
    options = [questionary.Choice(title=title, value=value) for title, value in choices]
    answer: str = questionary.select(question, choices=options).unsafe_ask()
    return answer


def _text(question: str, default: str, check: Callable[[str], object]) -> str:
    def complaint(text: str) -> bool | str:
        try:
            check(text)
        except ConfigurationError as error:
            return error.message
        return True

    answer: str = questionary.text(question, default=default, validate=complaint).unsafe_ask()
    return answer


def _check_count(text: str) -> None:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigurationError("a whole number above 0")
