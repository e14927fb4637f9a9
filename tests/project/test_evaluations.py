"""Evaluations of a run: the run's own rules, a limit, few copies, one environment, or none."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import ConfigurationError, EnvironmentFault
from worldflux.project import environments, evaluate
from worldflux.project.evaluate import evaluate_run
from worldflux.project.imagine import imagine_run
from worldflux.project.manifest import read_manifest
from worldflux.project.run import RunOutcome, train_project
from worldflux.run_log import read_rows
from worldflux.verify.quick import QuickSettings, verify_quick

PROJECT = """
project_name = "own"
environment = "custom"
model = "tdmpc2:ci"
[architecture]
mpc = false
[training]
total_steps = 4
batch_size = 4
eval_interval = 2
save_interval = 2
device = "cpu"
[data]
buffer_capacity = 2000
[online_collection]
warmup_transitions = 30
pretrain = false
[evaluation]
episodes = 2
[gameplay]
enabled = false
"""
# Writes down each environment and the seed of each episode; interrupts the trainer on request.
DATASET = """
import fcntl, os, signal, gymnasium, numpy as np
from pathlib import Path
HERE = Path(__file__).parent
class E(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    def __init__(self):
        with (HERE / "made").open("a") as made: made.write("x")
        if ONCE:
            self.lock = (HERE / "lock").open("w")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    def close(self):
        if ONCE: self.lock.close()
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        with (HERE / "seeds").open("a") as seeds: seeds.write(f"{seed}\\n")
        self.count, self.seed = 0, seed
        return np.full(3, FILL, np.float32), {}
    def step(self, action):
        self.count += 1
        if (self.seed, self.count) == (42, 3) and (HERE / "interrupt").exists():
            os.kill(os.getppid(), signal.SIGINT)
        return np.full(3, FILL, np.float32), 1.0, False, self.count == LENGTH, {}
def make_env(render_mode=None):
    return E()
"""


def project(root: Path, *, length: int = 6, once: bool = False, fill: float = 0.5) -> Path:
    (root / "worldflux.toml").write_text(PROJECT)
    (root / "dataset.py").write_text(f"LENGTH, ONCE, FILL = {length}, {once}, {fill}\n{DATASET}")
    return root


def run(root: Path, *overrides: str, said: list[str] | None = None, **options: Any) -> RunOutcome:
    say = (lambda line: None) if said is None else said.append
    return train_project(root, overrides=overrides, say=say, **options)


def seeds(root: Path) -> list[int]:
    """The seeds of the episodes since the last call."""
    told = (root / "seeds").read_text().split()
    (root / "seeds").unlink()
    return [int(seed) for seed in told]


def test_what_plays_a_run_plays_it_by_the_runs_rules(tmp_path: Path) -> None:
    root = project(tmp_path, fill=5.0)  # beyond its bounds
    folder = run(
        root, "online_collection.check_bounds=false", "evaluation.max_episode_steps=4"
    ).folder
    assert evaluate_run(folder, episodes=2, video=False).lengths == [4, 4]
    assert imagine_run(folder, episodes=2, horizon=2).checkpoint
    verdict = verify_quick(folder, QuickSettings(episodes=2))
    assert "environment" not in [check.name for check in verdict.checks]
    assert any("cut after 4 steps" in warning for warning in verdict.warnings)


def test_episodes_without_an_end_are_cut_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "LONGEST", 40)
    monkeypatch.setattr(environments, "LONGEST_ENDLESS", 15)
    root, said = project(tmp_path, length=-1), list[str]()
    folder = run(root, said=said).folder
    told = "\n".join(said)
    assert "declares no time limit: evaluation episodes are cut after 40 steps" in told
    assert "2 of 2 random episodes did not end: evaluation episodes are cut after 15 steps" in told
    assert "2 of 2 evaluation episodes were cut after 15 steps" in told
    manifest = read_manifest(folder)
    assert manifest["evaluation"] == {"episodes": 2, "max_episode_steps": 15}
    assert manifest["final"]["episodes_cut"] == 2
    assert manifest["random_return_mean"] == 15.0
    rows = list(read_rows(folder / "eval.jsonl"))
    assert [(row["returns"], row["episodes_cut"]) for row in rows] == [([15.0, 15.0], 2)] * 2
    report = evaluate_run(folder, episodes=3, video=False)
    assert report.lengths == [15, 15, 15]
    assert "3 of 3 episodes of the agent policy were cut after 15 steps" in str(report)


def test_a_task_with_an_end_of_its_own_is_never_cut(tmp_path: Path) -> None:
    root, said = project(tmp_path, length=1500), list[str]()
    folder = run(root, "evaluation.episodes=1", "training.eval_interval=4", said=said).folder
    assert read_manifest(folder)["final"]["return_mean"] == 1500.0
    assert not any("did not end" in line or "were cut" in line for line in said)


@pytest.mark.parametrize("episodes", [0, 1])
def test_an_environment_that_exists_once(tmp_path: Path, episodes: int) -> None:
    root = project(tmp_path, once=True)
    with pytest.raises(EnvironmentFault, match="BlockingIOError") as caught:
        run(root)
    for way in ("evaluation.environment=training", "evaluation.episodes=0"):
        assert way in (caught.value.hint or "")
    way = f"evaluation.episodes={episodes}"
    shared = ["evaluation.environment=training"] if episodes else []
    folder = run(root, way, *shared).folder
    manifest = read_manifest(folder)
    assert (manifest["best"] is None) == (episodes == 0)
    assert manifest["random_return_mean"] == (6.0 if episodes else None)
    assert evaluate_run(folder, episodes=3, video=False).returns == [6.0] * 3
    assert imagine_run(folder, episodes=3, horizon=2).skill is not None
    assert "environment" not in [
        c.name for c in verify_quick(folder, QuickSettings(episodes=2)).checks
    ]
    run(root, "training.total_steps=6", way, *shared, resume=True)
    assert read_manifest(folder)["global_step"] == 6


def test_an_evaluation_in_the_training_environment_only_cuts_the_present_episode(
    tmp_path: Path,
) -> None:
    root = project(tmp_path)
    run(root, "evaluation.environment=training", "training.total_steps=2")
    spent = seeds(root)
    first = spent.index(42)  # of training; the measurement begins at 0, evaluations elsewhere
    assert 1_000_042 in spent[:first]
    assert 1_000_042 in spent[first:]
    own = [s for s in spent[first:] if s != 1_000_042]
    assert len(set(own)) == len(own)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["evaluation.environment=training", "data.source=random"], "evaluation.environment"),
        (["evaluation.environment=training", "online_collection.vector=native"], "environment"),
        (["evaluation.episodes=0", "evaluation.stop_at_return=3.0"], "stop_at_return"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(
    tmp_path: Path, overrides: list[str], key: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(project(tmp_path), *overrides)
    assert key in (caught.value.where or "") + caught.value.message
    assert not (tmp_path / "outputs").exists()


def test_many_episodes_are_played_in_few_copies(tmp_path: Path) -> None:
    root = project(tmp_path)
    outcome = run(root, "evaluation.episodes=70", "training.eval_interval=4")
    assert len(json.loads((outcome.folder / "eval.jsonl").read_text())["returns"]) == 70
    assert len((root / "made").read_text()) <= 32 + 3


@pytest.mark.parametrize("seed", [1_000_000, 1_500_000, 2_000_000])
def test_no_episode_of_eval_and_verify_was_seen_in_training(tmp_path: Path, seed: int) -> None:
    root = project(tmp_path)
    folder = run(root, f"training.seed={seed}", "training.eval_interval=4").folder
    trained = set(seeds(root))
    assert {seed, seed + 1_000_000} <= trained
    evaluate_run(folder, episodes=40, video=False)
    verify_quick(folder, QuickSettings(episodes=20))
    imagine_run(folder, episodes=4, horizon=2)
    assert trained.isdisjoint(seeds(root))


def test_a_resumed_run_plays_no_random_episodes_again(tmp_path: Path) -> None:
    root = project(tmp_path)
    folder = run(root).folder
    known = read_manifest(folder)["random_return_mean"]
    seeds(root)
    run(root, "training.total_steps=5", "training.eval_interval=50", resume=True)
    assert seeds(root).count(1_000_042) == 1  # the last evaluation
    assert read_manifest(folder)["random_return_mean"] == known


def test_a_signal_ends_the_random_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = evaluate.play_episodes

    def interrupted(model: Any, *args: Any, stop: Callable[[], bool], **kwargs: Any) -> Any:
        if model is None:
            signal.raise_signal(signal.SIGTERM)
        return play(model, *args, stop=stop, **kwargs)

    root = project(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "play_episodes", interrupted)
        outcome = run(root)
    assert (outcome.exit_code, outcome.result.step) == (143, 0)
    manifest = read_manifest(outcome.folder)
    assert (manifest["status"], manifest["random_return_mean"]) == ("interrupted", None)
    run(root, resume=True)
    manifest = read_manifest(outcome.folder)
    assert (manifest["status"], manifest["random_return_mean"]) == ("completed", 6.0)


PLANNING = ("architecture.mpc=true", "architecture.num_samples=8", "architecture.num_elites=4")


@pytest.mark.parametrize("policy", ["plan", "prior"])
def test_the_return_of_one_policy_counts_and_both_are_reported(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_video", lambda folder, name, agent: (name, None))
    root = project(tmp_path)
    folder = run(root, f"evaluation.policy={policy}", *PLANNING).folder
    for row in read_rows(folder / "eval.jsonl"):
        assert row["return_mean"] == row[f"return_mean_{policy}"] == 6.0
        assert {"return_mean_plan", "return_mean_prior"} <= row.keys()
    other = {"plan": "prior", "prior": "plan"}[policy]
    report = evaluate_run(folder, episodes=2, video=False)
    assert report.policies == {other: [6.0, 6.0]}
    assert f"  {other:<7}        6.0 +- 0.0" in str(report)
    assert report.policy == policy
    asked = evaluate_run(folder, episodes=2, video=False, policy=other)
    assert (asked.policies, asked.policy) == ({}, other)
    assert f", policy {other}\n" in str(asked)
    assert asked.video == f"{report.video}-{other}"  # beside the other one, not in its place


def test_a_policy_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    root = project(tmp_path)
    text = (root / "worldflux.toml").read_text().replace("mpc = false", "")
    text = text.replace("tdmpc2:ci", "dreamerv3:ci").replace(
        "episodes", 'policy = "plan"\nepisodes'
    )
    (root / "worldflux.toml").write_text(text)
    with pytest.raises(ConfigurationError, match="has no policy 'plan'; it has prior") as caught:
        run(root)
    assert "worldflux.toml" in str(caught.value.where)
    assert not (root / "outputs").exists()


def test_a_signal_while_an_episode_is_repeated_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    root = project(tmp_path, length=200)
    folder = run(root, "evaluation.episodes=0").folder
    (root / "interrupt").touch()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    longer = ["training.total_steps=6", "evaluation.episodes=0"]
    outcome = run(root, *longer, resume=True)
    assert outcome.exit_code == 130
    assert all(path.read_bytes() == content for path, content in before.items())
    said: list[str] = []
    outcome = run(root, *longer, "online_collection.env_resume=restart", resume=True, said=said)
    assert (outcome.exit_code, outcome.result.step) == (0, 6)
    assert any("is not replayed (online_collection.env_resume)" in line for line in said)


def test_a_run_in_a_thread_handles_no_signals(tmp_path: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(project(tmp_path)).exit_code))
    thread.start()
    thread.join()
    assert codes == [0]
