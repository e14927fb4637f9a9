"""The strict loader: precedence, what counts as set, and every field against wrong values."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldflux.core.config import TDMPC2Config
from worldflux.core.config.validation import field_types
from worldflux.errors import ConfigurationError
from worldflux.models.registry import our_families
from worldflux.project.loader import load_project
from worldflux.project.problems import ProjectFileError
from worldflux.project.sections import ProjectSections
from worldflux.training.config import TrainingConfig


def refusal(path: Path, overrides: tuple[str, ...] = ()) -> ConfigurationError | None:
    """The error that loading ends in, or None; any other exception fails the test."""
    try:
        load_project(path, overrides)
    except ConfigurationError as error:
        return error
    return None


VALID = """\
project_name = "agent"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[architecture]
horizon = 3

[training]
total_steps = 100
seed = 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "worldflux.toml").write_text(VALID)
    return tmp_path


def test_a_project_knows_what_was_set(project: Path) -> None:
    loaded = load_project(project)
    assert loaded.root == project
    assert loaded.training_config().set_fields == {"total_steps", "seed"}
    assert loaded.document.data["training"] == {"total_steps": 100, "seed": 1}
    assert "data" not in loaded.document.data
    assert loaded.sections.data.source == "gym"


def test_the_file_itself_may_be_named(project: Path) -> None:
    assert load_project(project / "worldflux.toml").root == project


def test_precedence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDFLUX_TRAINING__SEED", "2")
    monkeypatch.setenv("WORLDFLUX_TRAINING__DEVICE", "cpu")
    monkeypatch.setenv("WORLDFLUX_MODEL", "tdmpc2:5m")
    monkeypatch.setenv("WORLDFLUX_TRAINING__BATCH_SIZE", "")
    monkeypatch.setenv("WORLDFLUX_DEBUG", "1")
    flags = ["training.seed=3", "architecture.horizon=4", "training.seed=5"]
    loaded = load_project(project, flags)
    training = loaded.training_config()
    assert (training.seed, training.device, training.total_steps) == (5, "cpu", 100)
    assert "batch_size" not in training.set_fields
    config = loaded.model_config((3,), 1)
    assert isinstance(config, TDMPC2Config)
    assert (config.horizon, config.latent_dim) == (4, 256)  # command line, preset of the variable
    assert loaded.where("training", "seed") == "--set training.seed=5"
    assert loaded.where("model") == "WORLDFLUX_MODEL"


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("training.device=cpu", ("training", "device"), "cpu"),
        ('training.device="cpu"', ("training", "device"), "cpu"),
        ("training.learning_rate=1e-3", ("training", "learning_rate"), 1e-3),
        ("training.learning_rate=1", ("training", "learning_rate"), 1.0),
        ("training.mixed_precision=true", ("training", "mixed_precision"), True),
        (" training.seed = 9 ", ("training", "seed"), 9),
        ("training.output_dir=./a=b", ("training", "output_dir"), "./a=b"),
        ("training.model_overrides={a = 1}", ("training", "model_overrides"), {"a": 1}),
        ("training.model_overrides.a=1", ("training", "model_overrides"), {"a": 1}),
    ],
)
def test_assignments(project: Path, assignment: str, path: tuple[str, str], value: object) -> None:
    training = load_project(project, [assignment]).training_config()
    assert getattr(training, path[1]) == value


def test_a_tilde_in_the_place_of_the_run_is_the_home_folder(project: Path) -> None:
    training = load_project(project, ["training.output_dir=~/runs"]).training_config()
    assert training.output_dir == str(Path.home() / "runs")


def test_a_bad_assignment_is_refused_although_a_later_one_wins(project: Path) -> None:
    bad = "training.total_steps='x'"
    error = refusal(project, (bad, "training.seed=1", "training.total_steps=4"))
    assert error is not None
    assert f"--set {bad}: " in error.message
    assert "total_steps" in error.message
    good = ("training.total_steps=5", "training.seed=1", "training.total_steps=4")
    assert load_project(project, good).training_config().total_steps == 4


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.seed", "not a section.key=value assignment"),
        ("=3", "not a section.key=value assignment"),
        ("training..seed=3", "not a section.key=value assignment"),
        (".".join("a" * 40) + "=3", "not a section.key=value assignment"),
        ("training.seed=", "is not a TOML value|whole number"),
        ("training.seed=x", "seed = 'x' is not allowed"),
        ('training.device="cpu', "is not a TOML value"),
        ("training.seed=[1", "is not a TOML value"),
        ("training.seed=1\nseed=2", "one line"),
        ("training.seed=" + "1" * 3_000, "one line"),
        ("training.seed=" + "[" * 60 + "]" * 60, "deeper than 32"),
        ("training.sed=1", "did you mean 'seed'"),
        ("trainin.seed=1", "did you mean 'training'"),
        ("seed=1", "belongs under"),
        ("training=1", "section"),
        ("project_name.x=1", "'project_name' is not a section"),
        ("training.learning_rate=nan", "not a finite number"),
        ("environment=3", "text in quotes"),
        ("training.backend=native_torhc", "did you mean 'native_torch'"),
        ("training.output_dir=2026", 'write it in quotes: "2026"'),
    ],
)
def test_wrong_assignments_name_themselves(project: Path, assignment: str, message: str) -> None:
    with pytest.raises(ProjectFileError, match=message) as caught:
        load_project(project, [assignment])
    assert "--set " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLDFLUX_TRAINING__SEED", "x", "seed = 'x'"),
        ("WORLDFLUX_TRAININ__SEED", "1", "unknown section 'trainin'\n.*did you mean 'training'"),
        ("WORLDFLUX_TRAINING__SED", "1", "did you mean 'seed'"),
        ("WORLDFLUX_MODEL", "nope", "no model 'nope'"),
        ("WORLDFLUX_DATA__SOURCE", "[", "is not a TOML value"),
    ],
)
def test_wrong_variables_name_themselves(
    project: Path, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ProjectFileError, match=message) as caught:
        load_project(project)
    assert name in str(caught.value)


def test_what_contradicts_the_environment_is_told_at_its_key(project: Path) -> None:
    text = VALID.replace("horizon = 3", "obs_shape = [4]\naction_dim = 1")
    (project / "worldflux.toml").write_text(text)
    with pytest.raises(ProjectFileError, match=r"worldflux\.toml:6:13: obs_shape = \[4\]"):
        load_project(project).model_config((3,), 1)
    assert load_project(project).model_config((4,), 1).action_dim == 1
    with pytest.raises(ProjectFileError, match="Pendulum-v1 has 2"):
        load_project(project).model_config((4,), 2)


def test_a_field_that_does_not_fit_the_environment_is_told_at_its_key(project: Path) -> None:
    text = VALID.replace("horizon = 3", "task_action_dims = [4]")
    (project / "worldflux.toml").write_text(text)
    with pytest.raises(ProjectFileError, match=r"worldflux\.toml:6:20: task_action_dims"):
        load_project(project).model_config((3,), 1)


def test_dreamer_takes_vectors_and_images(tmp_path: Path) -> None:
    text = VALID.replace("tdmpc2:ci", "dreamerv3:CI").replace("horizon = 3", 'encoder_type = "mlp"')
    (tmp_path / "worldflux.toml").write_text(text)
    loaded = load_project(tmp_path)
    assert loaded.model_config((3,), 1).decoder_type == "mlp"
    assert loaded.model_config((3, 64, 64), 1, "discrete").action_type == "discrete"


# ---------------------------------------------------------------- every field, wrong values

WRONG: dict[Any, tuple[object, ...]] = {
    int: ("16", 1.5, True, [1], {"a": 1}, float("nan"), float("inf"), 2**70),
    float: ("1.0", True, [1.0], {"a": 1}, float("nan"), float("-inf")),
    bool: ("false", 0, 1, 1.0, [True]),
    str: (1, 1.5, True, ["a"], {"a": 1}),
}


def field_cases() -> list[tuple[str, str, str, object]]:
    """(model, section, key, wrong value) for every scalar field of every section."""
    cases = []
    for name, annotation in field_types(ProjectSections).items():
        if dataclasses.is_dataclass(annotation):
            cases += [("tdmpc2:ci", name, *case) for case in _wrong_values(annotation)]
    cases += [("tdmpc2:ci", "training", *case) for case in _wrong_values(TrainingConfig)]
    for family, row in our_families().items():
        wrong = _wrong_values(row.config_class)
        cases += [(f"{family}:ci", "architecture", *case) for case in wrong]
    return cases


def _wrong_values(cls: type) -> list[tuple[str, object]]:
    found = []
    for key, annotation in field_types(cls).items():
        text = str(annotation)
        kind = next((k for k in WRONG if k.__name__ in text.split(" | ")[0]), str)
        if any(kind in text for kind in ("dict", "Mapping", "tuple", "list")):
            found += [(key, value) for value in ("x", 3, True)]
        elif "Literal" in text or "Type" in text:
            found += [(key, value) for value in ("no such", 3, True, ["x"])]
        else:
            found += [(key, value) for value in WRONG[kind]]
    return found


def test_the_sweep_covers_every_section() -> None:
    cases = field_cases()
    assert len(cases) > 600
    assert {section for _, section, _, _ in cases} >= {"data", "training", "architecture", "verify"}


def test_every_field_refuses_wrong_values_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "worldflux.toml"
    head = {"project_name": "a", "environment": "Pendulum-v1"}
    accepted = []
    for model, section, key, value in field_cases():
        file.write_text(tomli_w.dumps({**head, "model": model, section: {key: value}}))
        error = refusal(file)
        if error is None:
            accepted.append((section, key, value))
            continue
        assert f"{file.name}:6:" in str(error) or f"{file.name}:5:" in str(error)
        assert key in str(error)
    assert accepted == []


# ---------------------------------------------------------------- any text

RELAXED = settings(
    max_examples=int(os.environ.get("WORLDFLUX_TEST_EXAMPLES", "300")),  # make fuzz: 5,000
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MARKS = ('"', "'", '"""', "[", "]", "[[", "{", "}", "=", ".", ",", "#", "\n", "\\", "\\u12")
WORDS = ("nan", "-1", "1e999", "0x", "1979-05-27", "[training]", "seed=1", "\t", "\0", "\ufeff")
SNIPPETS = st.sampled_from(MARKS + WORDS) | st.text(max_size=5)


@RELAXED
@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 9), SNIPPETS), max_size=6)
)
def test_a_mutated_text_loads_or_is_refused(
    project: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = VALID
    for start, removed, inserted in edits:
        text = text[:start] + inserted + text[start + removed :]
    (project / "worldflux.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    began = time.process_time()
    error = refusal(project)
    assert error is None or error.exit_code == 2
    assert time.process_time() - began < 1.0


@RELAXED
@given(raw=st.binary(max_size=200))
def test_any_bytes_load_or_are_refused(project: Path, raw: bytes) -> None:
    (project / "worldflux.toml").write_bytes(raw)
    with pytest.raises(ConfigurationError):
        load_project(project)


@RELAXED
@given(assignment=st.text(max_size=60) | st.text(max_size=30).map(lambda t: f"training.seed={t}"))
def test_any_assignment_is_taken_or_refused(project: Path, assignment: str) -> None:
    error = refusal(project, (assignment,))
    assert error is None or "--set " in str(error)


LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=80
)


@RELAXED
@given(name=LINES, host=LINES)
def test_free_text_survives_the_file(project: Path, name: str, host: str) -> None:
    content = {
        "project_name": name,
        "environment": "Pendulum-v1",
        "model": "tdmpc2:ci",
        "visualization": {"host": host},
    }
    (project / "worldflux.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    sections = load_project(project).sections
    assert (sections.project_name, sections.visualization.host) == (name, host)


COUNT = st.integers(2, 1000)
SECTION_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries(
            {}, optional={"source": st.sampled_from(["gym", "random"]), "buffer_capacity": COUNT}
        ).map(lambda d: {k: v + 100 if k == "buffer_capacity" else v for k, v in d.items()}),
        "online_collection": st.dictionaries(
            st.sampled_from(["warmup_transitions", "collect_steps_per_update", "num_envs"]), COUNT
        ),
        "gameplay": st.fixed_dictionaries(
            {}, optional={"enabled": st.booleans(), "max_frames": COUNT}
        ),
        "inference": st.fixed_dictionaries({}, optional={"horizon": COUNT, "checkpoint": LINES}),
        "verify": st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["auto", "quick", "proof"]),
                "alpha": st.floats(0.001, 0.499),
                "threshold": st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6),
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "seed": COUNT,
                "learning_rate": st.floats(1e-8, 1.0),
                "device": st.just("cpu"),
            },
        ),
        "architecture": st.fixed_dictionaries(
            {}, optional={"horizon": COUNT, "hidden_dim": COUNT, "gamma": st.floats(0.01, 1.0)}
        ),
    },
)


@RELAXED
@given(values=SECTION_VALUES)
def test_valid_settings_survive_loading_and_writing(project: Path, values: dict) -> None:
    """What was loaded, written again, loads to the same."""
    head = {"project_name": "a", "environment": "Pendulum-v1", "model": "tdmpc2:ci"}
    (project / "worldflux.toml").write_text(tomli_w.dumps({**head, **values}), encoding="utf-8")
    first = load_project(project).sections
    plain = {
        key: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
        for key, value in dataclasses.asdict(first).items()
        if value is not None
    }
    (project / "worldflux.toml").write_text(tomli_w.dumps(plain), encoding="utf-8")
    assert load_project(project).sections == first
    for section, given_values in values.items():
        assert given_values.items() <= plain[section].items()


def test_hints_name_every_key_of_a_section(project: Path) -> None:
    text = str(refusal(project, ("training.zzz=1", "architecture.zzz=1")))
    listed = next(line for line in text.splitlines() if "[training] takes" in line)
    assert "..." not in text
    for field in dataclasses.fields(TrainingConfig):
        assert field.name in listed
    assert "[architecture] takes the fields that worldflux models info prints" in text


@pytest.mark.parametrize("path", ["./imported", "../models/mine", "/models/mine", "a/b"])
def test_a_path_that_holds_no_saved_model_is_refused(project: Path, path: str) -> None:
    text = str(refusal(project, (f"model={path}",)))
    assert f"{path!r} is no folder of a saved model" in text
    assert f"worldflux train --from {path}" in text


def test_the_number_of_tasks_is_that_of_their_tables(project: Path) -> None:
    text = str(refusal(project, ("architecture.num_tasks=3",)))
    assert "num_tasks = 3 is not allowed: [[tasks]] says how many there are" in text
    assert "hint: write a [[tasks]] with name and environment for each" in text
