"""Every kind of environment with every family: trained for real, or refused with the reason."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from matrix import BMPC, CASES, DREAMER, TDMPC2, Case, train

from worldflux.envs.requirements import has_library
from worldflux.errors import ConfigurationError

UPDATES = 6


def can_draw() -> bool:
    return has_library("libEGL.so.1") or has_library("libOSMesa.so.8")


DRAWN = ("cartpole pixels", "dict")  # what is imagined of images and of several observations
NEEDS = {"ALE/": "ale_py", "dm_control/": "dm_control", "HalfCheetah": "mujoco"}


@pytest.mark.parametrize("model", [DREAMER, TDMPC2, BMPC])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_pair_trains_or_says_why_not(
    case: Case, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if case.name in DRAWN:
        request.getfixturevalue("pictures")
    for prefix, module in NEEDS.items():
        if case.environment.startswith(prefix) and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    if "pixels" in case.kwargs and "dm_control" in case.environment and not can_draw():
        pytest.skip("MuJoCo needs libEGL.so.1 or libOSMesa.so.8 to draw: apt install libegl1")
    if model in case.refused:
        with pytest.raises(ConfigurationError, match=case.refused[model]):
            train(case, model, UPDATES, tmp_path)
        return
    manifest = train(case, model, UPDATES, tmp_path)
    assert (manifest["status"], manifest["data_mode"]) == ("completed", "online")
    assert manifest["global_step"] == UPDATES
    assert manifest["env_steps"] >= 60 + UPDATES - 2
    assert manifest["environment"]["kwargs"] == case.kwargs
    assert manifest["environment"]["frames_per_env_step"] >= 1  # what published curves count
