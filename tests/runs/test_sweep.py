"""Sweeps: what [sweep] refuses, what a trial is, that no trial is lost when workers are killed."""

from __future__ import annotations

import fcntl
import json
import shlex
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("optuna")
sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))

import sweeps

from worldflux.cli.app import command_named, main
from worldflux.errors import ConfigurationError, MissingDependencyError
from worldflux.progress import SILENT, Progress
from worldflux.project.effective import effective_settings
from worldflux.project.loader import load_project
from worldflux.project.manifest import _settings_of, read_manifest
from worldflux.project.problems import ProjectFileError
from worldflux.runs import processes
from worldflux.runs.study import JOURNAL, Study
from worldflux.runs.sweep import _definition, sweep

HEAD = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.02)
    monkeypatch.setenv("FAKE_SECONDS", "0.01")


def swept(file: Path, *overrides: str) -> int:
    return sweep(file, overrides=overrides, screen=SILENT, command=sweeps.FAKE)[1]


# ------------------------------------------------------------------ [sweep]


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ('"training.learning_rat" = { low = 1, high = 2 }', "there is no such setting"),
        ('"training.output_dir" = { choices = ["a"] }', "cannot vary this setting"),
        ('"sweep.trials" = { choices = [1] }', "cannot vary this setting"),
        ('"training.batch_size" = { low = 8, high = 8 }', "low = 8 is not below high = 8"),
        ('"training.batch_size" = { low = 8 }', "low and high have to be finite numbers"),
        ('"training.batch_size" = { low = "8", high = 9 }', "have to be finite numbers"),
        ('"training.batch_size" = { low = 1, choices = [8] }', "choices go with no range"),
        ('"training.learning_rate" = { low = 0, high = 1, log = true }', "needs a low above 0"),
        ('"training.batch_size" = { low = 1, high = 9, step = 0 }', "step is a number above 0"),
        (
            '"training.batch_size" = { low = 16, high = 33, step = 5 }',
            "high = 33 is never tried: steps of 5 from 16 end at 31",
        ),
        (
            '"training.model_overrides" = { choices = [{ horizon = 2 }] }',
            "a choice cannot be a table",
        ),
        ('"training.batch_size" = { lo = 1, high = 9 }', "unknown key 'lo'"),
        ("training.batch_size = { low = 1, high = 9 }", "'training' is not the name of a setting"),
        ('"training.batch_size" = 3', "expected a table"),
    ],
)
def test_a_parameter_is_refused_at_its_place(tmp_path: Path, parameter: str, message: str) -> None:
    (tmp_path / "worldflux.toml").write_text(f"{HEAD}\n[sweep.parameters]\n{parameter}\n")
    with pytest.raises(ProjectFileError, match=message) as caught:
        load_project(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where.partition("worldflux.toml:")[2].startswith("6:")


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [
        ('"training.output_dir" = { choices = ["a"] }', "leave it out; the folder of all trials"),
        ('"sweep.trials" = { choices = [1] }', "leave it out; [sweep.parameters] are settings"),
        ('"training.output_di" = { choices = ["a"] }', None),
        ('"training.batch_siz" = { low = 8, high = 9 }', "did you mean 'training.batch_size'"),
        ('"training.batch_size" = { low = 8 }', "{ low = 64, high = 256 }"),
        ('"training.batch_size" = { low = 16, high = 33, step = 5 }', "write high = 31"),
        ('"training.batch_size" = { low = 1, high = 2, step = 10 }', "write a smaller step"),
        ('"training.learning_rate" = { low = 0.1, high = 0.95, step = 0.1 }', "write high = 0.9"),
        (
            '"training.model_overrides" = { choices = [{ horizon = 2 }] }',
            'vary one of its keys: "training.model_overrides.KEY"',
        ),
        ("training.batch_size = { low = 8 }", "{ low = 64, high = 256 }"),
        ('"architecture.horizon" = { low = 8 }', "{ low = 64, high = 256 }"),
        ('"online_collection.processes" = { low = 8 }', "{ low = 64, high = 256 }"),
        ('"training.learning_rate" = { low = 1 }', "{ low = 1e-4, high = 1e-2 }"),
        ('"environment_kwargs.g" = { low = 1 }', "{ low = 1e-4, high = 1e-2 }"),
        ('"model" = { low = 1 }', "{ low = 1e-4, high = 1e-2 }"),
    ],
)
def test_the_hint_of_a_parameter_fits_it(tmp_path: Path, parameter: str, hint: str | None) -> None:
    (tmp_path / "worldflux.toml").write_text(f"{HEAD}\n[sweep.parameters]\n{parameter}\n")
    with pytest.raises(ProjectFileError) as caught:
        load_project(tmp_path)
    (problem,) = caught.value.problems
    assert (hint or "did you mean") in (problem.hint or "")
    assert "'training.output_dir'" not in (problem.hint or "")


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("foo://bar", ConfigurationError, "sqlite:///study.db"),
        ("no url", ConfigurationError, "sqlite:///study.db"),
        ("sqlite:///{here}/none/study.db", ConfigurationError, "mkdir -p {here}/none"),
        ("sqlite:///{here}/worldflux.toml", ConfigurationError, "once the database is"),
        ("postgresql+psycopg2://me@host/db", MissingDependencyError, "install psycopg2-binary"),
    ],
)
def test_a_database_that_cannot_be_used_leaves_nothing_behind(
    tmp_path: Path, url: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    file = sweeps.write_sweep(tmp_path, 1, 1, url.format(here=tmp_path))
    before = file.read_bytes()
    with pytest.raises(error) as caught:
        swept(file)
    assert words.format(here=tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["worldflux.toml"]
    assert file.read_bytes() == before


def test_a_study_may_lie_in_a_database(tmp_path: Path) -> None:
    file = sweeps.write_sweep(tmp_path, 2, 1, f"sqlite:///{tmp_path}/study.db")
    assert swept(file) == 0
    assert swept(file, "sweep.trials=3") == 0
    assert len(sweeps.trials_of(file)) == 3


def test_values_that_a_run_would_refuse_are_found_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "worldflux.toml"
    parameters = '"training.batch_size" = { low = -8, high = 8 }\n"model" = { choices = ["none"] }'
    file.write_text(f"{HEAD}\n[sweep.parameters]\n{parameters}\n")
    with pytest.raises(ProjectFileError) as caught:
        swept(file)
    assert len(caught.value.problems) == 2
    file.write_text(HEAD)
    with pytest.raises(ConfigurationError, match="nothing to vary"):
        swept(file)
    sweeps.write_sweep(tmp_path, 2, 1)
    with pytest.raises(ConfigurationError, match="MedianPruner"):
        swept(file, "sweep.pruner_options.startup=3")
    with pytest.raises(ConfigurationError, match="compares runs by their evaluations"):
        swept(file, "evaluation.episodes=0")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("swept_range", "refused"),
    [
        ("{ low = 16, high = 32, step = 0.5 }", "hidden_dim = 16.0 is not allowed"),
        ("{ low = 16, high = 32.0, step = 4 }", "hidden_dim = 16.0 is not allowed"),
    ],
)
def test_values_between_the_ends_are_tried_as_they_are_drawn(
    tmp_path: Path, swept_range: str, refused: str
) -> None:
    file = tmp_path / "worldflux.toml"
    file.write_text(f'{HEAD}\n[sweep.parameters]\n"architecture.hidden_dim" = {swept_range}\n')
    with pytest.raises(ProjectFileError, match=refused) as caught:
        swept(file)
    assert len(caught.value.problems) == 1
    parameter = '"architecture.latent_dim" = { low = 16, high = 32 }'
    file.write_text(f"{HEAD}\n[sweep.parameters]\n{parameter}\n")
    with pytest.raises(ProjectFileError, match="latent_dim = 17 is not allowed: expected a multi"):
        swept(file)


def test_only_a_range_that_reaches_its_end_is_taken(tmp_path: Path) -> None:
    head = f'{HEAD}\n[sweep.parameters]\n"training.learning_rate" = '
    for swept_range in (
        "{ low = 0.1, high = 1.0, step = 0.1 }",
        "{ low = 1, high = 16, step = 5 }",
    ):
        (tmp_path / "worldflux.toml").write_text(head + swept_range)
        load_project(tmp_path)
    (tmp_path / "worldflux.toml").write_text(head + "{ low = 0, high = inf, step = 0.1 }")
    with pytest.raises(ProjectFileError, match="high = inf is not a finite number"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("option", "message", "hint"),
    [
        ('n_startup_trials = "a"', "Optuna's TPESampler: ", None),
        ("seed = 3", "would give every trial the same values", "write sampler_seed = 3"),
    ],
)
def test_options_that_a_sampler_cannot_draw_with_are_refused_before_anything_is_written(
    tmp_path: Path, option: str, message: str, hint: str | None
) -> None:
    file = sweeps.write_sweep(tmp_path, 2, 1)
    file.write_text(file.read_text().replace("n_startup_trials = 4", option, 1))
    with pytest.raises(ConfigurationError, match=message) as caught:
        swept(file)
    assert ":" in (caught.value.where or "")
    assert hint is None or hint in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["worldflux.toml"]


def test_config_show_prints_a_sweep_that_loads_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweeps.write_sweep(tmp_path, 3, 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["config", "show"])
    file.write_text(capsys.readouterr().out)
    places = {setting.path for setting in effective_settings(load_project(file))}
    assert ("sweep", "parameters", "training.learning_rate", "log") in places


# ------------------------------------------------------------------ trials


def test_trials_are_runs_with_their_values(tmp_path: Path) -> None:
    file = sweeps.write_sweep(tmp_path, 6, 1)
    assert swept(file) == 0
    trials = sweeps.trials_of(file)
    assert [trial["number"] for trial in trials] == list(range(6))
    for trial in trials:
        manifest = read_manifest(tmp_path / "outputs" / f"trial-{trial['number']:04d}")
        if trial["state"] == "COMPLETE":
            assert manifest["final"]["return_mean"] == trial["value"]
        else:
            assert manifest["status"] in ("interrupted", "completed")  # it may be faster
            assert max(map(int, trial["evaluations"])) < 40
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    assert swept(file, "sweep.trials=7") == 0  # a study may go on
    assert sweeps.trials_of(file)[:6] == trials
    with pytest.raises(ConfigurationError, match=r"other settings: training\.total_steps"):
        swept(file, "training.total_steps=80")


def test_the_next_command_trains_this_project_with_the_settings_of_the_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweeps.write_sweep(tmp_path / "two words", 1, 1)
    tags = 'logging.tags=["a", "b c"]'
    screen = Progress(sys.stderr)
    assert (
        sweep(file, overrides=["sweep.trials=2", tags], screen=screen, command=sweeps.FAKE)[1] == 0
    )
    words = shlex.split(capsys.readouterr().err.partition("next      ")[2].splitlines()[0])
    given = command_named("train").make_context("train", words[2:]).params
    assert (given["config"], given["seeds"]) == (file, "5")
    assert given["set_"][0] == tags
    assert any(text.startswith("training.learning_rate=") for text in given["set_"][1:])


def test_a_failed_trial_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [sys.executable, "-c", "import sys; print('error: no luck'); sys.exit(1)"]
    file = sweeps.write_sweep(tmp_path, 2, 2)
    assert sweep(file, screen=Progress(sys.stderr), command=broken)[1] == 1
    told = capsys.readouterr().err
    assert "trial-0001: failed: exit code 1: no luck;" in told
    assert "0 trials completed, 2 failed" in told


def test_a_study_of_more_trials_than_asked_for_is_reported_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweeps.write_sweep(tmp_path, 4, 2)
    assert swept(file) == 0
    trials = sweeps.trials_of(file)
    best = max(trials, key=lambda trial: trial["value"])
    assert best["number"] > 0  # so that the first alone would be reported otherwise
    capsys.readouterr()
    again = ["sweep.trials=1"]
    assert sweep(file, overrides=again, screen=Progress(sys.stderr), command=sweeps.FAKE)[1] == 0
    told = capsys.readouterr().err
    assert "the study has 4 trials, and 1 were asked for" in told
    assert "4 trials completed" in told
    assert f"best      trial-{best['number']:04d}" in told
    assert sweeps.trials_of(file) == trials


def test_a_password_of_the_database_is_in_no_manifest(tmp_path: Path) -> None:
    project = load_project(sweeps.write_sweep(tmp_path, 1, 1, "postgresql://me:secret@host/db"))
    assert "secret" not in json.dumps(_settings_of(project))


def test_a_journal_line_that_a_kill_cut_is_dropped(tmp_path: Path) -> None:
    file = sweeps.write_sweep(tmp_path, 2, 1)
    swept(file)
    journal = tmp_path / "outputs" / JOURNAL
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    assert swept(file, "sweep.trials=3") == 0
    assert len(sweeps.trials_of(file)) == 3


def test_a_trial_whose_run_is_still_saving_is_taken_later(tmp_path: Path) -> None:
    file = sweeps.write_sweep(tmp_path, 1, 1)
    folder = tmp_path / "outputs" / "trial-0000"
    project = load_project(file)
    study = Study(project, folder.parent, _definition(project))
    claimed = study.claim()
    assert claimed is not None
    claimed[1].close()  # its worker dies, and leaves a trainer
    folder.mkdir()
    trainer = (folder / ".lock").open("w")
    fcntl.flock(trainer, fcntl.LOCK_EX)
    assert study.claim() is None
    assert not study.is_handed_out()
    threading.Timer(0.5, trainer.close).start()
    assert swept(file) == 0
    assert sweeps.trials_of(file)[0]["state"] == "COMPLETE"


def test_killed_workers_lose_no_trial_and_the_study_ends_the_same(tmp_path: Path) -> None:
    found = sweeps.compared(tmp_path, trials=5, workers=1, kills=2, seed=1, fake=True)
    assert found["kills"] >= 1
    assert (found["lost"], found["same"], found["with_checkpoint"]) == (0, True, 5)
