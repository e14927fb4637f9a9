"""`worldflux runs`: the table, differences, one file of evaluations, and comparisons of groups."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from fake_train import evaluation, write_run

from worldflux.cli.app import main
from worldflux.errors import ConfigurationError
from worldflux.runs.comparison import compare_groups
from worldflux.runs.listing import runs_below
from worldflux.verify.bootstrap import improvement_interval, profile, score_interval
from worldflux.verify.run_scores import collect_runs

SCORES = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=8).map(np.array)


def write_group(
    parent: Path, scores: list[float], environment: str = "Pendulum-v1", **more: object
) -> Path:
    """A run a score, whose best evaluation is 10 above its last."""
    for seed, score in enumerate(scores):
        rows = [evaluation(10, score + 10), evaluation(20, score)]
        more = {"environment": {"id": environment}, **more}
        write_run(parent / f"{environment}-{seed}", seed, "completed", rows, **more)
    return parent


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["runs", *words])
    captured = capsys.readouterr()
    assert exit_.value.code == 0, captured.err
    return captured.out


# ------------------------------------------------------------------ the numbers


@settings(max_examples=25)
@given(SCORES, SCORES)
def test_probability_of_improvement_counts_pairs(x: np.ndarray, y: np.ndarray) -> None:
    found = improvement_interval([x], [y], 0.05, resamples=50)
    pairs = [(a > b) + (a == b) / 2 for a in x for b in y]
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert found.value + improvement_interval([y], [x], 0.05, resamples=50).value == 1
    assert (found.low is None) == (found.value in (0, 1))
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.high <= 1


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = crossed = 0
    for trial in range(300):
        ours, theirs = rng.normal(1, 1, (2, 5)), rng.normal(1, 1, (2, 5))
        found = score_interval([*ours], 0.1, seed=trial, resamples=400)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1 <= found.high
        chance = improvement_interval([*ours], [*theirs], 0.1, seed=trial, resamples=400)
        crossed += chance.low is not None and chance.low <= 0.5 <= (chance.high or 0)
    assert covered >= 0.87 * 300
    assert crossed >= 0.87 * 300


def test_a_single_run_has_no_interval() -> None:
    found = score_interval([np.array([1.0, 2.0]), np.array([3.0])], 0.05)
    assert (found.value, found.low, found.high) == (2.0, None, None)


def test_a_profile_is_the_share_above_each_level() -> None:
    share, low, high = profile([np.array([1.0, 2.0, 3.0, 4.0])], np.array([0.0, 2.0, 5.0]), 0.05)
    assert share.tolist() == [1.0, 0.5, 0.0]
    assert low[1] <= 0.5 <= high[1]


# ------------------------------------------------------------------ groups


def test_folders_are_groups(tmp_path: Path) -> None:
    good = write_group(tmp_path / "good", [5, 6, 7, 8])
    bad = write_group(tmp_path / "bad", [1, 2, 6, 3])
    found = compare_groups([bad, good])
    assert [group.name for group in found.groups] == ["bad", "good"]
    assert found.intervals["good"].value == 6.5
    ((pair, chance),) = found.improvements.items()
    assert pair == ("good", "bad")
    assert chance.value == (16 - 1.5) / 16  # the better one first; 5 < 6, 6 = 6
    assert next(iter(compare_groups([good], score="best").intervals.values())).value == 16.5
    assert found.warnings == []


def test_below_one_folder_seeds_of_a_configuration_are_a_group(tmp_path: Path) -> None:
    one = {"logging": {"name": "x-seed-0", "group": "x"}}
    write_group(tmp_path / "a", [1, 2], configuration=one, config_hash="a" * 64)
    write_group(tmp_path / "b", [3, 4], config_hash="b" * 64)
    found = compare_groups([tmp_path])
    assert [group.name for group in found.groups] == ["x (aaaaaaaa)", "b (bbbbbbbb)"]
    assert [group.runs for group in found.groups] == [2, 2]
    assert [group.name for group in compare_groups([tmp_path / "b"]).groups] == ["b"]


def test_environments_are_normalised_and_weigh_the_same(tmp_path: Path) -> None:
    for environment, scale in (("Pendulum-v1", 1.0), ("Walker-v1", 1000.0)):
        more = {"random_return_mean": 0.0}
        write_group(tmp_path / "one", [4 * scale, 4 * scale], environment, **more)
        write_group(tmp_path / "two", [scale, 3 * scale], environment, **more)
    found = compare_groups([tmp_path / "one", tmp_path / "two"])
    assert found.unit == "normalised score"
    assert [found.intervals[group.name].value for group in found.groups] == [1.0, 0.5]
    write_group(tmp_path / "three", [1, 2])
    with pytest.raises(ConfigurationError, match="three has no run in Walker-v1"):
        compare_groups([tmp_path / "one", tmp_path / "three"])


def test_runs_that_are_not_comparable_are_named(tmp_path: Path) -> None:
    group = write_group(tmp_path / "runs", [1, 2])
    write_run(group / "open", 5, "interrupted", [evaluation(10, 1.0)])
    write_run(group / "new", 6, "running", [])
    warnings = compare_groups([group]).warnings
    assert any("new is left out" in text for text in warnings)
    assert any("open is interrupted" in text for text in warnings)
    assert any("after 20 to 40 environment steps" in text for text in warnings)


def test_a_run_counts_once_however_often_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(tmp_path / "runs", [1, 2, 6], config_hash="a" * 64)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("runs")
    once = compare_groups([Path("runs")])
    for again in ("runs", "runs/../runs", "link", str(tmp_path / "runs")):
        found = compare_groups([Path("runs"), Path(again)])
        assert [group.runs for group in found.groups] == [3]
        assert (found.intervals, found.warnings) == (once.intervals, [])
    run = Path("runs/Pendulum-v1-1")
    assert [group.runs for group in compare_groups([run, run]).groups] == [1]
    assert runs_below([Path("runs"), run, tmp_path]) == runs_below([Path("runs")])
    assert len(collect_runs([Path("runs"), run, tmp_path])) == 3  # nor does a proof


def test_groups_that_share_runs_are_told_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_group(tmp_path / "runs", [1, 2, 6])
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(SystemExit) as exit_:
        main(["runs", "compare", ".", "Pendulum-v1-1"])
    told = capsys.readouterr()
    assert exit_.value.code == 0
    assert "warning: runs and runs/Pendulum-v1-1 share 1 run: they are not independent" in told.err
    assert "warning" not in told.out


# ------------------------------------------------------------------ the command


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_group(tmp_path, [1, 2], configuration={"logging": {"name": "n", "tags": ["a", "b"]}})
    lines = output_of(capsys, "list", str(tmp_path)).splitlines()
    assert " ".join(lines[0].split()) == "run name status seed steps best last time tags"
    assert " ".join(lines[1].split()[1:]) == "n completed 0 20/40 11.0 1.0 2 s a b"
    rows = json.loads(output_of(capsys, "list", str(tmp_path), "--json"))
    assert [row["seed"] for row in rows] == [0, 1]
    with pytest.raises(SystemExit) as exit_:
        main(["runs", "list", str(tmp_path / "nothing")])
    assert exit_.value.code == 2


@pytest.mark.parametrize("damage", ["null", '"x"', "[]", '{"logging": null}'])
def test_a_damaged_run_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    write_group(tmp_path / "runs", [1, 2, 3])
    bad = tmp_path / "runs" / "Pendulum-v1-2"
    file = bad / "run_manifest.json"
    content = json.loads(file.read_text()) | {"configuration": json.loads(damage)}
    file.write_text(json.dumps(content))
    rows = json.loads(output_of(capsys, "list", str(tmp_path), "--json"))
    assert [row["status"] for row in rows] == ["completed", "completed", "unreadable"]
    assert "damaged: configuration" in rows[2]["reason"]
    output_of(capsys, "export", str(tmp_path), "--out", str(tmp_path / "all.csv"))
    found = compare_groups([tmp_path / "runs"])
    assert [group.runs for group in found.groups] == [2]
    assert any(
        "Pendulum-v1-2 is left out: run_manifest.json is damaged" in w for w in found.warnings
    )
    with pytest.raises(SystemExit) as exit_:
        main(["why", str(bad), "--no-play"])
    assert exit_.value.code == 2
    assert "run_manifest.json is damaged: configuration" in capsys.readouterr().err


def test_a_manifest_without_status_or_environment_is_compared(tmp_path: Path) -> None:
    write_group(tmp_path / "runs", [1])
    file = tmp_path / "runs" / "Pendulum-v1-0" / "run_manifest.json"
    content = json.loads(file.read_text())
    del content["status"], content["environment"]
    file.write_text(json.dumps(content))
    assert any("of unknown status" in text for text in compare_groups([tmp_path]).warnings)


def test_compare_writes_tables_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a", "b" * 100]
    places = [str(write_group(tmp_path / name, [1, 2, 5])) for name in names]
    picture, table = tmp_path / "c.svg", tmp_path / "c.csv"
    text = output_of(
        capsys,
        "compare",
        *places,
        "--picture",
        str(picture),
        "--out",
        str(table),
        "--score",
        "best",
    )
    assert "P(" in text
    assert "95 % interval" in text
    assert "probability of improvement" in picture.read_text()
    rows = list(csv.DictReader(table.open()))
    assert [row["group"] for row in rows] == names
    found = json.loads(output_of(capsys, "compare", *places, "--json"))
    assert found["probability_of_improvement"][0]["value"] == 0.5
    assert len(found["profile"]["level"]) == len(found["profile"]["a"]["share"])
    for wrong in (["--score", "mean"], ["--picture", "c.docx"], ["--out", "c.txt"]):
        with pytest.raises(SystemExit) as exit_:
            main(["runs", "compare", *places, *wrong])
        assert exit_.value.code == 2


def test_differences_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_group(tmp_path / "a", [1], training_config={"batch_size": 8, "output_dir": "a"})
    write_group(tmp_path / "b", [1], training_config={"batch_size": 16, "output_dir": "b"})
    text = output_of(capsys, "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert text.splitlines()[2:] == ["training_config.batch_size", "    1: 8  2: 16"]
    for name in ("all.csv", "all.json"):
        output_of(capsys, "export", str(tmp_path), "--out", str(tmp_path / name))
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert [float(row["return_mean"]) for row in rows] == [11.0, 1.0, 11.0, 1.0]
    assert json.loads((tmp_path / "all.json").read_text())[1]["env_steps"] == 40
