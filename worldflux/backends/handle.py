"""`OfficialBackendHandle`: a model that an official implementation runs, not this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worldflux.errors import ConfigurationError, did_you_mean

NATIVE = "native_torch"
# Backend -> the family that it runs. The two DreamerV3 names are the same program.
BACKENDS = {
    "official_dreamerv3_jax_subprocess": "dreamer",
    "worldflux_dreamerv3_jax_subprocess": "dreamer",
    "official_tdmpc2_torch_subprocess": "tdmpc2",
}


@dataclass(frozen=True)
class OfficialBackendHandle:
    """What to run where: `Trainer(handle, config).submit()` starts it."""

    backend: str
    model_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def open_handle(
    backend: str, model_id: str, family: str, metadata: Mapping[str, Any]
) -> OfficialBackendHandle:
    """The handle of a model on a delegated backend.

    Raises:
        ConfigurationError: for an unknown backend, or one that runs another family.
    """
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
    return OfficialBackendHandle(backend, model_id, dict(metadata))
