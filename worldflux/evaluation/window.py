"""A window that shows frames as they are played."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from worldflux.errors import EnvironmentSetupError

from .episodes import EvaluationStopped

DEFAULT_FPS = 15  # where the environment does not say
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


class Window:
    """Shows each frame `[H, W, 3]` for 1 / `fps` seconds.

    Raises:
        EnvironmentSetupError: where there is no display, with what can be done instead.
        EvaluationStopped: out of `show`, once the user has closed it.
    """

    def __init__(self, title: str, fps: float) -> None:
        if sys.platform.startswith("linux") and not any(os.environ.get(n) for n in _DISPLAYS):
            raise _no_display(f"none of {', '.join(_DISPLAYS)} is set")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame, self._fps = pygame, fps
        try:
            pygame.display.init()
            pygame.display.set_caption(title)
        except pygame.error as error:
            raise _no_display(str(error)) from None
        self._surface: Any = None
        self._clock = pygame.time.Clock()

    def show(self, frame: np.ndarray) -> None:
        pygame = self._pygame
        if self._surface is None:
            self._surface = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
        self._surface.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        if pygame.event.get(pygame.QUIT):
            raise EvaluationStopped
        self._clock.tick(self._fps)

    def close(self) -> None:
        self._pygame.display.quit()


def _no_display(reason: str) -> EnvironmentSetupError:
    return EnvironmentSetupError(
        f"there is no display to open a window on: {reason}",
        hint="worldflux play --browser shows the agent on a page, worldflux eval writes a video",
    )
