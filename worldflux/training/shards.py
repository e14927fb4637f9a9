"""Shards: data-parallel training whose result does not depend on the number of processes.

A run has K shards, each with its environments, replay buffer, random streams and 1/K of the rows of
a batch. A process hosts one or more of them. What shards have in common is gathered and added up in
their order, never in that of processes, so that every process takes the same step, bit for bit.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from worldflux import errors
from worldflux.core.shards import gathering
from worldflux.errors import LostProcessError, TrainingError, WorldFluxError

from .checkpoints import as_json, of_json
from .shared_memory import LONG, SharedRows

R = TypeVar("R")
_LENGTH = 8  # bytes of a number: how many of a message are JSON, and how many follow
_FIRST = 1024  # bytes that are sent at once; only a longer message has a second part


class OneProcess:
    """What a run asks of its processes, where it has one.

    Attributes:
        leads: whether this process writes the run folder.
        stop_wanted, checkpoint_wanted: what this process asks for.
    """

    leads = True

    def __init__(self) -> None:
        self.stop_wanted = self.checkpoint_wanted = False

    @property
    def stop_agreed(self) -> bool:
        """Whether all of them stop."""
        return self.stop_wanted

    @property
    def checkpoint_agreed(self) -> bool:
        """Whether all of them save."""
        return self.checkpoint_wanted

    def checkpoint_done(self) -> None:
        """A checkpoint was saved."""
        self.checkpoint_wanted = False

    def exchange(self, value: Any = None, error: BaseException | None = None) -> list[Any]:
        """The value of each process, or the error of any of them."""
        if error is not None:
            raise error
        return [value]

    def lead(self, work: Callable[[], Path]) -> Path:
        """The path that `work` returns, which the process does that writes the run folder."""
        return work()


class ShardGroup(OneProcess):
    """The shards of a run as its processes share them; without torch.distributed one hosts all.

    Args:
        shards: K, a multiple of the number of processes.
        seeds: of each shard's stream of torch's random numbers.
        device: whose stream is each shard's own, besides the CPU's.
        timeout_s: seconds that processes wait for one another.

    Attributes:
        local: the numbers of the shards that this process hosts.
        notes: warnings for the first process, whose `hear` receives them at the next exchange.
    """

    def __init__(
        self, shards: int, seeds: Sequence[int], device: torch.device, timeout_s: float = 600.0
    ) -> None:
        super().__init__()
        self._timeout = timedelta(seconds=timeout_s)
        joined = dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)
        self.leads, self.shards = self.rank == 0, shards
        count = shards // self.world
        self.local = range(self.rank * count, (self.rank + 1) * count)
        self.streams = [RandomStream(seeds[shard], device) for shard in self.local]
        self._stop_agreed = self._checkpoint_agreed = False
        self._shared: dict[tuple[int, torch.dtype], SharedRows] = {}
        self._no_rows: dict[str, Tensor] = {}  # zeros in the shape of the rows of each name
        self.notes: list[str] = []
        self.hear: Callable[[str], None] = lambda note: None
        self._threads = [ThreadPoolExecutor(1, f"shard-{shard}") for shard in self.local]

    @property
    def stop_agreed(self) -> bool:
        """Whether any process wanted to stop at the last exchange."""
        return self._stop_agreed

    @property
    def checkpoint_agreed(self) -> bool:
        """Whether any process wanted a checkpoint at an exchange since the last one."""
        return self._checkpoint_agreed

    def checkpoint_done(self) -> None:
        self._checkpoint_agreed = False

    # ------------------------------------------------------------------ between processes

    def exchange(self, value: Any = None, error: BaseException | None = None) -> list[Any]:
        """The value that each process gives, in their order: JSON-ready but for tensors.

        An error of any process is raised in all of them, the first one if there are several.
        """
        sent = None if error is None else _described(error, self.rank, self.world)
        own = [self.stop_wanted, self.checkpoint_wanted, self.notes, sent, value]
        reports = [own] if self.world == 1 else self._gathered(own)
        self.notes, self.checkpoint_wanted = [], False
        for rank, (stop, checkpoint, notes, _, _) in enumerate(reports):
            self._stop_agreed |= stop
            self._checkpoint_agreed |= checkpoint
            for note in notes:
                self.hear(f"process {rank}: {note}")
        for rank, (_, _, _, description, _) in enumerate(reports):
            if description is not None:
                raise error if error is not None and rank == self.rank else _raised(*description)
        return [each[-1] for each in reports]

    def lead(self, work: Callable[[], Path]) -> Path:
        """The path that `work` returns in the first process, which alone does it; all wait."""
        path, error = "", None
        if self.leads:
            try:
                path = str(work())
            except Exception as raised:
                error = raised
        return Path(self.exchange(path, error)[0])

    def _gather(self, name: str, rows: Sequence[Tensor], error: BaseException | None) -> Tensor:
        """A row `[...]` of each local shard as rows `[K, ...]` of all, in order; or any's error.

        `name` says which rows they are: a process with an error sends as many numbers as the last
        time, so that one message brings rows and errors.
        """
        if name not in self._no_rows or self.world == 1:
            failed = torch.tensor([error is not None], dtype=torch.int32)
            if (self._of_all([failed]) if self.world > 1 else failed).any():
                self.exchange(error=error)
        if self.world == 1:
            return torch.stack(list(rows))
        if error is None:
            self._no_rows[name] = rows[0].new_zeros(()).expand(rows[0].shape)
        else:
            rows = [self._no_rows[name]] * len(self.local)
        flag = rows[0].new_full((1,), error is not None)
        message = self._of_all([flag, *(row.flatten() for row in rows)])
        if message[:, 0].any():
            self.exchange(error=error)
        return message[:, 1:].reshape(self.shards, *rows[0].shape)

    def _gathered(self, value: Any) -> list[Any]:
        text, tensors = as_json(value)
        message = text.encode()
        plain = {
            name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
        }
        message = len(message).to_bytes(_LENGTH) + message + (save(plain) if plain else b"")
        first = len(message).to_bytes(_LENGTH) + message[: _FIRST - _LENGTH]
        beginnings = self._of_all_bytes(first.ljust(_FIRST, b"\0"))
        sizes = [int.from_bytes(each[:_LENGTH]) for each in beginnings]
        rest = max(0, max(sizes) + _LENGTH - _FIRST)
        ends = [b""] * self.world
        if rest:
            ends = self._of_all_bytes(message[_FIRST - _LENGTH :].ljust(rest, b"\0"))
        whole = (a[_LENGTH:] + b for a, b in zip(beginnings, ends, strict=True))
        return [_read(each[:size]) for each, size in zip(whole, sizes, strict=True)]

    def _of_all_bytes(self, message: bytes) -> list[bytes]:
        """The message of each process, all of one length."""
        data = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        return [row.numpy().tobytes() for row in self._of_all([data])]

    def _of_all(self, parts: Sequence[Tensor]) -> Tensor:
        """The parts `[n], ...` of each process end to end, `[world, N]` in their order; valid until
        the call after the next one."""
        first, size = parts[0], sum(part.numel() for part in parts)
        if first.device.type == "cpu" and first.is_floating_point() and size >= LONG:
            shared = self._shared_rows(size, first.dtype)
            if shared.usable:
                return shared.of_all(tuple(parts))
        gathered = first.new_empty((self.world, size))
        own = torch.cat(tuple(parts), out=gathered[self.rank])
        try:
            if own.device.type == "cpu":  # in half the time of gloo's all_gather
                others = [rank for rank in range(self.world) if rank != self.rank]
                sent = [dist.isend(own, rank) for rank in others]
                for work in sent + [dist.irecv(gathered[rank], rank) for rank in others]:
                    assert work is not None
                    work.wait(self._timeout)
            else:
                dist.all_gather(list(gathered.unbind()), own.clone())
        except RuntimeError as error:
            text = str(error)
            how = f"cannot be reached: {text[:200]}"
            if "Connection" in text:
                how = "ended without a word"
            elif "imed out" in text or "timeout" in text:
                how = "did not answer in time (distributed.timeout_s)"
            raise LostProcessError(
                f"another process of this run {how}",
                hint="what was saved is intact; continue with: worldflux train --resume",
            ) from error
        return gathered

    def _shared_rows(self, size: int, dtype: torch.dtype) -> SharedRows:
        if (size, dtype) not in self._shared:
            made = SharedRows(size, dtype, self.rank, self.world, self._of_all_bytes)
            self._shared[size, dtype] = made
        return self._shared[size, dtype]

    # ------------------------------------------------------------------ between local shards

    def in_turns(
        self, name: str, jobs: Sequence[Callable[[], tuple[Tensor, R]]]
    ) -> tuple[Tensor, list[R]]:
        """Do one job for each local shard, with its random stream; each returns a row `[...]`, and
        something more. Returns the rows `[K, ...]` of all shards, valid until the call after the
        next one, and what the local ones add.

        Each has its own thread, and one works at a time, up to where its loss needs values of all
        shards (`across_shards`) or to its end. An error of any shard is raised in every process.
        """
        turns = [_Turn(stream, job) for stream, job in zip(self.streams, jobs, strict=True)]
        for thread, turn in zip(self._threads, turns, strict=True):
            thread.submit(turn.work)
        try:
            for meeting in itertools.count():
                for turn in turns:
                    turn.go_on()
                error = next((turn.error for turn in turns if turn.error is not None), None)
                over = error is None and all(turn.over for turn in turns)
                assert error or over or not any(turn.over for turn in turns), "a shard is missing"
                rows = [turn.result[0] if over else turn.given for turn in turns]
                everything = self._gather(f"{name} {meeting}", rows, error)
                if over:
                    return everything, [turn.result[1] for turn in turns]
                for turn in turns:
                    turn.answer = everything.flatten(0, 1).clone()
            raise AssertionError
        finally:
            for turn in turns:
                turn.leave()


class RandomStream:
    """Torch's random numbers as one shard draws them: the CPU's generator, and its device's."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.states = self._now()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within the block torch draws from this stream."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        self._others = self._now()
        self._set(self.states)

    def give_back(self) -> None:
        self.states = self._now()
        self._set(self._others)

    def _set(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)

    def _now(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states


class _Abandoned(BaseException):
    """Another shard failed: the present job is not needed any more."""


class _Turn:
    """One shard's job in its thread, which works between `go_on` and where it waits or ends."""

    def __init__(self, stream: RandomStream, job: Callable[[], Any]) -> None:
        self._stream, self._job = stream, job
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._abandoned = self.over = False
        self.error: BaseException | None = None
        self.given = self.answer = torch.empty(0)
        self.result: Any = None

    def go_on(self) -> None:
        self._go.release()
        self._stopped.acquire()

    def leave(self) -> None:
        if not self.over:
            self._abandoned = True
            self.go_on()

    def work(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with self._stream.active(), gathering(self._gather):
                    self.result = self._job()
        except BaseException as error:  # raised again by `in_turns`
            self.error = error
        finally:
            self.over = True
            self._stopped.release()

    def _gather(self, values: Tensor) -> Tensor:
        self.given = values
        self._stream.give_back()
        self._stopped.release()
        self._go.acquire()
        self._stream.take()
        if self._abandoned:
            raise _Abandoned
        return self.answer


def _described(error: BaseException, rank: int, world: int) -> list[str | None]:
    """An error for the other processes: its class, message, place and hint."""
    if isinstance(error, WorldFluxError):
        return [type(error).__name__, error.message, error.where, error.hint]
    place = f"process {rank} of {world}: " if world > 1 else ""
    return ["TrainingError", f"{place}{type(error).__name__}: {error}", None, None]


def _raised(name: str, message: str, where: str | None, hint: str | None) -> WorldFluxError:
    kind = getattr(errors, name, TrainingError)
    return kind(message, where=where, hint=hint)


def _read(message: bytes) -> Any:
    end = _LENGTH + int.from_bytes(message[:_LENGTH])
    return of_json(message[_LENGTH:end].decode(), load(message[end:]) if message[end:] else {})
