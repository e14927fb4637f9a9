"""One rule for which checkpoint of a run is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from worldflux.errors import CheckpointError
from worldflux.training.checkpoints import CheckpointStore, checkpoint_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path / "outputs" / "checkpoints")
    for step in (3000, 4500):
        store.save(step, lambda folder: (folder / "weights").write_text("w") and None)
    _best(tmp_path / "outputs", {"step": 3000})
    return tmp_path / "outputs"


def _best(run: Path, best: object) -> None:
    (run / "run_manifest.json").write_text(json.dumps({"best": best}))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("best", "step-000003000"),
        ("last", "step-000004500"),
        ("4500", "step-000004500"),
        ("step-000004500", "step-000004500"),
        ("step-4500", "step-000004500"),
        ("checkpoints/step-000004500", "step-000004500"),
        ("outputs/checkpoints/step-000004500", "step-000004500"),
        ("outputs/checkpoints/step-000004500/", "step-000004500"),
    ],
)
def test_every_natural_spelling_names_a_checkpoint(
    run: Path, wanted: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    assert checkpoint_of(Path("outputs"), wanted).name == name
    assert checkpoint_of(run, str(run / "checkpoints" / name)).name == name


@pytest.mark.parametrize("wanted", ["4000", "step-4000", "outputs", "nope", ""])
def test_one_that_does_not_exist_lists_those_that_do(run: Path, wanted: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint_of(run, wanted)
    assert "last, or one of 3000, 4500" in (caught.value.hint or "")
    assert caught.value.exit_code == 2  # a mistake in the command line


def test_a_damaged_one_is_no_mistake_in_the_command_line(run: Path) -> None:
    (run / "checkpoints" / "step-000004500" / "manifest.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint_of(run, "4500")
    assert caught.value.exit_code == 1


def test_without_a_best_one_it_is_the_newest(run: Path) -> None:
    _best(run, None)
    assert checkpoint_of(run).name == "step-000004500"
    (run / "run_manifest.json").unlink()
    assert checkpoint_of(run).name == "step-000004500"


def test_a_best_one_that_is_gone_or_damaged_is_never_replaced_in_silence(run: Path) -> None:
    (run / "checkpoints" / "step-000003000" / "weights").write_text("x")
    with pytest.raises(CheckpointError, match="'weights' is damaged") as caught:
        checkpoint_of(run)
    assert "--checkpoint last" in (caught.value.hint or "")
    shutil.rmtree(run / "checkpoints" / "step-000003000")
    with pytest.raises(
        CheckpointError, match="best checkpoint, step-000003000, is missing"
    ) as caught:
        checkpoint_of(run)
    assert "--checkpoint last" in (caught.value.hint or "")
    assert checkpoint_of(run, "last").name == "step-000004500"


@pytest.mark.parametrize("best", ["yes", {"step": "x"}, {}, [1]])
def test_a_manifest_that_names_no_step_is_told(run: Path, best: object) -> None:
    _best(run, best)
    if best == {}:
        assert checkpoint_of(run).name == "step-000004500"
        return
    with pytest.raises(CheckpointError, match="does not say which"):
        checkpoint_of(run)
