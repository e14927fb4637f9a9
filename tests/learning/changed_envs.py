"""Known environments with one property changed, as ids: `changed_envs:LongPole-v0`.

For the trust study: a model that learned in the known one should notice.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from worldflux.envs.make import register_own


def _pendulum(render_mode: str | None = None, **changes: float) -> Any:
    return _changed("Pendulum-v1", render_mode, changes)


def _cart_pole(render_mode: str | None = None, **changes: float) -> Any:
    env = _changed("CartPole-v1", render_mode, changes)
    inner = env.unwrapped
    inner.total_mass = inner.masspole + inner.masscart
    inner.polemass_length = inner.masspole * inner.length
    return env


def _inverted_pendulum(render_mode: str | None = None, **factors: float) -> Any:
    """MuJoCo's, with the gravity or the mass of every body times a factor."""
    env = gymnasium.make("InvertedPendulum-v5", render_mode=render_mode)
    physics = env.unwrapped.model  # type: ignore[attr-defined]
    physics.opt.gravity[:] *= factors.get("gravity", 1.0)
    for values in (physics.body_mass, physics.body_inertia):
        values[:] *= factors.get("mass", 1.0)
    return env


def _catch(render_mode: str | None = None) -> Any:
    """Catch in other colours: red, green and blue change places."""
    register_own()
    env = gymnasium.make("worldflux/Catch-v0", render_mode=render_mode)
    return gymnasium.wrappers.TransformObservation(
        env, lambda image: np.ascontiguousarray(image[..., [1, 2, 0]]), env.observation_space
    )


def _changed(env_id: str, render_mode: str | None, changes: dict[str, float]) -> Any:
    env = gymnasium.make(env_id, render_mode=render_mode)
    for name, value in changes.items():
        assert hasattr(env.unwrapped, name), name
        setattr(env.unwrapped, name, value)
    return env


_CHANGES: dict[str, tuple[Any, dict[str, float]]] = {
    "StrongGravity-v0": (_pendulum, {"g": 15.0}),
    "WeakGravity-v0": (_pendulum, {"g": 6.0}),
    "HeavyPendulum-v0": (_pendulum, {"m": 2.0}),
    "LongPole-v0": (_cart_pole, {"length": 1.5}),
    "HeavyPole-v0": (_cart_pole, {"masspole": 1.0}),
    "StrongPull-v0": (_cart_pole, {"gravity": 25.0}),
    "DoubleGravity-v0": (_inverted_pendulum, {"gravity": 2.0}),
    "DoubleMass-v0": (_inverted_pendulum, {"mass": 2.0}),
    "OtherColours-v0": (_catch, {}),
}
for _name, (_make, _arguments) in _CHANGES.items():
    gymnasium.register(f"{_name}", entry_point=_make, kwargs=_arguments)
