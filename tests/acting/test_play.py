"""Watching an agent: in a window, on a page, and as `eval` plays it."""

from __future__ import annotations

import csv
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from worldflux.cli.app import main
from worldflux.dashboard.frame_page import FramePage
from worldflux.errors import EnvironmentSetupError
from worldflux.evaluation.episodes import EvaluationStopped
from worldflux.evaluation.window import Window
from worldflux.project.play import play_run


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


def test_play_shows_the_episodes_of_eval(
    projects: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(projects["cartpole"])
    assert run_cli("play", place, "--episodes", "2", "--seed", "5") == 0
    shown = capsys.readouterr().out.splitlines()
    given = ("--episodes", "2", "--seed", "5", "--render", "human", "--json")
    assert run_cli("eval", place, *given) == 0
    report = json.loads(capsys.readouterr().out)
    assert shown == [
        f"episode {i}: return {value:.1f} in {steps} steps"
        for i, (value, steps) in enumerate(
            zip(report["returns"], report["lengths"], strict=True), 1
        )
    ]


@pytest.mark.parametrize("command", ["eval", "play", "export --to torch"])
@pytest.mark.parametrize(
    ("project", "option", "message", "hint"),
    [
        ("pendulum", "--policy=foo", "has no policy 'foo'; it has plan, prior", "--policy "),
        ("cartpole", "--policy=plan", "has no policy 'plan'; it has prior", "--policy p"),
        ("cartpole", "--checkpoint=11", "there is no checkpoint '11'", "last, or one of"),
    ],
)
def test_what_the_run_has_not_is_a_mistake_in_the_command_line(
    projects: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    command: str,
    project: str,
    option: str,
    message: str,
    hint: str,
) -> None:
    before = sorted(projects[project].rglob("*"))
    assert run_cli(*command.split(), str(projects[project]), option) == 2
    told = capsys.readouterr().err
    assert message in told
    assert hint in told.partition("hint: ")[2]
    assert sorted(projects[project].rglob("*")) == before


def test_closing_the_window_ends_the_play(projects: dict[str, Path]) -> None:
    seen = []

    class Closing(Window):
        def show(self, frame: np.ndarray) -> None:
            seen.append(frame.shape)
            if len(seen) == 3:
                self._pygame.event.post(self._pygame.event.Event(self._pygame.QUIT))
            super().show(frame)

    with pytest.raises(EvaluationStopped):
        play_run(projects["cartpole"] / "outputs", Closing, episodes=5)
    assert seen == [(400, 600, 3)] * 3


def test_without_a_display_the_alternative_is_named(
    projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert run_cli("play", str(projects["cartpole"])) == 2
    said = capsys.readouterr().err
    assert "there is no display to open a window on" in said
    assert "worldflux play --browser" in said


def test_what_cannot_draw_is_not_played(projects: dict[str, Path]) -> None:
    with pytest.raises(EnvironmentSetupError, match="cannot draw"):
        play_run(projects["walker"] / "outputs", Window, episodes=1)


def test_the_page_streams_frames_and_refuses_other_names() -> None:
    page = FramePage("Walker <one>", 100.0)
    assert b"Walker &lt;one&gt;" in urllib.request.urlopen(page.url).read()
    foreign = urllib.request.Request(page.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(foreign)
    stream = urllib.request.urlopen(f"{page.url}frames")
    page.wait_for_viewer()
    for grey in (0, 100, 200):
        page.show(np.full((16, 16, 3), grey, np.uint8))
    reader = threading.Thread(target=page.close)
    reader.start()
    assert stream.read().count(b"Content-Type: image/jpeg") >= 1
    reader.join()


def test_eval_takes_a_policy_and_writes_a_table(
    projects: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, table = str(projects["pendulum"]), tmp_path / "episodes.csv"
    given = ["eval", place, "--episodes", "2", "--no-video", "--seed", "5", "--json"]
    assert run_cli(*given, "--policy", "prior", "--csv", str(table)) == 0
    prior = json.loads(capsys.readouterr().out)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["return"]) for row in rows] == prior["returns"]
    assert {(row["seed"], row["checkpoint"]) for row in rows} == {("5", prior["checkpoint"])}
    assert run_cli(*given, "--policy", "plan") == 0
    assert json.loads(capsys.readouterr().out)["returns"] != prior["returns"]
    assert run_cli(*given, "--csv", str(tmp_path / "none" / "table.csv")) == 2
    assert "--csv" in capsys.readouterr().err
