"""Each fault in what was collected is named, and the same data without it names nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worldflux
from worldflux.diagnosis.evidence import Evidence, Experience, ModelProbe, Played, experience_of
from worldflux.diagnosis.table import CHECKS, diagnose, early_checks

DOCS = Path(worldflux.__file__).parents[1] / "docs"


def columns(episodes: int, length: int, *, acts: bool = True, terminal: bool = False) -> Any:
    """A point that actions move, `[T, 1, ...]`: episodes of one length, all actions random."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "age")}
    for _ in range(episodes):
        place = rng.uniform(-1, 1, 2)
        for age in range(length + 1):
            rows["obs"].append(place.copy())
            rows["reward"].append(0.0 if age == 0 else -float(np.abs(place).sum()))
            rows["age"].append(age)
            action = rng.uniform(-1, 1, 2)
            rows["action"].append(action)
            place = np.clip(place + 0.1 * (action if acts else rng.uniform(-1, 1, 2)), -2, 2)
    age = np.array(rows["age"], np.int32)[:, None]
    return {
        "obs/": np.array(rows["obs"], np.float32)[:, None],
        "action": np.array(rows["action"], np.float32)[:, None],
        "reward": np.array(rows["reward"], np.float32)[:, None],
        "is_first": age == 0,
        "is_last": age == length,
        "is_terminal": (age == length) & terminal,
        "since_first": age,
    }


def experience(**changes: Any) -> Experience:
    return experience_of([(0, columns(**{"episodes": 12, "length": 50, **changes}))], 10_000)


def causes(**parts: Any) -> list[str]:
    manifest = {"model_config": {"model_type": "tdmpc2"}, **parts.pop("manifest", {})}
    return [finding.cause for finding in diagnose(Evidence(manifest, **parts)).findings]


def evaluations(*means: float) -> list[dict[str, Any]]:
    return [
        {"step": 100 * n, "env_steps": 100 * n, "return_mean": m, "return_std": 5.0}
        | {"returns": [m] * 10}
        for n, m in enumerate(means, 1)
    ]


def test_a_run_without_a_fault_names_none() -> None:
    assert causes(experience=experience()) == []


def test_actions_that_move_nothing_are_named() -> None:
    assert causes(experience=experience(acts=False)) == ["actions-ignored"]


def test_actions_that_come_a_step_late_are_not_ignored() -> None:
    rows = columns(episodes=12, length=50)
    rows["action"] = np.roll(rows["action"], -1, axis=0)
    assert causes(experience=experience_of([(0, rows)], 10_000)) == []


def test_a_time_limit_recorded_as_death_is_named() -> None:
    assert causes(experience=experience(terminal=True)) == ["time-limit-as-death"]


def test_deaths_of_one_length_that_look_final_are_deaths() -> None:
    rows = columns(episodes=12, length=50, terminal=True)
    rows["obs/"][rows["is_last"]] += 5.0
    assert causes(experience=experience_of([(0, rows)], 0)) == []


def test_an_end_at_the_declared_time_limit_is_no_death() -> None:
    rows = columns(episodes=20, length=50)
    rows["obs/"][rows["is_last"]] += 5.0  # as where a task is solved by then
    ends = experience_of([(0, rows)], 10_000)
    assert causes(experience=ends) == ["death-unseen"]
    assert causes(experience=ends, manifest={"environment": {"time_limit": 50}}) == []


def test_episodes_of_ever_another_length_without_a_death_are_named() -> None:
    blocks = [(1000 * n, columns(episodes=1, length=20 + n)) for n in range(10)]
    assert causes(experience=experience_of(blocks, 0)) == ["death-unseen"]


def test_a_clock_in_the_observation_is_no_death_unless_only_ends_pay() -> None:
    rows = columns(episodes=20, length=40)
    clock = rows["since_first"][..., None] / np.float32(10)
    rows["obs/"] = np.concatenate([rows["obs/"], clock.astype(np.float32)], -1)
    assert causes(experience=experience_of([(0, rows)], 0)) == []
    rows["reward"] = np.where(rows["is_last"], np.sign(rows["reward"] + 1.5), 0.0)
    assert causes(experience=experience_of([(0, rows)], 0)) == ["death-unseen"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda rows: rows["obs/"][..., 1].__imul__(1e5), "observation-scale"),
        (lambda rows: rows["obs/"].fill(3.0), "observation-constant"),
        (lambda rows: rows["reward"].__imul__(1e4), "reward-scale"),
        (lambda rows: rows["reward"].__imul__(1e-5), "reward-scale"),
        (lambda rows: rows["reward"].fill(1.0), "reward-constant"),
    ],
)
def test_a_fault_of_one_column_is_named(change: Any, cause: str) -> None:
    rows = columns(episodes=12, length=50)
    change(rows)
    assert causes(experience=experience_of([(0, rows)], 0)) == [cause]


def test_rewards_that_are_hardly_ever_met_are_counted() -> None:
    rows = columns(episodes=12, length=50)
    rows["reward"][:] = 0.0
    rows["reward"][[30, 130]] = 1.0
    found = diagnose(Evidence({}, experience=experience_of([(0, rows)], 0))).findings
    assert [finding.cause for finding in found] == ["reward-rare"]
    assert found[0].sentence.startswith("2 of 600 steps")


def test_images_of_zeros_and_ones_are_named() -> None:
    rows = columns(episodes=12, length=50)
    bits = np.random.default_rng(0).integers(0, 2, (len(rows["reward"]), 1, 3, 16, 16))
    rows["obs/"] = bits.astype(np.uint8)
    assert causes(experience=experience_of([(0, rows)], 0)) == ["pixels-dark"]


def test_images_in_which_nothing_can_be_seen_to_move_are_named() -> None:
    rows = columns(episodes=12, length=50)
    faint = 100 + np.random.default_rng(0).integers(0, 4, (len(rows["reward"]), 1, 3, 16, 16))
    rows["obs/"] = faint.astype(np.uint8)
    assert causes(experience=experience_of([(0, rows)], 0)) == ["pixels-still"]
    rows["obs/"][::3, ..., 0, 0] = 200  # one pixel that moves
    assert causes(experience=experience_of([(0, rows)], 0)) == []


def test_a_replay_of_random_play_is_named() -> None:
    online = {"warmup_transitions": 20_000, "pretrain": False}
    manifest = {
        "data_mode": "online",
        "global_step": 2000,
        "env_steps": 21_000,
        "needs": {"replay_rows": 100_000},
        "configuration": {"online_collection": online},
    }
    (found,) = diagnose(Evidence({"model_config": {"a": 1}, **manifest})).findings
    assert (found.cause, found.score) == ("replay-stale", 1.06)
    assert found.command.endswith("online_collection.warmup_transitions=2100")
    assert causes(manifest={**manifest, "needs": {"replay_rows": 8000}}) == []
    assert causes(manifest={**manifest, "env_steps": 40_000}) == []


def test_settings_far_from_the_preset_are_named_the_farthest_first() -> None:
    manifest = {
        "data_mode": "online",
        "global_step": 60,
        "env_steps": 4000,
        "needs": {"replay_rows": 500},
        "resolved_training": {"learning_rate": 9e-3},
        "model_config": {"num_samples": 4, "mpc": True},
        "configuration": {"online_collection": {"warmup_transitions": 1000, "pretrain": False}},
    }
    preset = {"learning_rate": 3e-4, "update_ratio": 1.0}
    found = causes(manifest=manifest, preset=preset)
    assert found == ["updates-few", "replay-small", "planner-small", "rate-high"]
    assert causes(manifest=manifest, preset={"learning_rate": 0.5, "update_ratio": 1e-3}) == [
        "replay-small", "planner-small", "rate-low", "updates-many",
    ]  # fmt: skip


def test_an_environment_comes_before_what_it_explains() -> None:
    rows = experience(acts=False)
    stuck = replace(rows, action=np.ones_like(rows.action), random=rows.age < 0)
    manifest = {"random_return_mean": 0.0, "global_step": 1000}
    parts: dict[str, Any] = {"manifest": manifest, "evaluations": evaluations(0.0)}
    assert causes(experience=stuck, **parts) == ["policy-collapsed"]
    played = Played({}, 0.0, (True, True), True)
    found = causes(experience=stuck, played=played, **parts)
    assert found == ["actions-ignored", "policy-collapsed"]


def test_a_seed_that_is_ignored_and_a_fixed_start_are_told_apart() -> None:
    played = Played({}, 1.0, (True, True), True)
    assert causes(played=played) == []
    assert causes(played=replace(played, repeats=(False, False))) == ["seed-ignored"]
    assert causes(played=replace(played, varies=False)) == ["reset-fixed"]


def test_a_model_is_judged_after_a_thousand_updates() -> None:
    probe = ModelProbe(1e-4, reward_bias=-5.0, reward_spread=1.0, value_bias=80.0, value_spread=2.0)
    assert causes(model=probe, manifest={"global_step": 999}) == []
    found = causes(model=probe, manifest={"global_step": 1000})
    assert found == ["latents-collapsed", "value-high", "reward-biased"]
    good = replace(probe, latent_spread=0.5, reward_bias=0.1, value_bias=-1.0)
    assert causes(model=good, manifest={"global_step": 1000}) == []


def test_evaluations_far_below_training_are_named_once_the_policy_has_settled() -> None:
    curves = {"train/episode_return": np.array([90.0, 95.0, 100.0])}
    manifest = {"random_return_mean": 20.0, "global_step": 1000}
    parts: dict[str, Any] = {"curves": curves, "evaluations": evaluations(10.0)}
    assert causes(manifest=manifest, **parts) == ["evaluation-differs"]
    assert causes(manifest=manifest | {"global_step": 900}, **parts) == []
    (found,) = diagnose(Evidence(manifest, run="my runs/1", **parts)).findings
    assert "worldflux eval --target 'my runs/1' --checkpoint last" in str(found)


def test_plans_worse_than_their_policy_are_named_once_it_has_settled() -> None:
    returns = {"plan": np.array([10.0, 12.0, 9.0, 11.0]), "prior": np.array([50.0, 52.0, 49.0, 51])}
    played = Played(returns, 1.0, (True, True), True)
    assert causes(played=played, manifest={"global_step": 1000}) == ["planner-worse"]
    assert causes(played=played, manifest={"global_step": 900}) == []


def test_pixels_that_never_change_come_before_what_they_explain() -> None:
    rows = columns(episodes=12, length=50, terminal=True)
    rows["obs/"] = np.full((len(rows["reward"]), 1, 3, 16, 16), 127, np.uint8)
    played = Played({}, 0.0, (True, True), True)
    found = causes(experience=experience_of([(0, rows)], 0), played=played)
    assert found == ["observation-constant", "actions-ignored"]


def test_returns_say_healthy_lost_again_too_short_or_unlucky() -> None:
    manifest = {"random_return_mean": 0.0, "env_steps": 400, "global_step": 400}
    learned = diagnose(Evidence(manifest, evaluations=evaluations(0, 50, 100)))
    assert (learned.verdict, learned.findings) == ("healthy", ())
    flat = diagnose(Evidence(manifest, evaluations=evaluations(0, 1, 0)))
    assert (flat.verdict, flat.findings) == ("too little evidence", ())
    fell = causes(manifest=manifest, evaluations=evaluations(0, 100, 10))
    assert fell == ["unstable"]
    short = diagnose(Evidence(manifest, evaluations=evaluations(0, 1), budget=4000.0)).findings
    assert [finding.command for finding in short] == ["worldflux train --resume --steps 4000"]
    unlucky = causes(manifest=manifest, evaluations=evaluations(0, 20), siblings=(90.0, 95.0))
    assert unlucky == ["unlucky-seed"]


def test_a_longer_run_counts_updates_of_pretraining_as_taking_no_step() -> None:
    online = {"warmup_transitions": 600, "pretrain": True, "collect_steps_per_update": 2.0}
    manifest = {
        "random_return_mean": 0.0, "env_steps": 600, "global_step": 80, "data_mode": "online",
        "configuration": {"online_collection": online},
    }  # fmt: skip
    short = diagnose(Evidence(manifest, evaluations=evaluations(0, 1), budget=4600.0)).findings
    # 600 updates pretrain; the other 4,000 steps need half as many.
    assert [finding.command for finding in short] == ["worldflux train --resume --steps 2600"]


def test_training_repeats_only_checks_that_need_no_model_and_no_episode() -> None:
    early = {check.name for check in early_checks()}
    assert {"actions-ignored", "rate-high", "time-limit-as-death"} <= early
    assert not early & {"seed-ignored", "latents-collapsed", "too-short", "stopped"}


def test_the_page_has_every_check_with_its_threshold() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \|(.+)$", (DOCS / "why.md").read_text(), re.M))
    assert rows.keys() == {check.name for check in CHECKS}
    for check in CHECKS:
        if "no threshold" not in check.origin:
            assert f"{check.limit:,g}" in rows[check.name], check.name


def test_evaluations_of_one_episode_are_sure_of_nothing() -> None:
    manifest = {"random_return_mean": 0.0, "model_config": {"a": 1}}
    rows = evaluations(50.0, 100.0, 20.0)
    assert diagnose(Evidence(manifest, evaluations=rows)).findings[0].cause == "unstable"
    single = [{**row, "return_std": 0.0, "returns": [row["return_mean"]]} for row in rows]
    found = diagnose(Evidence(manifest, evaluations=single))
    assert (found.findings, found.learned) == ((), False)
    assert found.summary.startswith("one episode an evaluation says little; last return 20.0")
    running = diagnose(Evidence({**manifest, "status": "running"}, evaluations=rows))
    assert running.summary.startswith("still running; last return 20.0")


def test_advice_keeps_the_options_that_the_run_was_started_with() -> None:
    began = ["worldflux", "train", "--steps", "600", "--output-dir", "a b", "--overwrite"]
    later = ["worldflux", "train", "--resume", "--output-dir", "a b"]
    manifest = {
        "sessions": [{"command": began}, {"command": later}],
        "model_config": {"tau": 0.01},
        "resolved_training": {"learning_rate": 0.1},
        "random_return_mean": 0.0,
        "env_steps": 400,
        "global_step": 400,
    }
    parts = {"preset": {"learning_rate": 1e-3}, "evaluations": evaluations(0, 1), "budget": 4000.0}
    rate, short = diagnose(Evidence(manifest, **parts)).findings
    same = "worldflux train --steps 600 --output-dir 'a b'"
    assert rate.command == f"{same} --overwrite --set training.learning_rate=0.001"
    assert short.command == "worldflux train --output-dir 'a b' --resume --steps 4000"


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"tau": 0.01}, ["tau=0.005", "use_decoder=true"]),
        (
            {"kl_free": 1.0, "slow_critic_fraction": 0.02},
            ["kl_free=0.1", "slow_critic_fraction=0.01"],
        ),
    ],
)
def test_advice_is_a_command_for_the_model_of_the_run(
    config: dict[str, Any], settings: list[str]
) -> None:
    model = ModelProbe(0.001, 9.0, 1.0, 9.0, 1.0)
    found = diagnose(Evidence({"model_config": config, "global_step": 1000}, model=model)).findings
    told = [finding.command.rpartition(" ")[2] for finding in found]
    assert sorted(told) == sorted([*(f"architecture.{text}" for text in settings), "2000"])
