"""`worldflux data info` and `convert`: recorded data, read through to its last value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.data.columns import column_specs, row_bytes
from worldflux.data.lerobot import INFO
from worldflux.data.offline import Copied, check_fits, copy_episodes, read_through
from worldflux.data.recorded import (
    HDF5,
    LEROBOT,
    MINARI,
    NPZ,
    OFFLINE_SOURCES,
    KnownEnvironment,
    OfflineData,
    open_offline,
)
from worldflux.data.recorded_columns import Dones
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError
from worldflux.files import require_place

from .dataset_file import enter_project
from .document import FILE_NAME
from .environments import environment_maker, measured_environment, vector_environment
from .loader import Project, load_project
from .plan_data import open_project_data, open_task_data, run_spec

_SUFFIXES = {".npz": NPZ, ".hdf5": HDF5, ".h5": HDF5}
_READERS = {"env": OFFLINE_SOURCES, "dones": (NPZ, HDF5, LEROBOT), "image-size": (LEROBOT,)}


@dataclass(frozen=True)
class DataReport:
    """What recorded data holds, what of it the replay takes, and its size there in bytes."""

    data: OfflineData
    copied: Copied
    spec: EnvironmentSpec
    replay_bytes: int

    def to_dict(self) -> dict[str, Any]:
        lengths, returns = self.data.lengths, self.copied.returns
        return {
            **self.data.summary(),
            **self.copied.to_dict(),
            "length_min": int(lengths.min()),
            "length_mean": float(lengths.mean()),
            "length_max": int(lengths.max()),
            "return_min": min(returns),
            "return_mean": float(np.mean(returns)),
            "return_max": max(returns),
            "observations": dict(self.spec.modalities or {"": self.spec.obs_shape}),
            "actions": f"{self.spec.action_type}, {self.spec.action_dim}",
            "replay_bytes": self.replay_bytes,
        }

    def __str__(self) -> str:
        numbers, env_id = self.to_dict(), self.spec.env_id
        observed = (f"{name} {shape}".strip() for name, shape in numbers["observations"].items())
        length = "{length_min} to {length_max}, mean {length_mean:.1f}"
        returned = "{return_min:.4g} to {return_max:.4g}, mean {return_mean:.4g}"
        lines = [
            ("data", self.data.where),
            ("environment", "not known" if env_id == NO_ENVIRONMENT else env_id),
            ("recorded", str(self.copied.recorded)),
            ("replay", f"{self.copied.replay}; {self.replay_bytes:,} bytes"),
            ("length", length.format(**numbers)),
            ("return", returned.format(**numbers)),
            ("observations", ", ".join(observed)),
            ("actions", numbers["actions"]),
            *(("note", note) for note in self.copied.notes),
        ]
        return "\n".join(f"{name:14} {text}" for name, text in lines)


def report_on(target: str) -> DataReport:
    """Read recorded data through: a project's, or that of a file, folder or Minari data set."""
    path = Path(target)
    source = _source_of(path)
    if source is None:
        return _of_project(path)
    data = open_offline(source, target, dones="open")
    if data.unknown is not None:
        note = f"{data.unknown}: to train, set environment to the one that it was recorded in"
        data = dataclasses.replace(data, notes=(*data.notes, note))
    return _report(data, data.spec(data.env_id or NO_ENVIRONMENT))


def convert(
    target: str,
    out: Path,
    dones: Dones | None,
    image_size: int | None,
    env_id: str | None = None,
) -> Copied:
    """Write recorded data as one npz file of a replay, which `data.source = "npz"` reads.

    Args:
        env_id: the environment whose observations and actions they are read as.

    Raises:
        ConfigurationError: when `out` exists, is no .npz file or in no folder, or the data cannot
            be read.
    """
    if out.suffix != ".npz" or out.exists():
        problem = "exists already" if out.exists() else "does not end in .npz"
        raise ConfigurationError(f"{out} {problem}", hint="name a new file that ends in .npz")
    require_place(out, "OUT")
    source, size = _source_of(Path(target)), None if image_size is None else (image_size,) * 2
    _refuse_unread(target, source, {"env": env_id, "dones": dones, "image-size": image_size})
    if source is None:
        data = _project_data(load_project(Path(target)))
    else:
        measured = None if env_id is None else _measured(env_id)
        data = open_offline(source, target, measured.known if measured else None, dones, size)
        if measured is not None:
            check_fits(data, measured.spec)
    data.require_meaning("name the environment that it was recorded in: --env ID")
    spec = data.spec(data.env_id or NO_ENVIRONMENT)
    buffer = ReplayBuffer(max(2, data.num_rows), spec.replay_shapes, spec.action_dim)
    copied = copy_episodes(data, buffer)
    buffer.save(out)
    return copied


def _refuse_unread(target: str, source: str | None, options: Mapping[str, Any]) -> None:
    """An option that is not read where data comes from this source, or from a project."""
    for name, value in options.items():
        if value is not None and source not in _READERS[name]:
            kind = "a project, which has its own settings" if source is None else f"{source} data"
            raise ConfigurationError(
                f"--{name} {value} is not read: {target} is {kind}", hint=f"leave --{name} out"
            )


@dataclass(frozen=True)
class _Measured:
    known: KnownEnvironment
    spec: EnvironmentSpec


def _measured(env_id: str) -> _Measured:
    """What an environment says of its numbers."""
    enter_project(Path.cwd())  # its module may be there
    envs = vector_environment(environment_maker(None, env_id), env_id, 1)
    try:
        spaces, spec = envs.spaces, envs.spec
    finally:
        envs.close()
    known = KnownEnvironment(env_id, spaces.observation, spaces.action, spec.time_limit)
    return _Measured(known, spec)


def _source_of(path: Path) -> str | None:
    """How to read what lies there, a Minari data set if nothing does; None for a project."""
    if (path / INFO).is_file():
        return LEROBOT
    if path.suffix == ".toml" or (path.is_dir() and (path / FILE_NAME).is_file()):
        return None
    if path.is_dir():
        return NPZ if any(path.glob("*.npz")) else None
    source = _SUFFIXES.get(path.suffix.lower(), MINARI)
    if source == MINARI and path.is_file():
        raise ConfigurationError(
            f"a file ending in {path.suffix!r} is not known here",
            where=str(path),
            hint=f"recorded data ends in {', '.join(_SUFFIXES)}",
        )
    return source


def _of_project(path: Path) -> DataReport:
    project = load_project(path)
    data = _project_data(project)
    spec, _, _ = run_spec(project, data)
    return _report(data, spec)


def _project_data(project: Project) -> OfflineData:
    if project.sections.tasks:
        _, data = open_task_data(project, measured_environment(project))
    else:
        data = open_project_data(project)
    if data is None:
        raise ConfigurationError(
            f'data.source = "{project.sections.data.source}": there is no recorded data',
            where=str(project.path),
            hint="name a file or a Minari data set: worldflux data info TARGET",
        )
    return data


def _report(data: OfflineData, spec: EnvironmentSpec) -> DataReport:
    copied = read_through(data)
    rows = copied.replay.transitions + copied.replay.episodes
    size = rows * row_bytes(column_specs(spec.replay_shapes, spec.action_dim, {}))
    return DataReport(data, copied, spec, size)
