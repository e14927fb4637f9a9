"""docs/performance.md shows what was measured: the tables of docs/bench.json, as `make bench` makes
them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "tests/benchmarks/bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests/benchmarks"))
        spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_recorded_figures() -> None:
    report = json.loads((ROOT / "docs" / "bench.json").read_text())
    page = (ROOT / "docs" / "performance.md").read_text()
    assert bench().tables(report) in page
    assert report["git"]["commit"][:7] in page
    assert report["machine"]["processor"] in page


def test_a_part_of_the_figures_is_a_part_of_the_tables() -> None:
    report = {
        "models": [
            {
                "model": "tdmpc2:ci",
                "obs_shape": [24],
                "threads": [1, 1, 1],
                "update_s": [0.02, 0.01, 0.03],
                "act_s": [0.0051, 0.005, 0.006],
                "of_ceiling": [0.25, 0.2, 0.3],
                "memory_mib": [300.0, 290.0, 310.0],
            }
        ]
    }
    *_, row = bench().tables(report).splitlines()
    shown = "| `tdmpc2:ci` | 24 | 1 | 20 ms (10 to 30) | 5.10 ms (5.00 to 6.00) | 25 % | 300 MiB |"
    assert row == shown
