"""A local page over run folders: it reads their files, and touches nothing else.

Needs the `dashboard` extra. `serve` blocks; `start_in_background` runs the page next to training.
Both raise `MissingDependencyError` where the extra is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.optional import require

if TYPE_CHECKING:
    from worldflux.dashboard.background import BackgroundDashboard
    from worldflux.dashboard.frame_page import FramePage

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "serve", "start_in_background"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765


def serve(runs: Sequence[str | Path] | str | Path, **options: Any) -> None:
    """Serve the page until interrupted; options as in `worldflux.dashboard.server.serve`."""
    _require_extra()
    from worldflux.dashboard.server import serve as run_server

    run_server(runs, **options)


def start_in_background(run_dir: str | Path, **options: Any) -> BackgroundDashboard:
    """The page in its own process; see `worldflux.dashboard.background`."""
    _require_extra()
    from worldflux.dashboard.background import start_in_background as start

    return start(run_dir, **options)


def frame_page(title: str, fps: float) -> FramePage:
    """A page that shows frames as they are played."""
    _require_extra()
    from worldflux.dashboard.frame_page import FramePage

    return FramePage(title, fps)


def _require_extra() -> None:
    require("the dashboard", "dashboard", "starlette", "uvicorn")
