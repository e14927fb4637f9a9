"""What a run will need; one that cannot fit is refused with advice."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldflux.core.config import WorldModelConfig
from worldflux.core.learning import bytes_of
from worldflux.core.world_model import WorldModel
from worldflux.data.columns import column_specs, row_bytes
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError
from worldflux.files import free_bytes
from worldflux.models.catalog import count_parameters
from worldflux.models.registry import our_families
from worldflux.progress import duration
from worldflux.training.config import TrainingConfig
from worldflux.training.data import fill_with_noise
from worldflux.training.device import fitting
from worldflux.training.precision import seconds_of

RAM, MAPPED = "ram", "mmap"
RAM_SHARE = 0.5  # of the free memory that a replay may take before it is mapped from a file
_STARVED = 0.7  # of their time: threads that get less wait for one another
_WEIGHT_BYTES = 4  # float32
_TRAINING_COPIES = 4  # weights, gradients and the two moments of the optimiser


@dataclass(frozen=True)
class Pace:
    """Seconds of one update, of the policy for all environments, and of one step of them all."""

    update_s: float
    policy_s: float = 0.0
    env_step_s: float = 0.0

    def seconds(
        self, schedule: CollectionSchedule | None, num_envs: int, first: int, last: int
    ) -> float:
        """Time of the updates `first`..`last` and of the collecting that is due meanwhile."""
        total = (last - first) * self.update_s
        if schedule is None:
            return total
        until = schedule.due(last) if last else 0
        since = schedule.due(first) if first else 0
        acted = max(0, until - max(since, schedule.warmup_transitions))
        return total + (acted * self.policy_s + (until - since) * self.env_step_s) / num_envs


@dataclass(frozen=True)
class Needs:
    """What a run needs. Sizes are bytes; `expected_s` leaves evaluations out, and what compiling
    costs and saves where the run will be `compiled`. While it was measured its `threads` had the
    time of `cores`; other programs had the rest."""

    replay_rows: int
    replay_bytes: int
    replay_storage: str
    model_bytes: int
    expected_s: float
    update_s: float
    policy_s: float
    env_step_s: float
    compiled: bool = False
    threads: int = 1
    cores: float = 1.0
    threads_key: str = "training.threads"

    def __str__(self) -> str:
        place = "in memory" if self.replay_storage == RAM else "in a memory-mapped file"
        yet = ", not compiled yet," if self.compiled else ""
        acting = ""
        if self.env_step_s:
            acting = f", {_short(self.policy_s)} an action, {_short(self.env_step_s)} a step"
        busy = ""
        if self.threads > 1 and self.cores < _STARVED * self.threads:
            busy = (
                "\nneeds: other programs keep the cores busy: "
                f"{self.threads} threads got the time of\n"
                f"  {self.cores:.1f} cores, and --set {self.threads_key}=1 is faster while it is so"
            )
        return (
            f"needs: replay {_size(self.replay_bytes)} {place} ({self.replay_rows:,} transitions)\n"
            f"needs: model in training {_size(self.model_bytes)}\n"
            f"needs: about {duration(self.expected_s)}{yet} plus evaluations:\n"
            f"  {_short(self.update_s)} an update{acting}{busy}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def replay_bytes(
    spec: EnvironmentSpec, extra_columns: dict[str, tuple[int, ...]], rows: int
) -> int:
    """Bytes of a replay of `rows` transitions."""
    return rows * row_bytes(column_specs(spec.replay_shapes, spec.action_dim, extra_columns))


def model_bytes(model: WorldModel) -> int:
    """Bytes of a model in training: what is learned four times (Adam), the rest once."""
    learned = bytes_of(p for p in model.parameters() if p.requires_grad)
    return bytes_of([*model.parameters(), *model.buffers()]) + (_TRAINING_COPIES - 1) * learned


def require_room(config: WorldModelConfig, where: str) -> None:
    """Refuse a model whose weights do not fit, before they take memory."""
    if config.model_type not in our_families():  # others may count something while they are built
        return
    hint = "make [architecture] smaller, or choose a smaller model: worldflux models list"
    with fitting("the model", where, hint):
        needed, free = _WEIGHT_BYTES * count_parameters(config), free_memory()
    if needed > free:
        raise ConfigurationError(
            f"this run cannot fit: the weights of the model need {_size(needed)} of memory; "
            f"{_size(free)} are free",
            where=where,
            hint=hint,
        )


def choose_storage(storage: str, size: int, others: int, folder: Path) -> str:
    """Where a replay of `size` bytes goes, "ram" or "mmap"; the model takes `others` bytes.

    "auto" takes memory while the replay needs at most half of what is free.
    """
    free = free_memory()
    if storage == "auto":
        storage = RAM if size <= RAM_SHARE * free else MAPPED
    if storage == RAM and size + others > free:
        raise ConfigurationError(
            f"this run cannot fit: the replay needs {_size(size)} of memory and the model "
            f"{_size(others)}; {_size(free)} are free",
            where="data.buffer_capacity",
            hint=f'set data.storage = "mmap", or data.buffer_capacity to {_share(size, free)} of '
            "what it is",
        )
    room = free_bytes(folder)
    if storage == MAPPED and 2 * size > room:  # the mapped rows, and the same rows in checkpoints
        raise ConfigurationError(
            f"this run cannot fit: the replay needs {_size(size)}, more than the {_size(free)} of "
            f"free memory, and a memory-mapped replay needs {_size(2 * size)} of disk; "
            f"{_size(room)} are free",
            where="data.buffer_capacity",
            hint=f"set data.buffer_capacity to {_share(2 * size, room)} of what it is, or point "
            "--output-dir to a larger disk",
        )
    if storage == MAPPED and others > free:
        raise ConfigurationError(
            f"this run cannot fit: the model in training needs {_size(others)} of memory; "
            f"{_size(free)} are free",
            where="model",
            hint="choose a smaller model: worldflux models list",
        )
    return storage


def free_memory() -> int:
    """Bytes of memory that a process may still take: the machine's, or its control group's.

    Without /proc and `vm_stat`, half of what is installed.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        text = meminfo.read_text(encoding="ascii")
        available = int(re.findall(r"^MemAvailable: +(\d+)", text, re.M)[0]) * 1024
    else:
        available = _unused_pages() or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file():
        allowed = limit.read_text(encoding="ascii").strip()
        if allowed.isdigit():
            left = int(allowed) - int(used.read_text(encoding="ascii"))
            available = min(available, max(0, left))
    return available


def _unused_pages() -> int:
    """Bytes that macOS can give away at once, as its `vm_stat` says; 0 without it."""
    try:
        done = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    size = re.search(r"page size of (\d+) bytes", done.stdout)
    pages = re.findall(r"^Pages (?:free|inactive|speculative): +(\d+)", done.stdout, re.M)
    return int(size[1]) * sum(map(int, pages)) if size else 0


def measure(
    model: WorldModel, config: TrainingConfig, spec: EnvironmentSpec, num_envs: int
) -> tuple[float, float]:
    """Seconds of an update of noise, and of an action for `num_envs` environments (0 for none).

    The run's model and random streams stay as they are.
    """
    resolved = config.resolve(model.config)
    rows = max(64, 2 * resolved.sequence_length)
    extras = {name: shape for name, (shape, _) in model.replay_columns().items()}
    noise = ReplayBuffer(2 * rows, spec.replay_shapes, spec.action_dim, extra_columns=extras)
    fill_with_noise(noise, spec, rows, seed=0, episode_steps=resolved.sequence_length)
    with fitting("a batch", "training.batch_size", "make it smaller, or training.sequence_length"):
        batch = noise.sample(
            resolved.batch_size,
            resolved.sequence_length,
            model.device,
            within_episode=not model.config.training_recipe().crosses_episodes,
        )
    return seconds_of(model, config, batch, num_envs)


def _share(needed: int, free: int) -> str:
    return f"{max(1, int(80 * free / needed))} %"


def _size(size: int) -> str:
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    digits = 0 if value >= 10 or units[0] == "B" else 1
    return f"{value:.{digits}f} {units[0]}"


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
