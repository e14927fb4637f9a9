"""`agent_server`: a run's agent, and what a learner makes of it, behind a local server."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn

from worldflux.dashboard.server import listen, server_config
from worldflux.errors import CheckpointError, ConfigurationError

from . import DEFAULT_HZ, DEFAULT_PORT
from .agent import Agent
from .answer_log import AnswerLog
from .load import load_agent
from .server import KEEP_ALIVE_S, ActingApp, unix_listener
from .sessions import Sessions
from .weights import NewestWeights, newest, weights_of

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
