"""`agent_server`: a run's agent, and what a learner makes of it, behind a local server.

`GET /` describes it, `POST /act` answers an observation.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from worldflux.dashboard.guard import Access, Guard
from worldflux.dashboard.server import listen, server_config
from worldflux.errors import CheckpointError, ConfigurationError, EnvironmentFault, WorldFluxError

from . import DEFAULT_HZ, DEFAULT_PORT, raw_form
from .agent import Agent
from .answer_log import AnswerLog
from .load import load_agent
from .sessions import NoSession, Sessions
from .weights import NewestWeights, newest, weights_of

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
            name, is_first = _of_query(request.query_params.multi_items())
            return name, raw_form.from_bytes(self._observations, body), is_first
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


def _of_query(items: list[tuple[str, str]]) -> tuple[str | None, bool]:
    """Session, and whether the observation begins an episode, of a raw request's query."""
    given = dict(items)
    if len(given) < len(items) or not given.keys() <= {"session", "first"}:
        raise ConfigurationError(
            'the query of raw arrays has "session" and "first", each at most once',
            hint="POST /act?session=NAME&first=1",
        )
    first = given.get("first", "0")
    if first not in ("0", "1"):
        raise ConfigurationError(f'"first" is 0 or 1, not {first[:60]!r}', hint="POST /act?first=1")
    return given.get("session"), first == "1"


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


WARM_UP = 5
LOOK_S = 0.1


@dataclass
class AgentServer:
    """A server that listens already.

    Attributes:
        addresses: its URL and its Unix socket.
        whole_ms: milliseconds that an answer takes without a deadline.
    """

    addresses: list[str]
    whole_ms: float
    _server: uvicorn.Server
    _sockets: list[socket.socket]

    def run(self) -> None:
        """Answer until `stop`, or an interrupt."""
        with suppress(KeyboardInterrupt):  # the usual way to end it
            self._server.run(sockets=self._sockets)

    def stop(self) -> None:
        """End `run`; for any thread."""
        self._server.should_exit = True


@contextmanager
def agent_server(
    run: str | Path,
    *,
    hz: float = DEFAULT_HZ,
    checkpoint: str | None = None,
    follow: bool = False,
    port: int | None = None,
    socket_path: Path | None = None,
    log: Path | None = None,
    seed: int = 0,
    idle_s: float = 60.0,
    device: str = "cpu",
    say: Callable[[str], object] = print,
) -> Iterator[AgentServer]:
    """A server of an agent, on this machine only.

    On a CPU one thread computes, so that a log repeats on a machine of more cores, and a learner
    has the others.

    Args:
        run: whatever `load_agent` opens; with `follow`, a run folder.
        hz: observations a second of one client; each is answered within 1 / hz.
        follow: act with the weights that `worldflux train --serve` publishes there, always the
            newest; waits for the first ones.
        port: exactly this one; by default `DEFAULT_PORT` or the next free one.
        socket_path: listen on a Unix socket there, too.
        log: a new folder for every answer and the weights that gave it.
        seed: of every session: it acts as `load_agent(run, seed=seed)`.
        idle_s: seconds without an observation after which a session ends.
        say: receives warnings.

    Raises:
        ConfigurationError: when the rate is not positive, or the port, the socket's path or the
            folder of the log is taken.
    """
    if not 0 < hz < math.inf:
        raise ConfigurationError(f"{hz:g} observations a second are not possible", where="--hz")
    torch.set_num_threads(1)
    agent = _first_published(Path(run), device) if follow else None
    agent = agent or load_agent(run, checkpoint=checkpoint, device=device)
    if agent.checkpoint is None:
        raise ConfigurationError("a model of a hub is served from a folder: save_pretrained first")
    weights = weights_of(agent.model, agent.checkpoint)
    with ExitStack() as opened:
        listener = listen(port=DEFAULT_PORT if port is None else port, exact_port=port is not None)
        sockets, addresses = [opened.enter_context(listener.socket)], [listener.url]
        if socket_path is not None:
            sockets.append(opened.enter_context(unix_listener(socket_path)))
            addresses.append(f"unix:{socket_path}")
        answers = None if log is None else AnswerLog(log, seed, say)
        if answers is not None:
            answers.keep(weights)
            opened.callback(answers.close)
        sessions = Sessions(
            agent, weights, deadline_s=1 / hz, seed=seed, idle_s=idle_s, log=answers
        )
        whole_ms = sessions.warm_up(WARM_UP)
        if follow:
            newer = NewestWeights(Path(run), weights, sessions.take, say)
            newer.start()
            opened.callback(newer.stop)
        app = ActingApp(agent, sessions).behind_guard(listener.access)
        server = uvicorn.Server(server_config(app, KEEP_ALIVE_S))
        yield AgentServer(addresses, whole_ms, server, sockets)


def _first_published(run: Path, device: str) -> Agent:
    """The agent with the first weights that a learner publishes."""
    while True:
        folder = newest(run)
        if folder is not None:
            try:
                return load_agent(run, checkpoint=str(folder.absolute()), device=device)
            except CheckpointError:
                if folder.exists():
                    raise
        time.sleep(LOOK_S)
