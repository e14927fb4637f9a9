"""One HTTP connection with limits, so that slow, silent or broken clients cost next to nothing."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from worldflux.dashboard.guard import secured

HEADER_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 20.0
MAX_CONNECTIONS = 400


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for headers and for reading, and a connection limit.

    uvicorn itself waits for ever for the second half of a request's headers, and for a client
    that stops reading its answer.
    """

    _header_deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _opened_at: float = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; the oldest idle one makes room when there are too many."""
        super().connection_made(transport)
        self._opened_at = self.loop.time()
        self._await_headers()
        if len(self.connections) > MAX_CONNECTIONS:
            self._drop_oldest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._cancel_deadlines()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; the header deadline stands until a request is complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_headers()
        elif self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def pause_writing(self) -> None:
        """The client has stopped reading: it has a while to go on."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def shutdown(self) -> None:
        """The server ends: a client that does not read is not waited for."""
        if self._write_deadline is not None:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with the same headers as every other answer."""
        body = msg.encode("ascii")
        headers = secured([(b"content-type", b"text/plain"), (b"connection", b"close")])
        headers.append((b"content-length", str(len(body)).encode()))
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_headers(self) -> None:
        if self._header_deadline is None:
            self._header_deadline = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.abort)

    def _cancel_deadlines(self) -> None:
        for deadline in (self._header_deadline, self._write_deadline):
            if deadline is not None:
                deadline.cancel()

    def _drop_oldest(self) -> None:
        others = [c for c in self.connections if isinstance(c, BoundedProtocol) and c is not self]
        # A connection that is being answered goes only when all are.
        oldest = min(others, key=lambda c: (c._is_busy(), c._opened_at))
        self.connections.discard(oldest)
        oldest.transport.abort()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
