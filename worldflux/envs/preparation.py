"""What worldflux does around an environment, whoever built it: pixels, sizes, stacks, repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium

from worldflux.errors import EnvironmentSetupError

from .pixels import RenderedPixels, RepeatedAction, ResizedImage, StackedFrames
from .returned import checked_environment

IMAGE_SIZE = (64, 64)


@dataclass(frozen=True)
class Preparation:
    """What worldflux does around an environment; the arguments beside its own.

    Attributes:
        pixels: observe what it draws.
        image_size: (height, width) of image observations, resized by area; None leaves them.
        frame_stack: frames on the channel axis.
        action_repeat: steps of one action; None is the namespace's protocol (4 frames for ALE/, 2
            control steps for dm_control/), elsewhere 1.
    """

    pixels: bool = False
    image_size: tuple[int, int] | None = None
    frame_stack: int = 1
    action_repeat: int | None = None


PREPARATIONS = tuple(Preparation.__dataclass_fields__)


def prepared_environment(
    build: Callable[[str | None], gymnasium.Env], render_mode: str | None, **arguments: Any
) -> gymnasium.Env:
    """An environment that was built elsewhere, prepared as `make_environment` does.

    Args:
        build: builds it for a render_mode.
        arguments: the fields of `Preparation`.

    Raises:
        EnvironmentSetupError: when one of them does not fit.
    """
    prepared = preparation(**arguments)
    env = checked_environment(build("rgb_array" if prepared.pixels else render_mode))
    return stacked(prepared_by(env, prepared), prepared)


def prepared_by(env: gymnasium.Env, prepared: Preparation) -> gymnasium.Env:
    """All but the stack of frames."""
    if prepared.action_repeat is not None and prepared.action_repeat > 1:
        env = RepeatedAction(env, prepared.action_repeat)
    if prepared.pixels:
        return RenderedPixels(env, prepared.image_size or IMAGE_SIZE)
    return env if prepared.image_size is None else ResizedImage(env, prepared.image_size)


def stacked(env: gymnasium.Env, prepared: Preparation) -> gymnasium.Env:
    """The environment with its frames stacked, if that is wanted."""
    return env if prepared.frame_stack == 1 else StackedFrames(env, prepared.frame_stack)


def preparation(
    pixels: bool = False,
    image_size: Any = None,
    frame_stack: int = 1,
    action_repeat: int | None = None,
) -> Preparation:
    """The arguments, checked.

    Raises:
        EnvironmentSetupError: naming the key and what is allowed.
    """
    return Preparation(
        _checked("pixels", pixels, bool),
        _size(image_size),
        _checked("frame_stack", frame_stack, int),
        None if action_repeat is None else _checked("action_repeat", action_repeat, int),
    )


def _checked(name: str, value: Any, kind: type[bool] | type[int]) -> Any:
    if type(value) is kind and (kind is bool or value >= 1):
        return value
    allowed = "true or false" if kind is bool else "a whole number of at least 1"
    raise EnvironmentSetupError(f"environment_kwargs.{name} = {value!r}: expected {allowed}")


def _size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    pair = list(given) if isinstance(given, (list, tuple)) else [given, given]
    if len(pair) != 2 or not all(type(side) is int and side >= 1 for side in pair):
        raise EnvironmentSetupError(
            f"environment_kwargs.image_size = {given!r}: expected a side, or [height, width]"
        )
    return pair[0], pair[1]
