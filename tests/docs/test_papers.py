"""The pages that lead from a paper to the code name functions and keys that exist."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest

from worldflux.core.config import BMPCConfig, DreamerV3Config, TDMPC2Config
from worldflux.envs.wrappers import Preparation
from worldflux.project.sections import ProjectSections
from worldflux.training import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
PAPERS = {"tdmpc2": TDMPC2Config, "bmpc": BMPCConfig, "dreamerv3": DreamerV3Config}
CITED = re.compile(r"`((?:worldflux|tests)/[\w/]+(?:\.py|/))(?:::([\w.]+))?`")


def page(family: str) -> str:
    return (ROOT / "docs" / f"{family}.md").read_text(encoding="utf-8")


@cache
def defined(path: str) -> set[str]:
    """Functions and classes of a file, methods as `Class.method`."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("family", PAPERS)
def test_what_a_page_cites_exists(family: str) -> None:
    cited = CITED.findall(page(family))
    assert len(cited) > 40
    assert page(family).count(".py::") == sum(bool(name) for _, name in cited)
    missing = [
        f"{path}::{name}"
        for path, name in cited
        if not (ROOT / path).exists() or (name and name not in defined(path))
    ]
    assert missing == []


@pytest.mark.parametrize(("family", "config"), PAPERS.items())
def test_the_keys_of_the_differences_exist(family: str, config: type) -> None:
    table = page(family).split("## Differences")[1]
    cells = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")]
    keys = {key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)}
    assert len(keys) > 8
    assert keys <= {"model"} | fields_of(config) | section_keys()


def fields_of(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def section_keys() -> set[str]:
    """Keys of worldflux.toml as `section.key`."""
    keys = {f"environment_kwargs.{name}" for name in fields_of(Preparation)}
    keys |= {f"training.{name}" for name in fields_of(TrainingConfig)}
    for section in dataclasses.fields(ProjectSections):
        holds = section.default_factory
        if isinstance(holds, type) and dataclasses.is_dataclass(holds):
            keys |= {f"{section.name}.{name}" for name in fields_of(holds)}
    return keys
