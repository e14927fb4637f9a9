"""docs/reference is what the docstrings say today, and leaves out no public name."""

from __future__ import annotations

import importlib.util
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


def test_the_pages_are_up_to_date(generator: ModuleType) -> None:
    """Else: python docs/generate_reference.py"""
    pages = generator.rendered()
    assert {path.name for path in (DOCS / "reference").iterdir()} == pages.keys()
    for name, text in pages.items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, name


def test_every_public_name_is_on_one_page(generator: ModuleType) -> None:
    listed = [n for _, _, names in generator.PAGES.values() for n in generator._expanded(names)]
    public = {*worldflux.__all__, *worldflux.training.__all__} - {"__version__"}
    public |= {name for name in vars(callbacks) if name.endswith("Callback")}
    assert sorted(listed) == sorted(public)
