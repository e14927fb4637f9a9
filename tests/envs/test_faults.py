"""What a user's environment can do wrong, and what the user is told: what, where, what helps."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.make import make_environment
from worldflux.envs.requirements import has_library
from worldflux.envs.vector import VectorEnvironment
from worldflux.envs.wrappers import prepared_environment
from worldflux.errors import (
    EnvironmentFault,
    EnvironmentSetupError,
    MissingDependencyError,
    WorldFluxError,
)

API = "Gymnasium's API: reset(self, *, seed=None, options=None) returns observation, info"


class Base(gymnasium.Env):
    """An environment without a fault."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    reward: Any = 1.0
    ended: Any = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), self.reward, self.ended, False, {}


class NoSpaces(gymnasium.Env):
    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        raise NotImplementedError("no simulator")


class Asserts(Base):
    def __init__(self) -> None:
        raise AssertionError


class NoSeed(Base):
    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(3, np.float32), {}


class OldReset(Base):
    def reset(self, **kwargs: Any) -> Any:
        return np.zeros(3, np.float32)


class OldStep(Base):
    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), 0.0, False, {}


class NoAction(Base):
    def step(self) -> Any:  # type: ignore[override]
        return np.zeros(3, np.float32), 0.0, False, False, {}


class NoSpace(Base):
    observation_space = None  # type: ignore[assignment]


class NoMetadata(Base):
    metadata = None  # type: ignore[assignment]


class NoReward(Base):
    reward = None


class TextReward(Base):
    reward = "much"


class HugeReward(Base):
    reward = 1e39


class NoFlag(Base):
    ended = None


class Outside(Base):
    def step(self, action: Any) -> Any:
        return np.full(3, 2.0, np.float32), 0.0, False, False, {}


class InNumpy(Base):
    def step(self, action: Any) -> Any:
        return np.linalg.inv(np.zeros((2, 2))), 0.0, False, False, {}


class Silent(Base):
    def step(self, action: Any) -> Any:
        raise RuntimeError


class Interrupts(Base):
    def step(self, action: Any) -> Any:
        raise KeyboardInterrupt


class FailsAtReset(Base):
    def reset(self, **kwargs: Any) -> Any:
        raise RuntimeError("no map")


class Wide(Base):
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def step(self, action: Any) -> Any:
        return np.full(3, 1e300), 0.0, False, False, {}


CASES: list[tuple[Any, str, str | None]] = [
    (lambda: None, "make returned None, expected a gymnasium.Env", "return the environment"),
    (lambda: 3, "make returned a builtins.int, expected", "a class derived from gymnasium.Env"),
    (NoSpace, "observation_space is None", "set self.observation_space to one of gymnasium.spaces"),
    (NoMetadata, "environment whose metadata is None", "set metadata to a dict"),
    (Asserts, "make raised AssertionError: raise AssertionError", None),
    (NoSpaces, "make raised NotImplementedError: no simulator", None),
    (NoSeed, "reset raised TypeError: NoSeed.reset() got an unexpected keyword", API),
    (OldReset, "reset returned a ndarray, expected 2 values", API),
    (OldStep, "step returned 4 values, expected 5 values", API),
    (NoAction, "step raised TypeError: NoAction.step() takes 1 positional argument", API),
    (NoReward, "reward is None, expected a number", "fix the environment"),
    (TextReward, "reward is 'much', expected a number", "fix the environment"),
    (HugeReward, "reward does not fit float32: 1e+39", "fix the environment"),
    (NoFlag, "terminated is None, expected True or False", "fix the environment"),
    (Outside, "outside its declared bounds: 2.0", "online_collection.check_bounds=false"),
    (InNumpy, "step raised LinAlgError: Singular matrix", "on_env_error"),
    (Silent, "step raised RuntimeError: raise RuntimeError", "on_env_error"),
    (Interrupts, "step raised KeyboardInterrupt: raise KeyboardInterrupt", "on_env_error"),
    (FailsAtReset, "reset raised RuntimeError: no map", "it fails before its first step"),
    (Wide, "observation does not fit float32: 1e+300", "fix the environment"),
]


def fault_of(make: Any) -> WorldFluxError:
    """What is raised when two steps are taken in `make()`."""
    with pytest.raises(EnvironmentFault) as caught:
        stepped(make)
    return caught.value


def stepped(make: Any, steps: int = 1, **options: Any) -> None:
    envs = VectorEnvironment("My-v0", lambda _: make(), 1, **options)
    envs.reset(0)
    for _ in range(steps):
        envs.step(np.zeros((1, 1), np.float32))


@pytest.mark.parametrize(("make", "said", "hint"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_fault_says_what_and_what_helps(
    make: Any, said: str, hint: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = fault_of(make)
    assert capfd.readouterr().err == ""  # no traceback of its process
    assert said in fault.message
    assert fault.hint is None if hint is None else hint in (fault.hint or "")
    if "make " in said or hint == API or make is FailsAtReset or "check_bounds" in (hint or ""):
        assert "restart" not in (fault.hint or "")  # it would fail the same way again


@pytest.mark.parametrize(
    ("make", "function", "line"),
    [
        (Asserts, Asserts.__init__, 1),
        (NoSeed, NoSeed.reset, 0),
        (NoAction, NoAction.step, 0),
        (InNumpy, InNumpy.step, 1),
        (Silent, Silent.step, 1),
    ],
)
def test_a_fault_names_the_line_of_the_users_code(make: Any, function: Any, line: int) -> None:
    first = inspect.getsourcelines(function)[1]
    assert fault_of(make).where == f"{__file__}:{first + line}"


@pytest.mark.parametrize(
    ("built", "key"), [(NoSeed, "reset"), (OldReset, "reset"), (OldStep, "step")]
)
def test_registered_environments_of_the_old_api_are_told_the_new_one(built: Any, key: str) -> None:
    gymnasium.register("Old-v0", built, max_episode_steps=9, disable_env_checker=True)
    try:
        fault = fault_of(lambda: make_environment("Old-v0"))
    finally:
        del gymnasium.registry["Old-v0"]
    assert f"{key} " in fault.message
    assert API in (fault.hint or "")


def test_a_class_without_render_mode_is_told_so() -> None:
    def make(index: int) -> Any:
        return Asserts(render_mode="rgb_array")  # type: ignore[call-arg]

    with pytest.raises(EnvironmentFault) as caught:
        VectorEnvironment("My-v0", make, 1)
    assert caught.value.hint == "give Asserts.__init__ a parameter render_mode=None"
    assert (caught.value.where or "").startswith(f"{__file__}:")


def test_a_make_that_takes_long_is_named_while_it_is_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(index: int) -> Any:
        time.sleep(1.0)
        return Base()

    monkeypatch.setattr("worldflux.envs.process.REPORT_AFTER_S", 0.3)
    VectorEnvironment("My-v0", make, 1).close()
    said = "warning: still waiting for make of My-v0: environment 0 (it may take 120 s)\n"
    assert capfd.readouterr().err == said


def test_an_array_of_one_is_a_reward_and_a_flag() -> None:
    class Arrays(Base):
        reward = np.ones(1, np.float32)
        ended = np.array([True])

    for repeat in (None, 3):
        envs = VectorEnvironment(
            "My-v0",
            lambda _, n=repeat: prepared_environment(lambda mode: Arrays(), None, action_repeat=n),
            1,
        )
        envs.reset(0)
        step = envs.step(np.zeros((1, 1), np.float32))
        assert (step.reward.tolist(), step.is_terminal.tolist()) == ([1.0], [True])
        envs.close()


def test_a_close_that_raises_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class BadClose(Base):
        def close(self) -> None:
            raise RuntimeError("already gone")

    envs = VectorEnvironment("My-v0", lambda _: BadClose(), 2)
    envs.reset(0)
    envs.close()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2
    assert all("My-v0: close raised RuntimeError: already gone" in line for line in told)
    assert all(line.startswith(f"warning: {__file__}:") for line in told)


PARENT = """
import multiprocessing
from multiprocessing import resource_tracker, shared_memory

import numpy as np
from test_faults import Base
from worldflux.envs.vector import VectorEnvironment


def double(value):
    return 2 * value


class Parent(Base):
    def __init__(self):
        self.pools = [multiprocessing.get_context(method).Pool(1) for method in ("fork", "spawn")]
        self.shared = shared_memory.SharedMemory(create=True, size=64)

    def step(self, action):
        reward = sum(pool.apply(double, (2.0,)) for pool in self.pools)
        return np.zeros(3, np.float32), reward, False, False, {}

    def close(self):
        self.shared.close()
        self.shared.unlink()
        for pool in self.pools:
            pool.terminate()


if __name__ == "__main__":
    resource_tracker.ensure_running()  # as a logger of the trainer may
    envs = VectorEnvironment("My-v0", lambda _: Parent(), 1)
    envs.reset(0)
    print(envs.step(np.zeros((1, 1), np.float32)).reward.tolist())
    envs.close()
"""


def test_an_environment_may_start_processes_and_share_memory(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[8.0]\n", "")


def test_more_restarts_than_three_are_possible() -> None:
    class OftenDown(Base):
        def __init__(self) -> None:
            self.t = 0

        def step(self, action: Any) -> Any:
            self.t += 1
            if self.t == 2:
                raise RuntimeError("down")
            return super().step(action)

    with pytest.raises(EnvironmentFault, match="failed at step 12") as caught:
        stepped(OftenDown, 20, on_env_error="restart", max_restarts=5)
    assert "restarted 5 times already (online_collection.max_restarts)" in (caught.value.hint or "")


def test_preparations_of_an_environment_that_was_built_elsewhere_are_checked() -> None:
    for name, value in {"image_size": 3.5, "frame_stack": 0, "pixels": 1}.items():
        with pytest.raises(EnvironmentSetupError, match=f"environment_kwargs.{name}"):
            prepared_environment(lambda mode: Base(), None, **{name: value})


@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed")
def test_a_missing_package_is_named_as_gymnasium_does() -> None:
    with pytest.raises(MissingDependencyError, match="Box2D is not installed") as caught:
        make_environment("LunarLander-v3")
    assert caught.value.hint == 'pip install swig && pip install "gymnasium[box2d]"'


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed")
@pytest.mark.skipif(has_library("libOSMesa.so.8"), reason="OSMesa is installed")
def test_a_renderer_that_is_not_there_is_named() -> None:
    program = "from worldflux.envs import make_environment; make_environment('HalfCheetah-v5')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "MUJOCO_GL": "osmesa"},  # not what other tests chose
        check=False,
    )
    assert "no libOSMesa.so.8: apt-get install libosmesa6, or unset MUJOCO_GL" in done.stderr
