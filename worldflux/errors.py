"""Every error a user can meet: a stable code, what happened, where, and the next step.

Each class maps to one exit code of the command line (0 ok; 1 the run failed; 2 usage or
configuration; 3 a check failed; 4 a missing optional dependency).
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable
from pathlib import Path

_PYTHON = os.path.dirname(os.__file__) + os.sep
_OURS = str(Path(__file__).parent) + os.sep
_PACKAGES = ("site-packages", "dist-packages")


class WorldFluxError(Exception):
    """Base of every error that worldflux raises on purpose.

    Args:
        message: what happened, in one sentence that names the value.
        where: a file, `file:line:col`, a field or a tensor.
        hint: the exact next command or change that fixes it.
    """

    code = "worldflux"
    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message if self.where is None else f"{self.where}: {self.message}"]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class ConfigurationError(WorldFluxError, ValueError):
    """A field, flag or file holds a value that is not allowed.

    Attributes:
        fields: the fields of a configuration that are at odds, the refused one first.
    """

    code = "configuration"
    exit_code = 2
    fields: tuple[str, ...] = ()


class ModelNotFoundError(ConfigurationError):
    """No model of that name in the catalogue, and no saved model at that path."""

    code = "model-not-found"


class EnvironmentSetupError(ConfigurationError):
    """The environment does not exist, or does not fit the chosen family."""

    code = "environment"


class EnvironmentFault(WorldFluxError):
    """An environment broke its contract while running (crash, hang, NaN, wrong shape).

    Attributes:
        env_id, index, step, key: which environment, the step since the reset (0 is the reset
            itself), and what of it was wrong: "step", "reset", "reward", "observation['camera']".
    """

    code = "environment-fault"
    env_id: str = ""
    index: int = 0
    step: int = 0
    key: str = ""


class ShapeMismatchError(WorldFluxError, ValueError):
    """A tensor has another shape than the model was built for."""

    code = "shape"


class StateError(WorldFluxError, ValueError):
    """A latent state or trajectory is inconsistent."""

    code = "state"


class CapabilityError(WorldFluxError):
    """The model was asked for something that it does not offer."""

    code = "capability"


class TrainingError(WorldFluxError):
    """Training had to stop (a non-finite loss, a failed save)."""

    code = "training"


class NonFiniteError(TrainingError):
    """A loss, gradient or weight became NaN or infinite."""

    code = "non-finite"


class LostProcessError(TrainingError):
    """Another process of the run ended, or did not answer in time."""

    code = "lost-process"


class StorageError(WorldFluxError, OSError):
    """A file could not be written: the disk is full, read-only or gone."""

    code = "storage"


class CheckpointError(WorldFluxError):
    """A checkpoint or saved model is damaged, foreign or incomplete."""

    code = "checkpoint"


class RunFolderError(WorldFluxError):
    """The output folder cannot be used: locked, foreign, or already holding a run."""

    code = "run-folder"
    exit_code = 2


class VerificationError(WorldFluxError):
    """Verification could not be carried out (a failed check is a verdict, not an error)."""

    code = "verification"
    exit_code = 2


class ExportError(WorldFluxError):
    """An exported policy does not act as its agent does."""

    code = "export"
    exit_code = 3


class MissingDependencyError(WorldFluxError):
    """An optional package is needed; the hint is its install command."""

    code = "missing-dependency"
    exit_code = 4


def nearest(name: str, choices: Iterable[str], limit: int = 3, cutoff: float = 0.55) -> list[str]:
    """The choices most like `name`, best first, for "did you mean"."""
    by_folded = {choice.lower(): choice for choice in choices}
    hits = difflib.get_close_matches(name.lower(), list(by_folded), limit, cutoff)
    return [by_folded[hit] for hit in hits]


def did_you_mean(name: str, choices: Iterable[str]) -> str | None:
    """`did you mean 'x'?` for the nearest choices, or None when nothing is near."""
    hits = nearest(name, choices)
    if not hits:
        return None
    return "did you mean " + " or ".join(repr(hit) for hit in hits) + "?"


def described(error: BaseException) -> str:
    """The type and text of an exception; the line that raised one without text."""
    text = str(error)
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        text = str(frames[-1].line or "") if frames else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str | None:
    """`file:line` in the user's code that an exception came through last, else in a package's."""
    frames = frames_of(error) or frames_of(error, installed=True)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def frames_of(error: BaseException, *, installed: bool = False) -> list[traceback.FrameSummary]:
    """The frames outside of Python and worldflux, and outside of packages unless `installed`."""
    found = []
    for frame in traceback.extract_tb(error.__traceback__):
        in_package = any(folder in frame.filename for folder in _PACKAGES)
        in_python = frame.filename.startswith((_PYTHON, "<")) and not in_package
        if not in_python and not frame.filename.startswith(_OURS) and in_package <= installed:
            found.append(frame)
    return found
