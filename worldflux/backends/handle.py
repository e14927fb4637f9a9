"""`OfficialBackendHandle`: a model that an official implementation runs, not this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.registry import our_families

NATIVE = "native_torch"
# Backend -> the family that it runs.
BACKENDS = {name: row.name for row in our_families().values() for name in row.backends}
# Options of `create_world_model(..., backend=...)`: the observation (an image or a vector), the
# official program's task, where it is installed, how long it runs, its further flags.
OPTIONS: tuple[str, ...] = ("obs_shape", "action_dim", "device", "task", "checkout", "python")
OPTIONS += ("environment_steps", "arguments")


@dataclass(frozen=True)
class OfficialBackendHandle:
    """What to run where: `Trainer(handle, config).submit()` starts it."""

    backend: str
    model_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def open_handle(
    backend: str, model_id: str, family: str, metadata: Mapping[str, Any]
) -> OfficialBackendHandle:
    """The handle of a model on a delegated backend."""
    if backend not in BACKENDS:
        raise ConfigurationError(
            f"there is no backend {backend!r}: known are {', '.join((NATIVE, *BACKENDS))}",
            hint=did_you_mean(backend, (NATIVE, *BACKENDS)),
        )
    if BACKENDS[backend] != family:
        fitting = ", ".join(name for name, runs in BACKENDS.items() if runs == family)
        raise ConfigurationError(
            f"backend {backend!r} does not run {model_id}", hint=f"backends that do: {fitting}"
        )
    for name in metadata:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"a delegated backend takes no {name!r}: it takes {', '.join(OPTIONS)}",
                hint=did_you_mean(name, OPTIONS)
                or "the official program's own flags: arguments=[...]",
            )
    return OfficialBackendHandle(backend, model_id, dict(metadata))
