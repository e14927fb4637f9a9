"""Foreign hosts and origins are refused, and no answer goes without the security headers."""

from __future__ import annotations

from typing import Any

import pytest

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


# {port} stands for the server's port. Each probe: status, then the header lines.
PROBES = [
    (200, ["Host: 127.0.0.1:{port}"]),
    (200, ["Host: localhost:{port}"]),
    (200, ["Host: LOCALHOST:{port}"]),
    (200, ["Host: [::1]:{port}"]),
    (200, ["Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}"]),
    (200, ["Host: localhost:{port}", "Origin: http://localhost:{port}"]),
    (200, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: same-origin"]),
    (200, ["Host: 127.0.0.1:{port}", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]),
    (403, ["Host: evil.example"]),
    (403, ["Host: evil.example:{port}"]),
    (403, ["Host: localhost.evil.example:{port}"]),
    (403, ["Host: 127.0.0.1.evil.example:{port}"]),
    (403, ["Host: evil-localhost:{port}"]),
    (403, ["Host: localhost.:{port}"]),
    (403, ["Host: 127.0.0.1"]),
    (403, ["Host: 127.0.0.1:1"]),
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


def test_the_page_files_are_cached_by_tag(shared_server: Any) -> None:
    status, headers, body = shared_server.get("/static/plotly.min.js")
    assert status == 200
    assert len(body) > 1 << 20
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    again = shared_server.get("/static/plotly.min.js", headers={"If-None-Match": headers["etag"]})
    assert (again[0], again[2]) == (304, b"")
    check_security_headers(again[1])


def test_a_first_load_stays_below_eight_megabytes(shared_server: Any) -> None:
    names = ["page.js", "charts.js", "dom.js", "format.js", "live.js", "panels.js", "store.js"]
    names += ["gameplay.js", "imagination.js"]
    paths = [f"/static/{name}" for name in [*names, "page.css", "plotly.css", "plotly.min.js"]]
    run = shared_server.json("/api/runs")["runs"][0]["id"]
    paths += ["/", "/static/icon.svg", "/api/runs", f"/api/runs/{run}", f"/api/runs/{run}/series"]
    answers = [shared_server.get(path) for path in paths]
    assert {status for status, _, _ in answers} == {200}
    assert sum(len(body) for _, _, body in answers) < 8 << 20


def test_the_page_names_no_other_host(shared_server: Any) -> None:
    names = ["page.js", "charts.js", "live.js", "panels.js", "gameplay.js", "imagination.js"]
    for name in [*names, "page.css"]:
        assert b"://" not in shared_server.get(f"/static/{name}")[2]
    assert b"://" not in shared_server.get("/")[2]
