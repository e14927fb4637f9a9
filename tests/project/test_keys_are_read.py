"""No key without a reader: every setting is read by name somewhere in the code or a template."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache
from pathlib import Path

import pytest

import worldflux
from worldflux.core.config import BMPCConfig, DreamerV3Config, TDMPC2Config
from worldflux.core.config.validation import field_types
from worldflux.project.loader import load_project
from worldflux.project.problems import ProjectFileError
from worldflux.project.scaffold import templates_root
from worldflux.project.schema import project_schema
from worldflux.project.sections import ProjectSections
from worldflux.training.config import TrainingConfig

PACKAGE = Path(worldflux.__file__).parent
# Where a key is declared, checked or listed: that is no reading of it.
DECLARATIONS = {
    PACKAGE / "project" / "sections.py",
    PACKAGE / "core" / "config" / "base.py",
    PACKAGE / "models" / "tdmpc2" / "family.py",
    PACKAGE / "models" / "dreamerv3" / "family.py",
}


@cache
def names_read() -> set[str]:
    """Every attribute that is read in the package or in a Python template."""
    files = [path for path in PACKAGE.rglob("*.py") if path not in DECLARATIONS]
    found = set()
    for path in [*files, *templates_root().glob("*.py.j2")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                found.add(ast.unparse(node.args[1]).strip("'"))
    return found


SECTIONS = {
    name: annotation
    for name, annotation in field_types(ProjectSections).items()
    if dataclasses.is_dataclass(annotation)
}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_section_is_read(name: str) -> None:
    keys = {field.name for field in dataclasses.fields(SECTIONS[name])}
    assert name in names_read()
    assert keys - names_read() == set()


@pytest.mark.parametrize("cls", [TrainingConfig, TDMPC2Config, BMPCConfig, DreamerV3Config])
def test_every_field_of_a_configuration_is_read(cls: type) -> None:
    fields = {field.name for field in dataclasses.fields(cls)} - {"model_name"}  # a label
    assert fields - names_read() - getattr(cls, "UNREAD", frozenset()) == set()


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("tdmpc2:ci", 'latent_type = "vq"'),
        ("tdmpc2:ci", 'dynamics_type = "transformer"'),
        ("tdmpc2:ci", "deter_dim = 4096"),
        ("tdmpc2:ci", "stoch_dim = 8"),
        ("dreamer:ci", 'latent_type = "gaussian"'),
        ("dreamer:ci", "latent_dim = 64"),
    ],
)
def test_a_field_that_a_family_does_not_read_is_refused(
    tmp_path: Path, model: str, key: str
) -> None:
    text = f'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "{model}"\n[architecture]\n'
    (tmp_path / "worldflux.toml").write_text(text + key + "\n", encoding="utf-8")
    name = key.partition(" ")[0]
    with pytest.raises(ProjectFileError, match=f":5:1: '{name}' has no effect on this model"):
        load_project(tmp_path)
    definitions = project_schema()["$defs"]
    family = "TDMPC2Config" if model.startswith("tdmpc2") else "DreamerV3Config"
    assert name not in definitions[family]["properties"]
