"""No key without a reader: every setting is read by name somewhere in the code or a template."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import worldflux
from worldflux.core.config import DreamerV3Config, TDMPC2Config
from worldflux.core.config.validation import field_types
from worldflux.project.scaffold import templates_root
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
# Documented fields of the base class that describe a model and steer nothing here:
# each family has dimensions of its own.
DESCRIPTIVE = {"model_name", "latent_type", "dynamics_type", "latent_dim", "deter_dim", "stoch_dim"}


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


READ = names_read()
SECTIONS = {
    name: annotation
    for name, annotation in field_types(ProjectSections).items()
    if dataclasses.is_dataclass(annotation)
}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_section_is_read(name: str) -> None:
    keys = {field.name for field in dataclasses.fields(SECTIONS[name])}
    assert name in READ
    assert keys - READ == set()


@pytest.mark.parametrize("cls", [TrainingConfig, TDMPC2Config, DreamerV3Config])
def test_every_field_of_a_configuration_is_read(cls: type) -> None:
    fields = {field.name for field in dataclasses.fields(cls)}
    assert fields - READ - DESCRIPTIVE == set()
