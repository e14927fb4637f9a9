"""The score files of the official programs, read while they grow, as rows of our own logs.

DreamerV3 appends JSON objects a line to `metrics.jsonl` (everything, an episode's return as
"episode/score") and `scores.jsonl` (the returns alone); "step" counts environment frames, action
repeat included (elements/logger.py). TD-MPC2 rewrites `eval.csv`, "step,episode_reward" with a row
an evaluation, and prints a line for each episode; its steps are agent steps (common/logger.py).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]
MAX_LINE_BYTES = 1 << 20
_READ_BYTES = 4 << 20
_RENAMED = {"episode/score": "train/episode_return", "episode/length": "train/episode_length"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TRAIN_LINE = re.compile(r"^ *train +.*?\bI: ([\d,]+) .*?\bR: (-?[\d.]+)")
# "Optimizer opt has 17,137 params:" (DreamerV3) and "Learnable parameters: 1,197,745" (TD-MPC2).
_PARAMETERS = re.compile(r"^(?:Optimizer \w+ has|Learnable parameters:) ([\d,]+)\b")
TRAINING_EPISODES = "training episodes"
EVALUATION_EPISODES = "evaluation episodes"


@dataclass
class NewRows:
    """Rows for metrics.jsonl and eval.jsonl that were not there at the last reading.

    `parameters` is what the program says of the model's size, where it has just said so.
    """

    metrics: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    parameters: int | None = None


class ScoreReader(Protocol):
    """Reads a program's files again and again, each row once."""

    def read(self) -> NewRows:
        """The rows that are new."""


class DreamerScores:
    """Scores of the official DreamerV3 below its logdir; an evaluation is a training episode."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._metrics = LineTail(folder / "metrics.jsonl")
        self._scores = LineTail(folder / "scores.jsonl")
        self._log = LineTail(log)

    def read(self) -> NewRows:
        """The rows that are new."""
        rows = NewRows()
        for line in self._log.lines():
            rows.parameters = _parameters(line) or rows.parameters
        for content in _objects(self._metrics):
            named = {_RENAMED.get(name, name): value for name, value in content.items()}
            rows.metrics.append({**named, "env_steps": content["step"]})
        for content in _objects(self._scores):
            if isinstance(content.get("episode/score"), (int, float)):
                score = float(content["episode/score"])
                rows.evaluations.append(_evaluation(content["step"], score, 1, TRAINING_EPISODES))
        return rows


class TDMPC2Scores:
    """Scores of the official TD-MPC2: its eval.csv, and what it prints an episode."""

    def __init__(self, evaluations: Path, log: Path, episodes: int) -> None:
        self._file, self._log, self._episodes = evaluations, LineTail(log), episodes
        self._seen = 0

    def read(self) -> NewRows:
        """The rows that are new."""
        rows = NewRows()
        for line in map(plain, self._log.lines()):
            rows.parameters = _parameters(line) or rows.parameters
            found = _TRAIN_LINE.search(line)
            if found:
                step = int(found[1].replace(",", ""))
                entry = {"train/episode_return": float(found[2])}
                rows.metrics.append({"step": step, "env_steps": step, **entry})
        for step, score in self._evaluations()[self._seen :]:
            rows.evaluations.append(_evaluation(step, score, self._episodes, EVALUATION_EPISODES))
            self._seen += 1
        return rows

    def _evaluations(self) -> list[tuple[int, float]]:
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        if not text.endswith("\n"):  # it is being rewritten: next time
            text = text[: text.rfind("\n") + 1]
        found = []
        for row in csv.DictReader(io.StringIO(text)):
            try:
                found.append((int(float(row["step"])), float(row["episode_reward"])))
            except (KeyError, TypeError, ValueError):
                break
        return found


class LineTail:
    """Whole lines of a file that grows; a line that is not finished waits for the next call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def lines(self) -> Iterator[str]:
        """Lines that were finished since the last call, without their ends."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(_READ_BYTES):
                    end = data.rfind(b"\n") + 1
                    if end == 0 and len(data) < _READ_BYTES:
                        return
                    end = end or len(data)  # a line without an end is cut, not waited for
                    self._offset += end
                    file.seek(self._offset)
                    for line in data[:end].splitlines():
                        if len(line) <= MAX_LINE_BYTES:
                            yield line.decode("utf-8", "replace")
        except OSError:
            return

    def rest(self) -> Iterator[str]:
        """What stands after the last line's end, of a file that grows no more."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MAX_LINE_BYTES)
        except OSError:
            return
        self._offset += len(data)
        if data:
            yield data.decode("utf-8", "replace")


def plain(text: str) -> str:
    """A terminal's text without its colours."""
    return _COLOUR.sub("", text)


def _parameters(line: str) -> int | None:
    found = _PARAMETERS.match(plain(line))
    return int(found[1].replace(",", "")) if found else None


def _objects(tail: LineTail) -> Iterator[Row]:
    for line in tail.lines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), (int, float)):
            content["step"] = int(content["step"])
            numbers = {k: v for k, v in content.items() if isinstance(v, (int, float))}
            yield numbers


def _evaluation(step: int, score: float, episodes: int, kind: str) -> Row:
    return {
        "step": step,
        "env_steps": step,
        "return_mean": score,
        "episodes": episodes,
        "evaluation": kind,
    }
