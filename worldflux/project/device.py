"""The device that a run uses: the one asked for, or the CPU where it is not there."""

from __future__ import annotations

from collections.abc import Callable

from worldflux.errors import ConfigurationError
from worldflux.training.config import TrainingConfig
from worldflux.training.machine import resolve_device

from . import manifest as manifests
from .loader import Project


def usable_device(
    project: Project, config: TrainingConfig, strict: bool, say: Callable[[str], None]
) -> tuple[TrainingConfig, list[str]]:
    """The configuration with a device that this machine has, and what that degrades.

    Raises:
        ConfigurationError: when the one asked for is not there, and `strict` allows no other.
    """
    try:
        resolve_device(config.device)
    except ConfigurationError as error:
        if strict:
            raise ConfigurationError(
                error.message, where=project.where("training", "device"), hint=error.hint
            ) from None
        say(f"warning: {error.message}; continuing on the CPU (degraded: device_fallback)")
        return config.with_overrides(device="cpu"), [manifests.DEVICE_FALLBACK]
    return config, []
