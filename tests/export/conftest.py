"""Untrained agents of both families, and what was exported of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worldflux import create_world_model

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))

from chromium import driver, wait_until

__all__ = ["driver", "wait_until"]


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved TD-MPC2 of vectors."""
    folder = tmp_path_factory.mktemp("saved")
    create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=2).save_pretrained(folder)
    return folder
