"""Numbers really written by loggers: TensorBoard read back; what is not installed is told."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_family import line_model
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from worldflux.core.batch import Batch
from worldflux.errors import ConfigurationError, MissingDependencyError
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.project.run import train_project
from worldflux.run_log import read_rows
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import Callback, LoggingCallback
from worldflux.training.loggers import LOGGERS, TrackedRun


def a_batch() -> Batch:
    rng = np.random.default_rng(0)
    import torch

    def numbers(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    return Batch(
        numbers(4, 3, 3), numbers(4, 3, 1), numbers(4, 3), torch.zeros(4, 3, dtype=torch.bool)
    )


def evaluator(model: Any) -> EpisodeResults:
    return EpisodeResults(np.array([3.0, 5.0]), np.array([7, 7]))


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_holds_what_the_jsonl_holds(tmp_path: Path) -> None:
    log = LoggingCallback(tmp_path / "log", log_to_console=False, log_to_tensorboard=True)
    settings = TrainingConfig(
        total_steps=20, log_interval=5, eval_interval=10, output_dir=str(tmp_path), device="cpu"
    )
    trainer = Trainer(line_model(), settings, [log], evaluator=evaluator)
    trainer.train([a_batch()], num_steps=10)
    trainer.train([a_batch()])  # a second call goes on in the same log
    scalars = read_back(tmp_path / "log")
    rows = list(read_rows(tmp_path / "log" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    for name in ("loss/line", "loss/prediction", "grad_norm/line", "env_steps"):
        assert scalars[name] == [
            (row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows
        ], name
    assert scalars["eval/return_mean"] == [(10, 4.0), (20, 4.0)]


def test_without_a_folder_it_is_the_runs_own(tmp_path: Path) -> None:
    log = LoggingCallback(log_to_console=False, log_to_tensorboard=True)
    settings = TrainingConfig(total_steps=2, log_interval=1, output_dir=str(tmp_path), device="cpu")
    Trainer(line_model(), settings, [log]).train([a_batch()])
    assert len(read_back(tmp_path / "loggers")["loss/line"]) == 2
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_console_gets_a_line_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TrainingConfig(total_steps=4, log_interval=2, output_dir=str(tmp_path), device="cpu")
    Trainer(line_model(), settings, [LoggingCallback()]).train([a_batch()])
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.split()[0] for line in lines] == ["step=2", "step=4"]
    assert all("loss/line=" in line for line in lines)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_logger_that_is_not_installed_is_told_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"worldflux\[{name}\]"):
        LoggingCallback(**{f"log_to_{name}": True})


@pytest.mark.usefixtures("pictures")
def test_log_to_of_the_project_file_reaches_the_run(tiny_project: Path) -> None:
    overrides = ['training.log_to=["tensorboard"]', "gameplay.enabled=true"]
    folder = train_project(tiny_project, overrides=overrides).folder
    assert "loss/model" in read_back(folder)
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    formats = {}
    for name in events.Tags()["images"]:
        newest = events.Images(name)[-1]
        with Image.open(io.BytesIO(newest.encoded_image_string)) as image:
            formats[name] = image.format
            assert image.size == (newest.width, newest.height)
    assert formats == {
        "eval/video": "GIF",
        "eval/return_curve": "PNG",
        "imagination/picture": "PNG",
        "imagination/video": "GIF",
    }
    text = events.Tensors("description/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| environment | Pendulum-v1 |" in text
    assert "| seed | " in text
    plugins = events.summary_metadata
    assert plugins["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"
    with pytest.raises(ConfigurationError, match="log_to"):
        TrainingConfig(log_to=("paper",))


class Everything(Callback):
    """Notes every hook that is called."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        hook = super().__getattribute__(name)
        if not name.startswith("on_"):
            return hook

        @functools.wraps(hook)
        def noted(*details: Any) -> None:
            self.told.append(name)
            hook(*details)

        return noted


def test_every_hook_fires(tiny_project: Path) -> None:
    everything = Everything()
    # Long enough for episodes to end.
    warmup = ["online_collection.warmup_transitions=1000"]
    train_project(tiny_project, overrides=warmup, callbacks=[everything], say=lambda line: None)
    elsewhere = {"on_warning", "on_restore"}  # of runs that degrade, and of resumed ones
    hooks = {name for name in vars(Callback) if name.startswith("on_")} - elsewhere
    assert set(everything.told) - elsewhere == hooks
    assert everything.told[0] == "on_train_begin"
    assert everything.told[-1] == "on_train_end"
    assert everything.told.count("on_step_begin") == everything.told.count("on_step_end") == 20


def test_a_logger_is_a_class_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, float]] = []

    class InMemory:
        def __init__(self, run: TrackedRun) -> None:
            assert run.folder.is_dir()

        def add(self, numbers: Mapping[str, float], step: int) -> None:
            rows.append((step, numbers["loss/line"]))

        def __getattr__(self, name: str) -> Any:
            return lambda *values: None

    monkeypatch.setitem(LOGGERS, "json", InMemory)  # named like a package that is installed
    settings = TrainingConfig(total_steps=4, log_interval=2, output_dir=str(tmp_path), device="cpu")
    log = LoggingCallback(log_to_console=False, loggers=["json"])
    Trainer(line_model(), settings, [log]).train([a_batch()])
    assert [step for step, _ in rows] == [2, 4]
    with pytest.raises(ConfigurationError, match="did you mean 'wandb'"):
        LoggingCallback(loggers=["wndb"])
    with pytest.raises(ConfigurationError, match="did you mean 'log_to_wandb'"):
        LoggingCallback(log_to_wndb=False)
