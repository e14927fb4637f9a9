"""Foreign hosts and origins are refused, and no answer goes without the security headers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RunWriter, Server

import worldflux.dashboard

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def check_security_headers(headers: dict[str, str]) -> None:
    assert headers["content-security-policy"] == CONTENT_SECURITY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "server" not in headers


# {port} is the server's port. Each probe: status, then the header lines.
PROBES = [
    (200, ["Host: 127.0.0.1:{port}"]),
    (200, ["Host: localhost:{port}"]),
    (200, ["Host: LOCALHOST:{port}"]),
    (200, ["Host: [::1]:{port}"]),
    (200, ["Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}"]),
    (200, ["Host: localhost:{port}", "Origin: http://localhost:{port}"]),
    (200, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: same-origin"]),
    (200, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]),
    # A tunnel or a forwarded port has its own number.
    (200, ["Host: localhost:9999", "Origin: http://localhost:9999"]),
    # A proxy that rewrites Host: the browser says that the page asks its own server.
    (
        200,
        [
            "Host: 127.0.0.1:{port}",
            "Origin: https://hub.example",
            "Sec-Fetch-Site: same-origin",
        ],
    ),
    (
        403,
        [
            "Host: evil.example:{port}",
            "Origin: http://evil.example:{port}",
            "Sec-Fetch-Site: same-origin",
        ],
    ),
    (403, ["Host: 127.0.0.1:{port}", "Origin: http://hub.example"]),
    (403, ["Host: evil.example"]),
    (403, ["Host: evil.example:{port}"]),
    (403, ["Host: localhost.evil.example:{port}"]),
    (403, ["Host: 127.0.0.1.evil.example:{port}"]),
    (403, ["Host: evil-localhost:{port}"]),
    (403, ["Host: localhost.:{port}"]),
    (200, ["Host: 127.0.0.1"]),
    (200, ["Host: 127.0.0.1:1"]),
    (403, ["Host: 127.0.0.2:{port}"]),
    (403, ["Host: 0.0.0.0:{port}"]),
    (403, ["Host: 2130706433:{port}"]),
    (403, ["Host: [::]:{port}"]),
    (400, []),
    (400, ["Host: 127.0.0.1:{port}", "Host: evil.example"]),
    (400, ["Host: "]),
    (400, ["Host: user@127.0.0.1:{port}"]),
    (400, ["Host: 127.0.0.1:{port}/path"]),
    (400, ["Host: 127.0.0.1:{port}, evil.example"]),
    (400, ["Host: 127.0.0.1:80x"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: http://evil.example"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: null"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:1"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: http://localhost:{port}"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: https://127.0.0.1:{port}"]),
    (403, ["Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}.evil.example"]),
    (403, ["Host: evil.example:{port}", "Origin: http://evil.example:{port}"]),
    (
        403,
        [
            "Host: 127.0.0.1:{port}",
            "Origin: http://127.0.0.1:{port}",
            "Origin: http://evil.example",
        ],
    ),
    (403, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]),
    (403, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: same-site"]),
]


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/page.js"])
def test_hosts_and_origins(shared_server: Any, path: str) -> None:
    assert len(PROBES) >= 30
    wrong = []
    for status, lines in PROBES:
        text = "".join(line.format(port=shared_server.port) + "\r\n" for line in lines)
        answer = shared_server.raw(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        check_security_headers(answer[1])
        if answer[0] != status:
            wrong.append((lines, status, answer[0]))
        if status != 200:
            assert b"demo" not in answer[2]
    assert wrong == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:{port}/", 400),
        ("http://evil.example/api/runs", 400),
        ("//evil.example/", 404),
        ("*", 400),
        ("/" + "a" * 9000, 414),
        ("/?" + "a" * 9000, 414),
        ("/\x01", 400),
    ],
)
def test_odd_targets(shared_server: Any, target: str, status: int) -> None:
    port = shared_server.port
    line = f"GET {target.format(port=port)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    answer = shared_server.raw(line.encode())
    assert answer[0] == status
    check_security_headers(answer[1])


@pytest.mark.parametrize(
    "text", [b"nonsense\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]
)
def test_what_is_no_http_is_refused_with_the_same_headers(shared_server: Any, text: bytes) -> None:
    status, headers, _ = shared_server.raw(text)
    assert status == 400
    check_security_headers(headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/api/runs", "/nowhere", "/api/events"])
def test_only_reading_exists(shared_server: Any, method: str, path: str) -> None:
    status, headers, _ = shared_server.get(path, method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"
    check_security_headers(headers)


@pytest.mark.parametrize(
    "lines", ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_a_request_with_a_body_is_refused(shared_server: Any, lines: str) -> None:
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{shared_server.port}\r\n{lines}"
    assert shared_server.raw(head.encode())[0] == 400


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/api/runs", "/api/events", "/nowhere", "/static/nothing"]
)
def test_head_answers_as_get_without_a_body(shared_server: Any, path: str) -> None:
    status, headers, body = shared_server.get(path, "HEAD")
    check_security_headers(headers)
    assert body == b""
    if path != "/api/events":
        expected, _, content = shared_server.get(path)
        assert status == expected
        assert int(headers["content-length"]) == len(content)


def test_an_upgrade_to_a_websocket_is_not_taken(shared_server: Any) -> None:
    status, headers, _ = shared_server.get(
        "/api/events", "HEAD", {"Upgrade": "websocket", "Connection": "Upgrade"}
    )
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")


STATIC = sorted(p.name for p in (Path(worldflux.dashboard.__file__).parent / "static").iterdir())


def test_the_page_files_are_cached_by_tag_and_compressed(shared_server: Any) -> None:
    status, headers, body = shared_server.get("/static/page.js")
    assert status == 200
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    again = shared_server.get("/static/page.js", headers={"If-None-Match": headers["etag"]})
    assert (again[0], again[2]) == (304, b"")
    check_security_headers(again[1])
    packed = shared_server.get("/static/page.js", headers={"Accept-Encoding": "gzip"})
    assert packed[1]["content-encoding"] == "gzip"
    assert gzip.decompress(packed[2]) == body


def test_a_first_load_is_small(shared_server: Any) -> None:
    run = shared_server.json("/api/runs")["runs"][0]["id"]
    paths = ["/", *(f"/static/{name}" for name in STATIC if name != "index.html"), "/api/runs"]
    paths += [f"/api/runs/{run}", f"/api/runs/{run}/evaluations"]
    names = "&name=".join(("loss/consistency", "loss/reward", "loss/value"))
    paths.append(f"/api/series?run={run}&name={names}")
    answers = [shared_server.get(p, headers={"Accept-Encoding": "gzip"}) for p in paths]
    assert {status for status, _, _ in answers} == {200}
    # At 1.6 Mbit/s this is half a second.
    assert sum(len(body) for _, _, body in answers) < 100_000


def test_the_page_names_no_other_host(shared_server: Any) -> None:
    for name in STATIC:
        body = shared_server.get(f"/static/{name}")[2]
        # The name of SVG's own namespace is no address that anything is fetched from.
        assert b"://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
        # An absolute address breaks behind a proxy's prefix.
        assert not re.search(rb"[\"'`(=]/(static|api|runs)/", body)


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = RunWriter(tmp_path_factory.mktemp("proxied") / "demo").folder
    options = {"allow_hosts": ["hub.example", "Tunnel.example:443"], "base_path": "/user/me/"}
    server = Server(folder, **options)
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (200, ["Host: hub.example"]),
        (200, ["Host: hub.example:8443", "Origin: https://hub.example:8443"]),
        (200, ["Host: 127.0.0.1:{port}", "Origin: http://hub.example"]),
        (200, ["Host: tunnel.example:443", "Origin: https://tunnel.example"]),
        (403, ["Host: tunnel.example:80"]),
        (403, ["Host: hub.example", "Origin: http://evil.example"]),
        (403, ["Host: a.hub.example"]),
    ],
)
def test_names_that_were_allowed(behind_proxy: Any, status: int, lines: list[str]) -> None:
    text = "".join(line.format(port=behind_proxy.port) + "\r\n" for line in lines)
    answer = behind_proxy.raw(f"GET /api/runs HTTP/1.1\r\n{text}\r\n".encode())
    assert answer[0] == status
    if status == 403:
        assert b"--allow-host" in answer[2]


def test_a_prefix_that_a_proxy_leaves_is_taken_off(behind_proxy: Any) -> None:
    assert behind_proxy.url.endswith("/user/me/")
    assert behind_proxy.get("/user/me")[1]["location"] == "/user/me/"
    for prefix in ("", "/user/me"):
        assert behind_proxy.get(f"{prefix}/static/page.js")[0] == 200
        assert behind_proxy.get(f"{prefix}/")[0] == 200
    assert behind_proxy.get("/user/you/static/page.js")[0] == 404
    assert behind_proxy.get("/user/me/../../static/page.js")[0] == 404
