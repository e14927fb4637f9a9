"""An agent behind HTTP: `GET /` describes it, `POST /act` answers an observation."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from worldflux.dashboard.guard import Access, Guard
from worldflux.errors import ConfigurationError, EnvironmentFault, WorldFluxError

from . import raw_form
from .agent import Agent
from .sessions import NoSession, Sessions

BODY_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 60
SMALLEST_LIMIT = 1 << 16
JSON_PER_BYTE = 16  # characters of a list for each byte of its array
RAW = "application/octet-stream"
_STATUS = {NoSession: 410, EnvironmentFault: 422, ConfigurationError: 400}


class ActingApp:
    """The handlers, over the sessions of an agent."""

    def __init__(self, agent: Agent, sessions: Sessions) -> None:
        self._sessions = sessions
        self._observations, self._actions = agent.observation_space, agent.action_space
        self._name = agent.adapter.name
        # One thread acts: answers come one after another, and the loop keeps reading meanwhile.
        self._thread = ThreadPoolExecutor(1, "acting")

    def behind_guard(self, access: Access) -> ASGIApp:
        """The application, behind the guard of the dashboard's page."""
        routes = [Route("/", self.describe), Route("/act", self.act, methods=["POST"])]
        most = SMALLEST_LIMIT + JSON_PER_BYTE * raw_form.size_bytes(self._observations)
        return Guard(Starlette(routes=routes), replace(access, max_body_bytes=most))

    async def describe(self, request: Request) -> Response:
        sessions = self._sessions
        return JSONResponse(
            {
                "environment": self._name,
                "observation": raw_form.layout(self._observations),
                "action": raw_form.layout(self._actions),
                "deadline_ms": 1000 * sessions.deadline_s,
                "session_s": sessions.idle_s,
                "seed": sessions.seed,
                "update": sessions.weights.update,
                "sessions": len(sessions),
                "answers": sessions.answers,
                "late": sessions.late,
            }
        )

    async def act(self, request: Request) -> Response:
        """The action for an observation; in JSON, or raw as the observation came."""
        is_raw = request.headers.get("content-type", "").partition(";")[0].strip() == RAW
        try:
            body = await asyncio.wait_for(request.body(), BODY_TIMEOUT_S)
            since = time.monotonic()
            name, observation, is_first = self._read(request, body, is_raw)
            self._sessions.waiting += 1
            try:
                name, answer, weights = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._sessions.answer, name, observation, is_first, since
                )
            finally:
                self._sessions.waiting -= 1
        except TimeoutError:
            return JSONResponse({"error": "the body did not arrive"}, 408, {"connection": "close"})
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except WorldFluxError as error:
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            return JSONResponse({"error": error.message, "hint": error.hint}, status)
        facts = {**vars(answer), "ms": round(answer.ms, 3), "session": name}
        facts["update"] = weights.update
        action = facts.pop("action")
        if is_raw:
            content = raw_form.to_bytes(self._actions, action)
            return Response(content, headers={"x-answer": json.dumps(facts)}, media_type=RAW)
        return JSONResponse({"action": raw_form.to_json(action), **facts})

    def _read(self, request: Request, body: bytes, is_raw: bool) -> tuple[str | None, Any, bool]:
        """Session, observation, and whether it begins an episode."""
        if is_raw:
            query = request.query_params
            observation = raw_form.from_bytes(self._observations, body)
            return query.get("session"), observation, query.get("first", "0") == "1"
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"the body is not JSON: {error}") from None
        if not isinstance(given, dict) or not given.keys() <= {"observation", "session", "first"}:
            raise ConfigurationError(
                'the body is an object of "observation" and, where they are needed, "session" and '
                '"first"'
            )
        name, is_first = given.get("session"), given.get("first", False)
        if not isinstance(name, str | None) or not isinstance(is_first, bool):
            raise ConfigurationError('"session" is a text, and "first" true or false')
        observation = raw_form.from_json(self._observations, given.get("observation"))
        return name, observation, is_first


@contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """A socket at `path` that only this user may open; the file is removed at the end.

    Raises:
        ConfigurationError: when another server listens there, or the file is no socket.
    """
    if path.exists():
        probe = socket.socket(socket.AF_UNIX)
        if not stat.S_ISSOCK(path.stat().st_mode) or probe.connect_ex(str(path)) == 0:
            raise ConfigurationError("this path is taken", where=f"--socket {path}")
        path.unlink()  # of a server that was killed
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError as error:
        reason = "the path is too long" if error.errno is None else os.strerror(error.errno)
        raise ConfigurationError(f"cannot listen: {reason}", where=f"--socket {path}") from None
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)
