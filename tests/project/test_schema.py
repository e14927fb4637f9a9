"""The JSON Schema accepts what the loader accepts, and marks what it refuses by name or type."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from worldflux.project.answers import CHOICES, complete
from worldflux.project.scaffold import render
from worldflux.project.schema import SCHEMA_FILE, field_docs, project_schema, renew_schema
from worldflux.project.sections import VerifySection

HEAD = {"project_name": "a", "environment": "Pendulum-v1", "model": "tdmpc2:ci"}
VALIDATOR = jsonschema.Draft7Validator(project_schema())


def test_an_editor_can_explain_every_key() -> None:
    schema = project_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            meant = field.get("description") or "$ref" in field
            assert meant, f"{name} has no `#:` comment in its dataclass"
    architecture = schema["properties"]["architecture"]["properties"]
    assert architecture["horizon"]["description"].startswith("steps that are planned")
    assert field_docs(VerifySection)["margin"].startswith("share of the published gain")


def test_an_upgrade_renews_the_schema_of_a_project(tmp_path: Path) -> None:
    file = tmp_path / SCHEMA_FILE
    renew_schema(tmp_path)
    assert not file.exists()  # a project without one gets none
    file.parent.mkdir()
    for old in ('{"title": "of another version"}', json.dumps({"$comment": "worldflux 0.1.9"})):
        file.write_text(old)
        renew_schema(tmp_path)
        assert json.loads(file.read_text()) == project_schema()
    file.write_text("not JSON, so not ours")
    renew_schema(tmp_path)
    assert file.read_text() == "not JSON, so not ours"


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(project_schema())


@pytest.mark.parametrize("environment", [*CHOICES, "CartPole-v1", "my_package:MyWorld-v2"])
def test_every_generated_file_is_valid(environment: str) -> None:
    files = render(complete("agent", environment, batch_size=8))
    schema = json.loads(files[SCHEMA_FILE])
    text = files["worldflux.toml"]
    assert text.splitlines()[0] == "#:schema ./.worldflux/schema.json"
    jsonschema.validate(tomllib.loads(text), schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"training": {"seed": 3, "learning_rate": 1}},
        {"architecture": {"horizon": 3, "task_action_dims": [1]}},
        {"model": "DreamerV3:ci", "architecture": {"kl_free": 0.5, "loss_scales": {"reward": 2.0}}},
        {"verify": {"mode": "proof", "threshold": -200.0}},
    ],
    ids=str,
)
def test_valid_contents(content: dict) -> None:
    VALIDATOR.validate({**HEAD, **content})


@pytest.mark.parametrize(
    "content",
    [
        {"colour": 1},
        {"training": {"sed": 3}},
        {"training": {"seed": "3"}},
        {"data": {"source": "gymn"}},
        {"visualization": {"port": 70_000}},
        {"architecture": {"kl_free": 1.0}},
        {"model": "dreamer:ci", "architecture": {"horizon": 3}},
        {"architecture": {"horizon": "3"}},
        {"project_name": ""},
        {"environment": 3},
    ],
    ids=str,
)
def test_mistakes_are_marked(content: dict) -> None:
    assert not VALIDATOR.is_valid({**HEAD, **content})


def test_required_keys() -> None:
    for name in HEAD:
        assert not VALIDATOR.is_valid({key: value for key, value in HEAD.items() if key != name})
