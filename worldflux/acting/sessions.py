"""The clients of a server: each has its own memory, and all share the newest weights."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from worldflux.errors import WorldFluxError

from .agent import Agent
from .answer_log import AnswerLog
from .deadline import Answer, DeadlineAgent, Pace
from .raw_form import to_bytes
from .weights import Weights

MAX_SESSIONS = 256


class NoSession(WorldFluxError):
    """The session that a client names has expired, or there are too many to begin another."""

    code = "session"


@dataclass
class Session:
    """One client's agent, and when it was last asked."""

    agent: Agent
    used_at: float


class Sessions:
    """Answers one observation after another; `answer` is called by one thread.

    Args:
        agent: whose adapter the sessions share; its memory stays as it is.
        deadline_s: from an observation's arrival to its answer. Those that wait at the same time
            share it: `waiting` is how many there are.
        seed: of every session's random numbers: each acts as `load_agent(..., seed=seed)`.
        idle_s: seconds without an observation after which a session is forgotten.
        log: receives every answer.
    """

    def __init__(
        self,
        agent: Agent,
        weights: Weights,
        *,
        deadline_s: float,
        seed: int = 0,
        idle_s: float = 60.0,
        log: AnswerLog | None = None,
    ) -> None:
        self._adapter, self.weights = agent.adapter, weights
        self.deadline_s, self.seed, self.idle_s = deadline_s, seed, idle_s
        self.log = log
        self.answers = self.late = self.waiting = 0
        self._pace = Pace()
        self._sessions: dict[str, Session] = {}
        self._offered: Weights | None = None
        self._answering = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, weights: Weights) -> None:
        """Use these weights from the next answer on; for any thread.

        Raises:
            StorageError: when the log cannot keep them; they are not used.
        """
        if self.log is not None:
            self.log.keep(weights)
        self._offered = weights
        with self._answering:
            self._adopt()

    def _adopt(self) -> None:
        if self._offered is not None:
            self.weights, self._offered = self._offered, None

    def warm_up(self, times: int) -> float:
        """Act on observations of nobody; milliseconds that a whole answer takes, the last time."""
        agent = Agent(self.weights.model, self._adapter)
        acting = DeadlineAgent(agent, float("inf"), self._pace)
        return [acting.act(agent.observation_space.sample()) for _ in range(times)][-1].ms

    def answer(
        self, name: str | None, observation: Any, is_first: bool, since: float
    ) -> tuple[str, Answer, Weights]:
        """The answer to an observation that arrived at `since`; the session, and what it used.

        Args:
            name: of the session; None begins one.
            is_first: the observation begins an episode.

        Raises:
            NoSession: when there is none of that name, or no room for another.
            EnvironmentFault: for an observation that is not of its space; the memory stays.
        """
        with self._answering:
            self._adopt()
            return self._answer(name, observation, is_first, since)

    def _answer(
        self, name: str | None, observation: Any, is_first: bool, since: float
    ) -> tuple[str, Answer, Weights]:
        begins = name is None
        name, session = self._begin() if name is None else (name, self._find(name))
        session.agent.model = self.weights.model
        acting = DeadlineAgent(session.agent, self.deadline_s, self._pace)
        answer = acting.act(
            observation,
            True if is_first or begins else None,
            since=since,
            share=lambda: 1 / max(1, self.waiting),
        )
        session.used_at = time.monotonic()
        self._sessions[name] = session
        self.answers += 1
        self.late += answer.ms > 1000 * self.deadline_s
        if self.log is not None:
            self.log.put(self._row(name, observation, is_first or begins, answer))
        return name, answer, self.weights

    def _begin(self) -> tuple[str, Session]:
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if now - session.used_at > self.idle_s:
                del self._sessions[name]
        if len(self._sessions) >= MAX_SESSIONS:
            raise NoSession(
                f"there are {MAX_SESSIONS} sessions",
                hint=f"a session ends after {self.idle_s:g} s without a request",
            )
        agent = Agent(self.weights.model, self._adapter, seed=self.seed)
        return secrets.token_hex(8), Session(agent, now)

    def _find(self, name: str) -> Session:
        session = self._sessions.get(name)
        if session is None or time.monotonic() - session.used_at > self.idle_s:
            self._sessions.pop(name, None)
            raise NoSession(
                f"there is no session {name!r}: it ended after {self.idle_s:g} s without a request",
                hint="leave the session out to begin another one",
            )
        return session

    def _row(self, name: str, observation: Any, is_first: bool, answer: Answer) -> dict[str, Any]:
        return {
            "time": time.time(),
            "session": name,
            "first": is_first,
            "observation": _text(to_bytes(self._adapter.observation_space, observation)),
            "action": _text(to_bytes(self._adapter.action_space, answer.action)),
            "how": answer.how,
            "iterations": answer.iterations,
            "of": answer.of,
            "ms": round(answer.ms, 3),
            "update": self.weights.update,
            "weights": self.weights.sha256,
        }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
