"""The quick verdict: what must fail fails, by name, and chance alone does not pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.cli.app import main
from worldflux.errors import RunFolderError
from worldflux.project.run import train_project
from worldflux.verify.bootstrap import difference_lower_bound, mean_lower_bound
from worldflux.verify.quick import QuickSettings, verify_quick
from worldflux.verify.run_scores import collect_runs
from worldflux.verify.verdict import Verdict

from ..warm import Warm


@pytest.fixture
def finished(tiny_project: Path) -> Path:
    return train_project(tiny_project, say=lambda line: None).folder


def status_of(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "run_manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_untrained_agent_does_not_pass(finished: Path) -> None:
    verdict = verify_quick(finished, QuickSettings(episodes=6))
    assert not verdict.passed
    status = status_of(verdict)
    for name in ("manifest", "files", "counters", "data", "model", "contract", "recorded returns"):
        assert status[name] == "pass", str(verdict)
    assert (status["policy"], status["reward model"]) == ("fail", "fail")


def test_it_says_the_same_twice(finished: Path) -> None:
    first, second = (verify_quick(finished, QuickSettings(episodes=3)).to_dict() for _ in range(2))
    assert first == second


def test_a_flipped_bit_is_found_and_named(finished: Path) -> None:
    path = finished / "checkpoints" / "step-000000020" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)
    verdict = verify_quick(finished)
    assert status_of(verdict)["files"] == "fail"
    assert "model.safetensors" in str(verdict)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"degraded_modes": ["device_fallback"]}, "data"),
        ({"data_mode": "random"}, "data"),
        ({"global_step": 21}, "counters"),
        ({"weights_sha256": "0" * 64}, "files"),
        ({"status": "finished"}, "manifest"),
        ({"training_config": {}}, "manifest"),
        ({"parameters": 1}, "model"),
        ({"environment": {"id": "MountainCarContinuous-v0", "time_limit": 999}}, "manifest"),
        ({"environment": {"id": "NoSuch-v0", "time_limit": None}}, "manifest"),
    ],
)
def test_a_manifest_that_claims_something_else_fails(
    finished: Path, changes: dict[str, Any], check: str
) -> None:
    change_manifest(finished, **changes)
    verdict = verify_quick(finished, QuickSettings(episodes=2))
    assert not verdict.passed
    assert status_of(verdict)[check] == "fail"


@pytest.mark.parametrize("kind", ["normal", "skewed", "rare success"])
def test_2000_random_policies_against_themselves(kind: str) -> None:
    """The false-pass rate is at most alpha, whatever a random policy's returns look like."""
    alpha = 0.05
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda: rng.normal(-1200.0, 300.0, (2, 20)),
        "skewed": lambda: rng.exponential(10.0, (2, 20)),
        "rare success": lambda: rng.binomial(1, 0.1, (2, 20)).astype(float),
    }[kind]
    passed = 0
    for trial in range(2000):
        agent, random = draw()
        passed += difference_lower_bound(agent, random, alpha, trial, resamples=500) > 0
    assert passed / 2000 <= alpha


def test_the_bound_finds_a_real_difference() -> None:
    rng = np.random.default_rng(1)
    agent, random = rng.normal(2.0, 1.0, 20), rng.normal(size=20)
    assert difference_lower_bound(agent, random, 0.05, 0) > 1.0
    assert mean_lower_bound(agent, 0.05, 0) < agent.mean()


def test_the_parts_of_a_run_are_not_missing(finished: Path) -> None:
    for part in ("run_manifest.json", "checkpoints"):
        with pytest.raises(SystemExit) as ended:
            main(["verify", "--mode", "proof", "--target", str(finished / part)])
        assert ended.value.code == 3  # one seed proves nothing, but the run was read
    (checkpoint, *_) = sorted((finished / "checkpoints").iterdir())
    with pytest.raises(RunFolderError, match="a checkpoint, not a run") as caught:
        collect_runs([checkpoint])
    assert caught.value.hint == f"name its run: --target {finished}"


def test_the_command_exits_three_when_a_check_fails(finished: Path, python: Warm) -> None:
    command = ("-m", "worldflux", "verify", "--target", str(finished), "--json")
    done = python.run(*command, cwd=finished)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["verdict"] == "fail"
