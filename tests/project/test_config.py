"""`config show` and `config set`: every value with its origin, one value changed in place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.errors import ConfigurationError
from worldflux.project.answers import complete
from worldflux.project.document import parsed
from worldflux.project.edit import dotted, set_key, with_value
from worldflux.project.effective import effective_settings
from worldflux.project.loader import load_project
from worldflux.project.problems import ProjectFileError
from worldflux.project.scaffold import render, to_toml

FILE = """\
project_name = "p"  # a name
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[training]   # how long
seed = 42    # the answer
log_to = [   # where
  "tensorboard",  # here
]  # and nowhere else

# what it acts in
[environment_kwargs]
g = 9.81
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worldflux.toml"
    path.write_text(FILE)
    return path


# --------------------------------------------------------------------------- set


@pytest.mark.parametrize(
    ("key", "raw", "old", "new"),
    [
        ("training.seed", "7", "seed = 42    #", "seed = 7    #"),
        ("model", "tdmpc2:5m", '"tdmpc2:ci"', '"tdmpc2:5m"'),
        (
            "training.learning_rate",
            "1e-3",
            "]  # and nowhere else\n",
            "]  # and nowhere else\nlearning_rate = 1e-3\n",
        ),
        (
            "training.log_to",
            '["wandb"]',
            '[   # where\n  "tensorboard",  # here\n]',
            '["wandb"]',
        ),
        ("environment_kwargs.g", "1.6", "g = 9.81", "g = 1.6"),
        (
            "environment_kwargs.image_size",
            "[64, 64]",
            "g = 9.81\n",
            "g = 9.81\nimage_size = [64, 64]\n",
        ),
        (
            "architecture.horizon",
            "3",
            "g = 9.81\n",
            "g = 9.81\n\n[architecture]\nhorizon = 3\n",
        ),
        (
            "training.model_overrides.horizon",
            "3",
            "]  # and nowhere else\n",
            "]  # and nowhere else\nmodel_overrides.horizon = 3\n",
        ),
    ],
)
def test_one_value_changes_and_the_rest_stays(
    key: str, raw: str, old: str, new: str, file: Path
) -> None:
    set_key(file, key, raw)
    assert file.read_text() == FILE.replace(old, new)
    load_project(file)


@pytest.mark.parametrize(
    ("key", "raw", "where", "message"),
    [
        ("training.seed", "x", "worldflux.toml:6:8", "seed = 'x' is not allowed"),
        ("training.seeds", "7", "worldflux.toml:10:1", "unknown key 'seeds'"),
        ("architecture.horizons", "7", "worldflux.toml:16:1", "unknown key 'horizons'"),
        ("verify.alpha", "2", "worldflux.toml:16:9", "verify.alpha = 2 is not allowed"),
        ("model", "tdmpc3", "worldflux.toml:3:9", "there is no model 'tdmpc3'"),
        ("training", "3", "worldflux.toml:", "training"),
        ("training.seed.more", "3", "worldflux.toml:6:1", "is part of training.seed"),
        ("training.seed", "[1", "training.seed", "is not a TOML value"),
        ("training..seed", "1", "", "is not the name of a setting"),
    ],
)
def test_what_is_refused_names_its_place_and_leaves_the_file(
    key: str, raw: str, where: str, message: str, file: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        set_key(file, key, raw)
    assert where in str(refused.value)
    assert message in str(refused.value)
    assert file.read_text() == FILE


def test_a_variable_does_not_hide_a_bad_value(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDFLUX_TRAINING__DEVICE", "cpu")
    with pytest.raises(ProjectFileError, match="device = 'gpu' is not allowed"):
        set_key(file, "training.device", "gpu")


def test_windows_newlines_stay(file: Path) -> None:
    file.write_bytes(FILE.replace("\n", "\r\n").encode())
    set_key(file, "training.seed", "7")
    assert file.read_bytes() == FILE.replace("42", "7").replace("\n", "\r\n").encode()


SCALARS = st.integers(0, 99) | st.booleans() | st.text("a#\"'\\]}=[ ", max_size=6)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
TABLES = st.dictionaries(st.sampled_from(["a", "b c", "d", "e.f"]), VALUES, max_size=3)
TEXTS = st.tuples(TABLES, st.dictionaries(st.sampled_from("stu"), TABLES, max_size=3))


@settings(max_examples=60)
@given(TEXTS, st.sampled_from("stuv"), st.sampled_from(["a", "b c", "e.f"]), VALUES)
def test_any_key_of_any_file_is_set_and_no_other_changes(
    tables: tuple[dict, dict], section: str, key: str, value: object
) -> None:
    top, sections = tables
    lines = ["top = 0  # top", *(f"{to_toml(k)} = {to_toml(v)} # {k}" for k, v in top.items())]
    for name, table in sections.items():
        lines += [f"[{name}] # {name}", *(f"{to_toml(k)} = {to_toml(v)}" for k, v in table.items())]
    text = "\n".join(lines)
    changed = with_value(parsed(Path("x"), text), (section, key), to_toml(value))
    expected = {"top": 0, **top, **sections}
    expected[section] = {**sections.get(section, {}), key: value}
    assert tomllib.loads(changed.text) == expected
    comments = [line.rpartition(" # ")[2] for line in lines if line.endswith((" # s", " # t"))]
    assert all(f" # {comment}" in changed.text for comment in comments)


# --------------------------------------------------------------------------- show


def origins(file: Path, *overrides: str) -> dict[str, tuple[object, str]]:
    found = effective_settings(load_project(file, overrides))
    return {".".join(s.path): (s.value, s.origin.rpartition("/")[2]) for s in found}


def test_every_value_says_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDFLUX_DATA__SAMPLING", "recency")
    shown = origins(file, "training.device=cpu", "architecture.learning_rate=1e-3")
    assert shown["project_name"] == ("p", "worldflux.toml:1")
    assert shown["training.log_to"] == (["tensorboard"], "worldflux.toml:7")
    assert shown["environment_kwargs.g"] == (9.81, "worldflux.toml:13")
    assert shown["data.sampling"] == ("recency", "WORLDFLUX_DATA__SAMPLING")
    assert shown["training.device"] == ("cpu", "--set training.device=cpu")
    assert shown["training.learning_rate"] == (1e-3, "--set architecture.learning_rate=1e-3")
    assert shown["training.batch_size"] == (256, "preset tdmpc2:ci")
    assert shown["online_collection.pretrain"] == (True, "preset tdmpc2:ci")
    assert shown["architecture.hidden_dim"] == (32, "preset tdmpc2:ci")
    assert shown["architecture.grad_clip"][0] == 20.0
    assert shown["architecture.horizon"] == (5, "default")
    assert shown["evaluation.stop_at_return"] == (None, "default")


@pytest.mark.parametrize("environment", ["Pendulum-v1", "CartPole-v1", "ALE/Pong-v5"])
def test_a_file_of_every_effective_value_means_the_same(environment: str, tmp_path: Path) -> None:
    file = tmp_path / "worldflux.toml"
    file.write_text(render(complete("p", environment))["worldflux.toml"])
    settings = effective_settings(load_project(file))
    lines = [f"{dotted(s.path)} = {to_toml(s.value)}" for s in settings if s.value is not None]
    file.write_text("\n".join(lines))
    again = effective_settings(load_project(file))
    assert [(s.path, s.value) for s in again] == [(s.path, s.value) for s in settings]
