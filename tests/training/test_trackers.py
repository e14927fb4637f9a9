"""What Weights & Biases and trackio are told, recorded by modules that stand in for them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from worldflux.errors import ConfigurationError
from worldflux.project.loader import load_project
from worldflux.project.run import train_project
from worldflux.training.loggers import TrackedRun, Tracking

STAND_IN = """
import json, os

def note(call, /, **values):
    with open(os.environ["CALLS"], "a") as calls:
        told = json.dumps([call, values], default=lambda m: [type(m).__name__, m.data])
        calls.write(told + "\\n")

class Run:
    def log(self, row, step=None):
        note("log", row=row, step=step)
    def define_metric(self, name, **values):
        note("define_metric", metric=name, **values)
    def finish(self):
        note("finish")

def init(**values):
    json.dumps(values, allow_nan=False)
    note("init", **values)
    return Run()

class Media:
    def __init__(self, data):
        self.data = data
        if type(self).__name__ in ("Image", "Video"):
            assert open(data, "rb").read()

class Image(Media):
    pass

class Video(Media):
    pass

class Html(Media):
    pass

class Markdown(Media):
    pass

log = Run().log
finish = Run().finish
"""
QUICK = ["training.total_steps=2", "training.eval_interval=2", "training.log_interval=1"]


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    for variable in [variable for variable in os.environ if variable.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / f"{name}.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    return name


def calls(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    return [values for call, values in rows if call == name]


def train(project: Path, tracker: str, *overrides: str, resume: bool = False) -> None:
    train_project(
        project,
        overrides=[*QUICK, f'training.log_to=["{tracker}"]', *overrides],
        resume=resume,
        say=lambda line: None,
    )


def test_the_project_file_names_the_run(tiny_project: Path, tmp_path: Path, tracker: str) -> None:
    named = {"project": "pendula", "name": "seed 7", "group": "sweep-3", "tags": ["a", "b"]}
    named |= {"entity": "us", "mode": "disabled"}
    text = (tiny_project / "worldflux.toml").read_text() + tomli_w.dumps({"logging": named})
    (tiny_project / "worldflux.toml").write_text(text)
    train(tiny_project, tracker)
    (told,) = calls(tmp_path, "init")
    known = named if tracker == "wandb" else dict(list(named.items())[:3])
    assert {name: told[name] for name in known} == known
    configuration = told["config"]
    assert configuration["model"] == "tdmpc2:ci"
    assert configuration["environment"]["id"] == "Pendulum-v1"
    assert configuration["training_config"]["total_steps"] == 2
    assert configuration["model_config"]["horizon"] == 2
    rows = [row["row"] for row in calls(tmp_path, "log")]
    assert any("loss/model" in row for row in rows)
    assert any("eval/return_mean" in row for row in rows)
    assert len(calls(tmp_path, "finish")) == 1


@pytest.mark.usefixtures("pictures")
def test_pictures_videos_and_texts_are_logged(
    tiny_project: Path, tmp_path: Path, tracker: str
) -> None:
    train(tiny_project, tracker, "gameplay.enabled=true")
    rows = [row["row"] for row in calls(tmp_path, "log")]
    media = {name: value for row in rows for name, value in row.items() if isinstance(value, list)}
    kinds = {name: (kind, Path(data).suffix) for name, (kind, data) in media.items()}
    assert kinds["eval/video"] == ("Video", ".mp4")
    assert kinds["imagination/picture"] == ("Image", ".png")
    assert kinds["imagination/video"] == ("Video", ".mp4")
    assert kinds["eval/return_curve"] == ("Image", ".png")
    kind, text = media["description"]
    assert kind == ("Html" if tracker == "wandb" else "Markdown")
    assert "| environment | Pendulum-v1 |" in text
    assert "| model | tdmpc2:ci |" in text
    (told,) = calls(tmp_path, "init")
    assert f"| seed | {told['config']['seed']} |" in text


def test_one_run_across_resumes(tiny_project: Path, tmp_path: Path, tracker: str) -> None:
    train(tiny_project, tracker)
    train(tiny_project, tracker, "training.total_steps=3", resume=True)
    first, second = calls(tmp_path, "init")
    assert first["resume"] == second["resume"] == "allow"
    key = "id" if tracker == "wandb" else "name"
    assert first[key] == second[key]
    assert first[key]
    assert first["project"] == "tiny"  # the project's own name where nobody says otherwise


@pytest.mark.parametrize("tracker", ["wandb"], indirect=True)
def test_the_variables_of_wandb_come_between(
    tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    train(tiny_project, tracker, "logging.mode=offline")
    train(tiny_project, tracker, "logging.project=explicit", "training.output_dir=other")
    first, second = calls(tmp_path, "init")
    assert (first["project"], first["mode"], first["id"]) == ("from-environment", "offline", "abc")
    assert (second["project"], second["mode"]) == ("explicit", "online")
    monkeypatch.delenv("WANDB_RUN_ID")
    runs = [TrackedRun(tmp_path / name, Tracking(), {}, 0) for name in ("a", "b")]
    for run in runs:
        run.folder.mkdir()
    assert runs[0].id() == runs[0].id() != runs[1].id()
    # Unset, these are left to W&B, which reads WANDB_NAME, WANDB_RUN_GROUP and the others itself.
    assert {first[name] for name in ("name", "group", "tags", "entity")} == {None}


def test_mistakes_in_the_section_are_reported_at_their_key(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_project(tiny_project, ["logging.mode=of", "logging.tags=a", "logging.projekt=b"])
    told = str(caught.value)
    assert '"online", "offline", "disabled"' in told or "'online', 'offline'" in told
    assert "did you mean 'project'" in told
    assert """--set 'logging.tags=["a"]'""" in told
    with pytest.raises(ConfigurationError) as caught:
        load_project(tiny_project, ["training.log_to=wandb"])
    assert """expected a list of names""" in str(caught.value)
    assert """--set 'training.log_to=["wandb"]'""" in str(caught.value)
    with pytest.raises(ConfigurationError, match="did you mean 'wandb'"):
        load_project(tiny_project, ['training.log_to=["wnadb"]'])
