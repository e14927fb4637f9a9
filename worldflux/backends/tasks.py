"""The same task under two names: an official program's, and our environment id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worldflux.errors import ConfigurationError

from .programs import TDMPC2, Program

_CONTROL, _ATARI = "dm_control/", "ALE/"
# Domains of the control suite that both programs abbreviate, because they cut a name at its first
# underscore (dreamerv3 embodied/envs/dmc.py, tdmpc2 envs/dmcontrol.py).
_SHORT = {"ball_in_cup": "cup"}
_SHORT_TDMPC2 = {**_SHORT, "point_mass": "pointmass"}
# What of an environment's own arguments a program can be told: by the observation, by the suite.
_TOLD = ("pixels", "repeat_action_probability")
_STICKY = 0.25  # of Gymnasium's v5 games, and of the program's suite "atari"


def environment_id(program: Program, task: str) -> str:
    """Our id of an official task, where there is one; else the official name."""
    if program is TDMPC2:
        domain, _, rest = task.replace("-", "_").partition("_")
        return f"{_CONTROL}{_long(domain)}-{rest}-v0"
    suite, _, rest = task.partition("_")
    if suite == "dmc":
        domain, _, rest = rest.partition("_")
        return f"{_CONTROL}{_long(domain)}-{rest}-v0"
    if suite in ("atari", "atari100k"):
        name = "jamesbond" if rest == "james_bond" else rest
        return f"{_ATARI}{''.join(word.capitalize() for word in name.split('_'))}-v5"
    return task


def environment_arguments(task: str) -> dict[str, Any]:
    """What our environment has to be given to be the official one."""
    sticky = {"atari": _STICKY, "atari100k": 0.0}  # dreamerv3/configs.yaml, env
    suite = task.partition("_")[0]
    return {"repeat_action_probability": sticky[suite]} if suite in sticky else {}


def official_task(program: Program, env_id: str, arguments: Mapping[str, Any]) -> str:
    """The program's own name of one of our environments.

    Raises:
        ConfigurationError: when the program has no such task, or cannot be told an argument.
    """
    told = set(_TOLD if env_id.startswith(_ATARI) else _TOLD[:1])
    untold = sorted(set(arguments) - told)
    if untold:
        raise ConfigurationError(
            f"the {program.title} is not told environment_kwargs {', '.join(untold)}",
            hint="remove them; its own configuration decides how it acts",
        )
    name, dash, task = env_id.rpartition("-v")[0].partition("-")
    if env_id.startswith(_CONTROL) and dash:
        short = _SHORT_TDMPC2 if program is TDMPC2 else _SHORT
        domain = name.removeprefix(_CONTROL)
        domain = short.get(domain, domain)
        if "_" not in domain:
            return f"{domain}-{task.replace('_', '-')}" if program is TDMPC2 else _dmc(domain, task)
    if env_id.startswith(_ATARI) and program is not TDMPC2:
        game = env_id.removeprefix(_ATARI).rpartition("-v")[0]
        suite = "atari" if arguments.get("repeat_action_probability", _STICKY) else "atari100k"
        return f"{suite}_{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', game).lower()}"
    suites = "dm_control/" if program is TDMPC2 else "dm_control/ and ALE/"
    raise ConfigurationError(
        f"the {program.title} has no task for the environment {env_id!r}",
        hint=f"its tasks are those of {suites}; create_world_model(..., task=...) names others",
    )


def action_repeat(program: Program, task: str) -> int:
    """Frames of one action, as the program's own configuration has it."""
    repeated = {"atari": 4, "atari100k": 4, "dmlab": 4}  # dreamerv3/configs.yaml, env
    return 2 if program is TDMPC2 else repeated.get(task.partition("_")[0], 1)


def _dmc(domain: str, task: str) -> str:
    return f"dmc_{domain}_{task}"


def _long(domain: str) -> str:
    return {short: long for long, short in _SHORT_TDMPC2.items()}.get(domain, domain)
