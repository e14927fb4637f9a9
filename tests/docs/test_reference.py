"""`make reference` writes a page for every public name and every key of worldflux.toml."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import worldflux
import worldflux.training
from worldflux.training import callbacks

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_written(generator: ModuleType, tmp_path: Path) -> None:
    generator.write(tmp_path)
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"\((\w+\.md)\)", index), "README.md"} == {
        p.name for p in tmp_path.iterdir()
    }
    for page, (_, _, names) in generator.PAGES.items():
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert all(f"## {name}\n" in text for name in generator._expanded(names))


def test_every_key_of_the_project_file_has_a_row(generator: ModuleType) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", generator.rendered()["project_file.md"], re.M)
    assert {"total_steps", "storage", "episodes", "threshold"} <= {name for name, _ in rows}
    assert all(meaning for _, meaning in rows)


def test_every_public_name_is_on_one_page(generator: ModuleType) -> None:
    listed = [n for _, _, names in generator.PAGES.values() for n in generator._expanded(names)]
    public = {*worldflux.__all__, *worldflux.training.__all__} - {"__version__"}
    public |= {name for name in vars(callbacks) if name.endswith("Callback")}
    assert sorted(listed) == sorted(public)
