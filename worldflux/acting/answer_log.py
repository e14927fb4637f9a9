"""The log of a server, and its replay: the same observations must give the same actions."""

from __future__ import annotations

import base64
import os
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.core.outputs import Proposal
from worldflux.core.saved_model import load_weights
from worldflux.errors import CheckpointError, ConfigurationError, StorageError
from worldflux.files import replacing, require_place, sha256_of, written_or_told
from worldflux.run_log import append_row, read_rows

from .agent import Agent
from .deadline import act_until
from .raw_form import from_bytes, to_bytes
from .weights import Weights

ANSWERS = "answers.jsonl"
SUFFIX = ".safetensors"


class AnswerLog:
    """Writes a row for each answer, from its own thread, and keeps the weights behind them.

    No answer waits for the disk. A full one ends the log, which is reported.

    Raises:
        ConfigurationError: when the folder already holds a log, or cannot be made.
    """

    def __init__(self, folder: Path, seed: int, say: Callable[[str], object]) -> None:
        if (folder / ANSWERS).exists():
            raise ConfigurationError(
                "this folder already holds a log of answers",
                where=str(folder),
                hint="choose another one with --log DIR",
            )
        require_place(folder / ANSWERS, "--log", makes_folders=True)
        self.folder, self._say = folder, say
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        append_row(folder / ANSWERS, {"seed": seed})
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def keep(self, weights: Weights) -> None:
        """Keep a file of weights, as a second name of it where the disk can give one."""
        target = self.folder / f"{weights.sha256}{SUFFIX}"
        if not target.exists():
            try:
                os.link(weights.file, target)
            except FileNotFoundError:
                raise  # newer ones took their place
            except OSError:
                with written_or_told(target), replacing(target) as partial:
                    shutil.copyfile(weights.file, partial)

    def put(self, row: dict[str, Any]) -> None:
        self._rows.put(row)

    def close(self) -> None:
        """Wait until everything is written."""
        self._rows.put(None)
        self._writer.join()

    def _write(self) -> None:
        is_whole = True
        while (row := self._rows.get()) is not None:
            try:
                if is_whole:
                    append_row(self.folder / ANSWERS, row)
            except StorageError as error:
                is_whole = False
                self._say(f"warning: answers are no longer logged: {error.message}")


@dataclass(frozen=True)
class Replay:
    """What a replay found: answers and sessions in the log, and rows that gave another action."""

    answers: int
    sessions: int
    different: list[int]


def replay(agent: Agent, folder: Path) -> Replay:
    """Repeat every answer of a log: each session's observations in order, with the weights and the
    planning iterations that it had then.

    Equal actions are equal to the last bit, on the kind of machine that wrote the log.

    Args:
        agent: of the run that the server acted for.

    Raises:
        ConfigurationError: when there is no log here.
        CheckpointError: when weights of the log are missing or damaged.
    """
    rows = read_rows(folder / ANSWERS)
    seed = next(rows, {}).get("seed")
    if not isinstance(seed, int):
        raise ConfigurationError("no log of answers here", where=str(folder))
    sessions: dict[str, Agent] = {}
    different, count, loaded = [], 0, ""
    for count, row in enumerate(rows, 1):
        if row["weights"] != loaded:
            _load(agent, folder / f"{row['weights']}{SUFFIX}", row["weights"])
            loaded = row["weights"]
        if row["session"] not in sessions:
            sessions[row["session"]] = Agent(agent.model, agent.adapter, seed=seed)
        observation = from_bytes(agent.observation_space, base64.b64decode(row["observation"]))
        given = base64.b64decode(row["action"])

        def enough(proposal: Proposal, done: int = row["iterations"]) -> bool:
            return proposal.iterations >= done

        first = True if row["first"] else None
        action, _ = act_until(sessions[row["session"]], observation, first, enough)
        if to_bytes(agent.action_space, action) != given:
            different.append(count)
    return Replay(count, len(sessions), different)


def _load(agent: Agent, file: Path, sha256: str) -> None:
    if file.is_file() and sha256_of(file) != sha256:
        raise CheckpointError("these weights are not those of the log", where=str(file))
    load_weights(agent.model, file)
