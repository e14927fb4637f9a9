"""Models on a hub, against a small server that speaks the hub's protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from worldflux import create_world_model, get_config
from worldflux.errors import (
    CheckpointError,
    ConfigurationError,
    MissingDependencyError,
    ModelNotFoundError,
)

REPOSITORY = "someone/pendulum"
FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/(revision|preupload|commit)/([^/?]+)")


class Hub(ThreadingHTTPServer):
    """Repositories in memory: a list of commits, each the files by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.requests: list[str] = []
        self.taking = True

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.commits.get(repository, [])
        if revision == "main" and found:
            return found[-1]
        return next((commit for commit in found if commit[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def answer(self, code: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def missing(self, error: str) -> None:
        self.answer(404, X_Error_Code=error)

    def do_GET(self) -> None:
        wanted, asked = FILE.fullmatch(self.path), API.match(self.path)
        match = wanted or asked
        if match is None or match[1] not in self.server.commits:
            return self.missing("RepoNotFound")
        commit = self.server.files(match[1], match[3] if asked else match[2])
        if commit is None:
            return self.missing("RevisionNotFound")
        name, files = commit
        if wanted is None:
            siblings = [{"rfilename": file} for file in files]
            return self.json({"id": match[1], "sha": name, "siblings": siblings})
        if wanted[3] not in files:
            return self.missing("EntryNotFound")
        content = files[wanted[3]]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.answer(200, content, ETag=etag, X_Repo_Commit=name)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://127.0.0.1:{self.server.server_port}"
        if self.headers.get("Authorization") != "Bearer right" or not self.server.taking:
            return self.answer(403)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization', 'someone')}/{asked['name']}"
            self.server.commits.setdefault(repository, [])
            return self.json({"url": f"{url}/{repository}"})
        match = API.match(self.path)
        assert match is not None
        if match[2] == "preupload":
            files = json.loads(body)["files"]
            plan = {"uploadMode": "regular", "shouldIgnore": False}
            return self.json({"files": [{"path": file["path"], **plan} for file in files]})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        commits = self.server.commits[match[1]]
        name = hashlib.sha1(body).hexdigest()
        commits.append((name, {**(commits[-1][1] if commits else {}), **added}))
        commit_url = f"{url}/{match[1]}/commit/{name}"
        return self.json({"success": True, "commitOid": name, "commitUrl": commit_url})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "right")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("WORLDFLUX_CACHE_DIR", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def small(seed: int):
    torch.manual_seed(seed)
    return create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)


def test_the_documented_block_runs(hub: Hub) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "push_to_hub" in b)
    exec(compile(block, "extending.md", "exec"), {})
    assert hub.commits[REPOSITORY]


def test_what_is_pushed_opens_bit_equal(hub: Hub) -> None:
    model = small(0)
    reference = model.push_to_hub(REPOSITORY)
    again = create_world_model(f"hf://{REPOSITORY}")
    obs = torch.randn(4, 3)
    assert torch.equal(again.encode(obs)["latent"], model.encode(obs)["latent"])
    assert again.config == model.config
    assert get_config(reference).obs_shape == (3,)
    name, files = hub.commits[REPOSITORY][0]
    assert reference == f"hf://{REPOSITORY}@{name}"
    assert files.keys() == {"config.json", "model.safetensors"}


def test_main_follows_the_newest_commit_and_a_commit_stays(hub: Hub) -> None:
    first, second = small(1), small(2)
    old = first.push_to_hub(REPOSITORY)
    create_world_model(f"hf://{REPOSITORY}")
    second.push_to_hub(REPOSITORY)
    obs = torch.randn(4, 3)
    newest = create_world_model(f"hf://{REPOSITORY}").encode(obs)["latent"]
    assert torch.equal(newest, second.encode(obs)["latent"])
    pinned = create_world_model(old).encode(obs)["latent"]
    assert torch.equal(pinned, first.encode(obs)["latent"])


def test_a_fetched_commit_needs_no_network_and_main_does(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = small(3).push_to_hub(REPOSITORY)
    create_world_model(reference)
    seen = len(hub.requests)
    create_world_model(reference)
    assert len(hub.requests) == seen
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    create_world_model(reference)
    with pytest.raises(CheckpointError, match="download from the hub failed") as caught:
        create_world_model(f"hf://{REPOSITORY}")
    assert "@COMMIT" in str(caught.value)


def test_what_the_hub_does_not_have_is_told(hub: Hub) -> None:
    small(4).push_to_hub(REPOSITORY)
    hub.commits["someone/text"] = [("a" * 40, {"README.md": b"hello"})]
    for reference in ("hf://someone/else", f"hf://{REPOSITORY}@v9", "hf://someone/text"):
        with pytest.raises(ModelNotFoundError) as caught:
            create_world_model(reference)
        assert caught.value.where == reference
    with pytest.raises(ConfigurationError, match="names no model on a hub"):
        create_world_model("hf://someone/../else")


def test_a_damaged_upload_is_refused_like_any_file(hub: Hub) -> None:
    small(5).push_to_hub(REPOSITORY)
    name, files = hub.commits[REPOSITORY][0]
    hub.commits[REPOSITORY] = [(name, {**files, "model.safetensors": b"\x80\x04pickle"})]
    with pytest.raises(CheckpointError, match="its file holds 8 bytes"):
        create_world_model(f"hf://{REPOSITORY}")


def test_a_refused_upload_says_how_to_log_in(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="upload to the hub failed") as caught:
        small(6).push_to_hub(REPOSITORY, token="wrong")
    assert "hf auth login" in str(caught.value)


def test_without_the_extra_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"worldflux\[hub\]"):
        create_world_model("hf://someone/pendulum")
