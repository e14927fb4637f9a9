"""What `init` writes: a file that loads, thin scripts, TOML that no answer can break."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.core.config import DreamerV3Config, TDMPC2Config
from worldflux.errors import ConfigurationError, ModelNotFoundError
from worldflux.project.answers import (
    CHOICES,
    Answers,
    complete,
    default_model,
    environment_id,
)
from worldflux.project.environments import environment_maker
from worldflux.project.loader import load_project
from worldflux.project.scaffold import render, templates_in, templates_root, to_toml

ENVIRONMENTS = [
    *CHOICES,
    "CartPole-v1",
    "worldflux/Catch-v0",
    "MiniGrid-Empty-5x5-v0",
    "my_package:MyWorld-v2",
]


KEYS = tomllib.loads(render(complete("agent"))["worldflux.toml"]).keys()


def written(answers: Answers, folder: Path) -> Path:
    for name, text in render(answers).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_choice_gives_a_project_that_loads(environment: str, tmp_path: Path) -> None:
    answers = complete("agent", environment, batch_size=8, device="cpu")
    project = load_project(written(answers, tmp_path))
    assert project.sections.environment == environment_id(environment)
    assert project.training_config().batch_size == 8
    assert project.training_config().device == "cpu"
    assert project.training_config().total_steps == answers.total_steps


@pytest.mark.parametrize(("steps", "told"), [(None, "4,000"), (60, "2,500"), (10_000, "8,125")])
def test_pendulum_says_how_many_environment_steps_its_updates_are(
    steps: int | None, told: str, tmp_path: Path
) -> None:
    toml = render(complete("agent", total_steps=steps))["worldflux.toml"]
    assert f"with the numbers below {told} environment steps\n" in toml


def test_the_default_is_a_small_tdmpc2_for_pendulum(tmp_path: Path) -> None:
    project = load_project(written(complete("agent"), tmp_path))
    config = project.model_config((3,), 1)
    assert isinstance(config, TDMPC2Config)
    assert (config.hidden_dim, config.num_q_networks, config.momentum) == (64, 2, 0.0)
    assert project.sections.environment == "Pendulum-v1"


def test_a_discrete_environment_gets_a_dreamerv3_with_tuned_settings(tmp_path: Path) -> None:
    project = load_project(written(complete("agent", "CartPole-v1"), tmp_path))
    config = project.model_config((4,), 2, "discrete")
    assert isinstance(config, DreamerV3Config)
    assert (config.recipe, config.deter_dim, config.learning_rate) == ("official", 128, 6e-4)
    assert project.training_config().ema_decay == 0.97
    assert project.sections.online_collection.num_envs == 4
    assert project.sections.evaluation.stop_at_return == 490.0
    assert project.sections.verify.threshold == 450.0


def test_another_model_keeps_its_own_numbers(tmp_path: Path) -> None:
    project = load_project(written(complete("agent", model="tdmpc2:5m"), tmp_path))
    assert project.model_config((3,), 1).hidden_dim == 256
    assert project.sections.architecture == {}
    assert "batch_size" not in project.training_config().set_fields


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_generated_python_is_thin_and_carries_no_answer(environment: str) -> None:
    reference = render(complete("other-name"))
    for name, text in render(complete("agent", environment)).items():
        if name.endswith(".py"):
            tree = ast.parse(text)
            assert ast.get_docstring(tree)
            assert len(text.splitlines()) < 60
            assert text == reference[name]


def test_every_template_gives_a_file_and_worldflux_toml_comes_last() -> None:
    templates = templates_in(templates_root())
    assert sorted(p.name for p in templates_root().iterdir()) == sorted(templates.values())
    assert list(templates)[-1] == "worldflux.toml"
    assert list(render(complete("agent"))) == [".worldflux/schema.json", *templates]


@settings(max_examples=int(os.environ.get("WORLDFLUX_TEST_EXAMPLES", "60")), deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60))
def test_any_text_survives_in_the_generated_toml(text: str) -> None:
    """Names are checked before; the rendering must hold without that."""
    answers = Answers(text, "Pendulum-v1", "tdmpc2:ci", 10)
    data = tomllib.loads(render(answers)["worldflux.toml"])
    assert data["project_name"] == text
    assert data.keys() == KEYS


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.lists(st.integers(0, 9))
)
def test_values_are_written_on_one_line_and_read_back(value: object) -> None:
    literal = to_toml(value)
    assert "\n" not in literal
    assert tomllib.loads(f"x = {literal}  # comment")["x"] == value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "mujocco",
        "Pendulum",
        "Pendulum-v1\n",
        'a"b-v1',
        "../x-v1",
        "{{x}}-v1",
        "a-v1 b",
        "x" * 130,
    ],
    ids=ascii,
)
def test_what_is_no_environment_is_refused(answer: str) -> None:
    with pytest.raises(ConfigurationError, match="the choices are classic, mujoco, atari, dmc"):
        environment_id(answer)


@pytest.mark.parametrize(
    ("environment", "model"),
    [
        ("Pendulum-v1", "tdmpc2:ci"),
        ("HalfCheetah-v5", "tdmpc2:5m"),
        ("MountainCarContinuous-v0", "tdmpc2:5m"),
        ("dm_control/walker-walk-v0", "tdmpc2:laptop"),
        ("CartPole-v1", "dreamerv3:laptop"),
        ("MountainCar-v0", "dreamerv3:laptop"),
        ("worldflux/Catch-v0", "dreamerv3:laptop"),
        ("ALE/Pong-v5", "dreamerv3:official_12m"),
    ],
)
def test_the_default_model_fits_the_actions(environment: str, model: str) -> None:
    assert default_model(environment) == model


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"environment": "CartPole-v1", "model": "tdmpc2:ci"}, "discrete actions"),
        ({"total_steps": 0}, "total_steps = 0"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"device": "gpu"}, "device = 'gpu'"),
    ],
)
def test_wrong_answers(answers: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        complete("agent", **answers)


def test_an_unknown_model() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean"):
        complete("agent", model="tdmpc3:5m")


@pytest.mark.parametrize(
    ("environment", "extra"),
    [
        ("Pendulum-v1", None),
        ("HalfCheetah-v5", "mujoco"),
        ("ALE/Breakout-v5", "atari"),
        ("dm_control/cartpole-balance-v0", "dmc"),
    ],
)
def test_the_needed_extra_is_known(environment: str, extra: str | None) -> None:
    needed = complete("agent", environment).needed_extra
    assert (needed and needed.extra) == extra


def test_the_generated_dataset_makes_the_environment_that_is_asked_for(tmp_path: Path) -> None:
    """Run as a user runs it, and as `worldflux train --set environment=...` calls it."""
    folder = written(complete("agent"), tmp_path)
    done = subprocess.run(
        [sys.executable, "dataset.py"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert "actions      Box(-2.0, 2.0, (1,)" in done.stdout, done.stderr
    other = environment_maker(folder, "CartPole-v1")(None)
    assert str(other.action_space) == "Discrete(2)"
    other.close()


def test_a_dataset_of_ones_own_need_not_take_the_id(tmp_path: Path) -> None:
    (tmp_path / "dataset.py").write_text(
        "import gymnasium\n"
        "def make_env(render_mode=None):\n"
        "    return gymnasium.make('MountainCarContinuous-v0', render_mode=render_mode)\n"
    )
    own = environment_maker(tmp_path, "Pendulum-v1")("rgb_array")
    assert own.spec.id == "MountainCarContinuous-v0"
    assert own.render_mode == "rgb_array"
    own.close()
