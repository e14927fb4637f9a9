"""`worldflux data info`: what recorded data holds, read through to its last value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.data.columns import column_specs, row_bytes
from worldflux.data.offline import HDF5, MINARI, NPZ, OfflineData, copy_episodes, open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError

from .loader import load_project
from .run_data import NO_ENVIRONMENT, open_project_data, run_spec

_SUFFIXES = {".npz": NPZ, ".hdf5": HDF5, ".h5": HDF5}


@dataclass(frozen=True)
class DataReport:
    """Counts, shapes and returns of a data set; `replay_bytes` is its size in the replay."""

    where: str
    recorded_in: str | None
    episodes: int
    transitions: int
    last_observations: str
    length_min: int
    length_mean: float
    length_max: int
    return_min: float
    return_mean: float
    return_max: float
    terminations: int
    observations: dict[str, tuple[int, ...]]
    actions: str
    replay_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        observed = ", ".join(
            f"{name + ' ' if name else ''}{shape}" for name, shape in self.observations.items()
        )
        lines = {
            "data": self.where,
            "recorded in": self.recorded_in or "not told",
            "episodes": f"{self.episodes:,} ({self.terminations:,} ended by themselves)",
            "transitions": f"{self.transitions:,}",
            "length": f"{self.length_min} to {self.length_max}, mean {self.length_mean:.1f}",
            "return": f"{self.return_min:.4g} to {self.return_max:.4g}, mean "
            f"{self.return_mean:.4g}",
            "observations": observed,
            "actions": self.actions,
            "in the replay": f"{self.replay_bytes:,} bytes",
        }
        if self.last_observations == "missing":
            lines["note"] = "without next_observations: the last action of each episode is left out"
        return "\n".join(f"{name:14} {text}" for name, text in lines.items())


def report_on(target: str) -> DataReport:
    """Read recorded data through: a project's, a file's or a Minari data set's.

    Raises:
        ConfigurationError: when there is no recorded data, or a value does not fit.
        MissingDependencyError: naming the extra that reads it.
    """
    path = Path(target)
    if path.is_dir() or path.suffix == ".toml":
        project = load_project(path)
        data = open_project_data(project)
        if data is None:
            raise ConfigurationError(
                f'data.source = "{project.sections.data.source}": there is no recorded data',
                where=str(project.path),
                hint="name a file or a Minari data set: worldflux data info TARGET",
            )
        run_spec(project, data)
        return _read_through(data)
    source = _SUFFIXES.get(path.suffix.lower(), MINARI)
    if source == MINARI and path.is_file():
        raise ConfigurationError(
            f"a file ending in {path.suffix!r} is not known here",
            where=target,
            hint=f"recorded data ends in {', '.join(_SUFFIXES)}",
        )
    return _read_through(open_offline(source, target))


def _read_through(data: OfflineData) -> DataReport:
    spec = data.spec(data.env_id or NO_ENVIRONMENT)
    longest = int(data.lengths.max(initial=0)) + 1
    returns, terminations = [], 0
    for episode in data.episodes():
        returns.append(float(np.sum(episode.rewards)))
        terminations += int(np.any(episode.terminations))
    trial = ReplayBuffer(max(2, longest), spec.replay_shapes, spec.action_dim)
    copy_episodes(data, trial)  # a ring that holds one episode: checks every value
    shapes = spec.modalities or {"": spec.obs_shape}
    size = row_bytes(column_specs(spec.replay_shapes, spec.action_dim, {}))
    lengths = data.lengths
    return DataReport(
        **data.summary(),
        length_min=int(lengths.min()),
        length_mean=float(lengths.mean()),
        length_max=int(lengths.max()),
        return_min=min(returns),
        return_mean=float(np.mean(returns)),
        return_max=max(returns),
        terminations=terminations,
        observations=dict(shapes),
        actions=f"{spec.action_type}, {spec.action_dim}",
        replay_bytes=data.num_rows * size,
    )
