"""The proof verdict: what it takes, what is missing is named, and nothing is proven by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.configuration_hash import configuration_hash
from worldflux.core.config import DreamerV3Config
from worldflux.errors import ConfigurationError, EnvironmentSetupError, RunFolderError
from worldflux.verify.bootstrap import TaskScores, compare, interquartile_mean
from worldflux.verify.curves import built_in_curves, read_curves
from worldflux.verify.proof import INSUFFICIENT, NOT_PROVEN, PROVEN, ProofSettings, verify_proof
from worldflux.verify.run_scores import RunScores
from worldflux.verify.verdict import Verdict

from .runs import make_run

# walker-walk at 100,000 frames: published 961.9 +- 9.8 over 3 seeds.
GOOD = [(0, 30.0), (50_000, 955.0)]
BAD = [(0, 30.0), (50_000, 600.0)]


def runs(root: Path, points: Any = GOOD, seeds: int = 5, **changes: Any) -> Path:
    for seed in range(seeds):
        shifted = [(x, y + 3.0 * seed * (x > 0)) for x, y in points]
        make_run(root / f"seed{seed}", seed, shifted, **changes)
    return root


def words(verdict: Verdict) -> str:
    return " ".join(check.detail for check in verdict.checks if check.status == "fail")


def test_runs_as_good_as_published_are_proven_with_the_warnings(tmp_path: Path) -> None:
    verdict = verify_proof([runs(tmp_path)])
    assert (verdict.conclusion, verdict.passed) == (PROVEN, True), str(verdict)
    assert any("code of 2023" in warning for warning in verdict.warnings)
    length = next(check for check in verdict.checks if check.name.startswith("length"))
    assert length.numbers["frames"] == 100_000  # 50,000 agent steps of two frames


def test_worse_runs_are_not_proven_and_it_says_that_they_are_worse(tmp_path: Path) -> None:
    verdict = verify_proof([runs(tmp_path, BAD)])
    assert (verdict.conclusion, verdict.passed) == (NOT_PROVEN, False)
    assert "it is worse" in words(verdict)


def test_scattered_runs_are_not_proven_and_more_seeds_may_decide(tmp_path: Path) -> None:
    for seed, value in enumerate((980.0, 700.0, 975.0)):
        make_run(tmp_path / str(seed), seed, [(50_000, value)])
    verdict = verify_proof([tmp_path])
    assert verdict.conclusion == NOT_PROVEN
    assert "more seeds may settle it" in words(verdict)


def test_one_seed_is_insufficient_evidence(tmp_path: Path) -> None:
    verdict = verify_proof([runs(tmp_path, seeds=1)])
    assert verdict.conclusion == INSUFFICIENT
    assert "1 of at least 3 seeds" in words(verdict)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"points": [(0, 30.0), (20_000, 900.0)]}, "too short"),
        ({"points": [(0, 30.0), (40_000, 955.0), (70_000, 960.0)]}, "too short"),  # none near 100k
        ({"time_limit": 1000}, "action repeat 1"),
        ({"environment": "Pendulum-v1"}, "no published curve"),
        ({"model": "dreamerv3:size12m"}, "no returns of training episodes"),
        ({"degraded_modes": ["device_fallback"]}, "degraded"),
        ({"status": "running"}, "the run is running"),
        ({"weights_sha256": "0" * 64}, "not the ones that the manifest names"),
        ({"random": 961.0}, "no better than a random policy"),
        ({"environment_entry": "walker"}, "environment is 'walker'"),
        (
            {"environment_entry": {"id": "dm_control/walker-walk-v0", "kwargs": "pixels"}},
            "environment.kwargs is 'pixels'",
        ),
        (
            {"environment_entry": {"id": "dm_control/walker-walk-v0", "action_repeat": "two"}},
            "environment.action_repeat is 'two'",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    verdict = verify_proof([runs(tmp_path, **changes)])
    assert (verdict.conclusion, verdict.passed) == (INSUFFICIENT, False)
    assert named in words(verdict)


def test_where_no_run_tells_what_random_is_it_is_played(tmp_path: Path) -> None:
    pytest.importorskip("dm_control")
    made = runs(tmp_path, random=None)
    verdict = verify_proof([made])
    assert verdict.conclusion == PROVEN, str(verdict)
    length = next(check for check in verdict.checks if check.name.startswith("length"))
    assert 10 < length.numbers["random_return_mean"] < 80  # of 1,000
    assert verify_proof([made]).to_dict() == verdict.to_dict()


def test_where_random_cannot_be_played_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise EnvironmentSetupError("dm_control is not installed")

    monkeypatch.setattr("worldflux.verify.proof.play_random", missing)
    verdict = verify_proof([runs(tmp_path, random=None)])
    assert verdict.conclusion == INSUFFICIENT
    assert "random policy" in words(verdict)
    assert "dm_control is not installed" in words(verdict)


def test_a_seed_used_twice_is_no_further_evidence(tmp_path: Path) -> None:
    for copy in range(4):
        make_run(tmp_path / str(copy), 7, GOOD)
    assert "a seed was used twice" in words(verify_proof([tmp_path]))


def test_runs_of_several_configurations_are_not_seeds_of_one(tmp_path: Path) -> None:
    runs(tmp_path, seeds=3)
    other = {"total_steps": 1, "batch_size": 7}
    make_run(tmp_path / "other", 9, GOOD, training_config=other)
    assert "not of one configuration" in words(verify_proof([tmp_path]))


def test_a_failed_seed_cannot_be_left_in_the_dark(tmp_path: Path) -> None:
    runs(tmp_path, seeds=4)
    make_run(tmp_path / "failed", 9, [(10_000, 5.0)], status="failed")
    assert verify_proof([tmp_path]).conclusion == INSUFFICIENT


def test_several_tasks_are_one_verdict(tmp_path: Path) -> None:
    runs(tmp_path / "walk")
    stand = [(0, 130.0), (50_000, 980.0)]
    runs(tmp_path / "stand", stand, environment="dm_control/walker-stand-v0", random=130.0)
    verdict = verify_proof([tmp_path])
    assert verdict.conclusion == PROVEN, str(verdict)
    assert verdict.checks[-1].numbers["tasks"] == 2


def test_returns_that_the_manifest_does_not_know_are_no_evidence(tmp_path: Path) -> None:
    final = {"step": 50_000, "return_mean": 955.0}
    made = make_run(tmp_path / "run", 0, GOOD, final=final, best=final)
    (made / "eval.jsonl").write_text((made / "eval.jsonl").read_text().replace("955", "965"))
    verdict = verify_proof([tmp_path])
    assert verdict.conclusion == INSUFFICIENT
    assert "the final evaluation (update 50000) is another one" in words(verdict)


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run here"):
        verify_proof([tmp_path])


@pytest.mark.parametrize(
    ("model", "representation", "family"),
    [
        ("r2dreamer:laptop", "barlow", "r2dreamer"),
        ("dreamerv3:laptop", "barlow", "r2dreamer"),
        ("r2dreamer:laptop", "reconstruction", "dreamer"),
        ("dreamerv3:laptop", None, "dreamer"),  # of an older version
    ],
)
def test_an_agent_without_a_decoder_is_not_held_to_dreamerv3(
    model: str, representation: str | None, family: str
) -> None:
    config = {"representation": representation} if representation else {}
    assert RunScores(Path(), {"model": model, "model_config": config}).family == family


def reference(**changes: Any) -> dict[str, Any]:
    curve = {
        "task": "pendulum",
        "environment": "Pendulum-v1",
        "seeds": 5,
        "steps": [0, 1000],
        "mean": [-1200.0, -200.0],
        "sd": [50.0, 20.0],
    }
    return {
        "format": 1,
        "id": "mine",
        "algorithm": "TD-MPC2",
        "family": "tdmpc2",
        "suite": "classic",
        "observation": "state",
        "frames_per_agent_step": 1,
        "agent_steps_per_episode": 200,
        "evaluation": "evaluation episodes",
        "window": None,
        "protocol": "10 evaluation episodes",
        "source": "our own runs",
        "licence": "MIT",
        "warnings": ["made for a test"],
        "curves": [{**curve, **changes}],
    }


def test_a_reference_file_of_the_user_is_compared_with(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(reference()))
    pendulum = {"environment": "Pendulum-v1", "time_limit": 200, "frames_per_env_step": 1}
    made = runs(tmp_path / "runs", [(1000, -190.0)], random=-1200.0, **pendulum)
    verdict = verify_proof([made], references=read_curves(path))
    assert verdict.conclusion == PROVEN, str(verdict)
    assert any("made for a test" in warning for warning in verdict.warnings)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": [0, 0]}, "steps must grow"),
        ({"steps": [0, 0.5]}, r"steps.1: Input should be a valid integer"),
        ({"sd": [1.0, -1.0]}, "sd.1: Input should be greater than or equal to 0"),
        ({"mean": [1.0]}, "of one length"),
        ({"mean": [1.0, True]}, "mean.1: Input should be a valid number"),
        ({"mean": [1.0, float("nan")]}, "mean.1: Input should be a finite number"),
        ({"seeds": 2.5}, "seeds: Input should be a valid integer"),
        ({"task": " "}, "task: String should match"),
    ],
)
def test_a_reference_file_with_a_mistake_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(reference(**changes)))
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_curves(path)
    assert caught.value.where == f"{path}: curves[0]"


def test_atari_runs_are_placed_by_their_frames_and_their_sticky_actions(tmp_path: Path) -> None:
    """100,000 actions of four frames each; published without sticky actions."""
    returns = [(step, step / 1000) for step in range(0, 100_001, 500)]
    pixels = DreamerV3Config(obs_shape=(3, 64, 64), action_dim=6, action_type="discrete")
    for sticky, arguments in ((True, {}), (False, {"repeat_action_probability": 0.0})):
        for seed in range(3):
            folder = tmp_path / str(sticky) / str(seed)
            place = {
                "id": "ALE/Boxing-v5",
                "kwargs": arguments,
                "time_limit": None,
                "frames_per_env_step": 4,
            }
            model = {"model": "dreamerv3:official_12m", "model_config": pixels.to_dict()}
            make_run(folder, seed, [(100_000, 1.0)], random=0.1, **model, environment_entry=place)
            rows = [{"step": x, "env_steps": x, "train/episode_return": y} for x, y in returns]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = verify_proof([tmp_path / "True"])
    assert refused.conclusion == INSUFFICIENT
    assert "repeat_action_probability = 0" in words(refused)
    verdict = verify_proof([tmp_path / "False"])
    assert verdict.conclusion in (PROVEN, NOT_PROVEN), str(verdict)
    assert any("at 400,000 frames" in check.detail for check in verdict.checks)


def test_the_curves_that_are_carried() -> None:
    curves = built_in_curves()
    assert len(curves) == 143
    assert all(curve.source.licence == "MIT" and curve.source.warnings for curve in curves)
    walk = next(c for c in curves if c.source.id == "tdmpc2-state" and c.task == "walker-walk")
    assert (walk.environment, walk.seeds) == ("dm_control/walker-walk-v0", 3)
    assert walk.mean[walk.steps.index(100_000)] == pytest.approx(962, abs=1)
    proprio = next(c for c in curves if c.source.id == "dreamerv3-dmc-state")
    assert any("first version of 2023" in warning for warning in proprio.source.warnings)


def test_the_interquartile_mean_cuts_a_quarter_at_either_end() -> None:
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 1e9, 2.0, 3.0])) == 2.5
    assert interquartile_mean(np.array([1.0, 5.0, 9.0])) == 5.0  # three values: the mean


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_an_agent_worse_by_the_margin_is_seldom_called_proven(kind: str) -> None:
    """At the edge of the null hypothesis the rate of "proven" is the test's size."""
    rng, proven, trials = np.random.default_rng(0), 0, 400
    margin = ProofSettings().margin
    for trial in range(trials):
        draw = rng.normal(size=3) if kind == "normal" else 1 - rng.exponential(size=3)
        published = rng.normal(1.0, 0.05, 3)
        scores = TaskScores(1.0 - margin + 0.05 * draw, 0.0, *_moments(published), 3)
        proven += compare([scores], 0.05, trial, resamples=1000).difference_low > -margin
    assert proven / trials <= 0.05 + 0.02


def _moments(values: Any) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def test_the_format_in_the_documentation_is_the_format(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
    path = tmp_path / "ours.json"
    path.write_text(page.split("```text\n")[1].split("```")[0])
    assert read_curves(path)[0].mean == (-1220.0, -640.0, -160.0)


def recorded(seed: int, **collection: Any) -> dict[str, Any]:
    """What a run records since it keeps every section, with its hash."""
    content: dict[str, Any] = {
        "model_config": {"obs_shape": [24]},
        "training_config": {"seed": seed, "scheduler": "none"},
        "resolved_training": {},
        "settings": {},
        "configuration": {"online_collection": {"warmup_transitions": 0, **collection}},
        "environment": {"id": "dm_control/walker-walk-v0", "time_limit": 500},
        "sessions": [{"from_update": 0, "changed": {}}],
    }
    content["config_hash"] = configuration_hash(content)
    return {"environment_entry": content.pop("environment"), **content}


def seeds_pass(verdict: Verdict) -> bool:
    return next(check.status for check in verdict.checks if check.name == "seeds") == "pass"


def test_runs_that_collected_differently_are_not_of_one_configuration(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make_run(tmp_path / "same" / str(seed), seed, GOOD, **recorded(seed))
        other = recorded(seed, collect_steps_per_update=seed)
        make_run(tmp_path / "other" / str(seed), seed, GOOD, **other)
    verdict = verify_proof([tmp_path / "same"])
    assert seeds_pass(verdict), str(verdict)
    assert not any("earlier version" in warning for warning in verdict.warnings)
    assert "not of one configuration" in words(verify_proof([tmp_path / "other"]))


def test_what_earlier_versions_did_not_record_is_said(tmp_path: Path) -> None:
    verdict = verify_proof([runs(tmp_path, seeds=3)])
    assert seeds_pass(verdict), str(verdict)
    assert sum("records no [data]" in warning for warning in verdict.warnings) == 3


def test_an_own_environment_is_compared_with_no_published_curve(tmp_path: Path) -> None:
    own = {"id": "dataset.py:make_env", "named": "dm_control/walker-walk-v0", "time_limit": 500}
    for seed in (1, 2, 3):
        make_run(tmp_path / str(seed), seed, GOOD, environment_entry=own)
    verdict = verify_proof([tmp_path])
    assert verdict.conclusion == INSUFFICIENT
    assert "no published curve of tdmpc2 in dataset.py:make_env" in words(verdict)
