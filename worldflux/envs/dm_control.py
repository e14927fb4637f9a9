"""DeepMind Control Suite tasks as Gymnasium environments: `dm_control/<domain>-<task>-v0`.

The protocol of the papers: every action is repeated (twice for TD-MPC2 and DreamerV3), the
rewards of the repeats are summed, and an episode has 1,000 control steps without a terminal
state. An observation is every entry of the task's dictionary, in its order, as one float32 vector;
or what the task's camera sees.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvironmentSetupError

from .make import check_arguments, gym_environment
from .namespaces import CONTROL, frames_per_step
from .wrappers import IMAGE_SIZE, Preparation

EPISODE_STEPS = CONTROL.episode_frames or 0  # control steps of every task of the suite
_SHORT_DOMAINS = {"cup": "ball_in_cup"}  # the papers' name -> the suite's


def register() -> None:
    """Make every task of the suite known to Gymnasium; more than once does no harm."""
    from dm_control import suite

    (prefix,) = CONTROL.prefixes
    if f"{prefix}cartpole-balance-v0" in gymnasium.registry:
        return
    tasks = [(domain, domain, task) for domain, task in suite.ALL_TASKS]
    for short, domain in _SHORT_DOMAINS.items():
        tasks += [(short, domain, task) for d, task in suite.ALL_TASKS if d == domain]
    for name, domain, task in tasks:
        gymnasium.register(
            f"{prefix}{name}-{task}-v0",
            "worldflux.envs.dm_control:ControlSuiteTask",
            max_episode_steps=EPISODE_STEPS // CONTROL.action_repeat,
            kwargs={"domain": domain, "task": task},
        )


def build(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> gymnasium.Env:
    """One task, which repeats actions and draws its observations itself."""
    check_arguments(env_id, arguments)
    if prepared.image_size and not prepared.pixels:
        raise EnvironmentSetupError(
            f"environment_kwargs.image_size needs images; {env_id} observes numbers",
            hint="set environment_kwargs.pixels = true, or leave out environment_kwargs.image_size",
        )
    repeat = frames_per_step(env_id, prepared.action_repeat)
    usual = {
        "max_episode_steps": -(-EPISODE_STEPS // repeat),
        "action_repeat": repeat,
        "pixels": prepared.pixels,
        "image_size": prepared.image_size or IMAGE_SIZE,
    }
    return gym_environment(env_id, render_mode, **{**usual, **arguments})


class ControlSuiteTask(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of the suite.

    Args:
        domain: such as "walker".
        task: such as "walk".
        action_repeat: control steps of one agent step; their rewards are summed.
        render_mode: "rgb_array" or None.
        render_size: (height, width) of a frame.
        pixels: observe frames instead of the task's numbers.
        image_size: (height, width) of an observed frame.
        camera: 0, and 2 for the quadruped, whose first ones do not follow it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        domain: str,
        task: str,
        action_repeat: int = CONTROL.action_repeat,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
        pixels: bool = False,
        image_size: tuple[int, int] = (64, 64),
        camera: int | None = None,
    ) -> None:
        from dm_control import suite

        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self._repeat = action_repeat
        self.render_mode = render_mode
        self._size = render_size
        self._pixels = (image_size[0], image_size[1]) if pixels else None
        self._camera = (2 if domain == "quadruped" else 0) if camera is None else camera
        action = self._env.action_spec()
        low = np.broadcast_to(action.minimum, action.shape).astype(np.float32)
        high = np.broadcast_to(action.maximum, action.shape).astype(np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        size = sum(int(np.prod(s.shape)) for s in self._env.observation_spec().values())
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        if self._pixels is not None:
            self.observation_space = spaces.Box(0, 255, (*self._pixels, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, observation `[D]`; a seed fixes this and every later start."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed)
        return self._observed(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """`action_repeat` control steps of an action `[A]`; an end with discount 0 is terminal."""
        reward = 0.0
        for _ in range(self._repeat):
            step = self._env.step(action.astype(np.float64))
            reward += float(step.reward or 0.0)
            if step.last():
                break
        terminal = step.last() and step.discount == 0.0
        return self._observed(step.observation), reward, terminal, step.last() and not terminal, {}

    def render(self) -> np.ndarray:
        """An RGB frame `[H, W, 3]`."""
        return self._frame(self._size)

    def close(self) -> None:
        self._env.close()

    def _frame(self, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(self._env.physics.render(*size, camera_id=self._camera))

    def _observed(self, observation: Any) -> np.ndarray:
        if self._pixels is not None:
            return self._frame(self._pixels)
        return np.concatenate([np.ravel(entry) for entry in observation.values()], dtype=np.float32)
