"""Import paths that scripts outside the repository use: they survive every move of the code."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "worldflux.cli.app": ("main", "run_script"),
    "worldflux.core.config": ("DreamerV3Config", "TDMPC2Config", "WorldModelConfig"),
    "worldflux.dashboard": ("serve",),
    "worldflux.data.offline": (
        *("action_rows", "copy_episodes", "open_offline", "replay_of"),
        *("KnownEnvironment", "OfflineData"),
    ),
    "worldflux.data.replay": ("ReplayBuffer",),
    "worldflux.data.sources": ("ReplaySource",),
    "worldflux.envs": ("make_environment",),
    "worldflux.envs.make": ("make_environment",),
    "worldflux.envs.actions": ("action_layout", "environment_actions"),
    "worldflux.envs.episode_seeds": ("SeededEpisodes",),
    "worldflux.envs.observations": ("ObservationReader",),
    "worldflux.models.dreamer": ("DreamerV3WorldModel",),
    "worldflux.models.tdmpc2": ("TDMPC2WorldModel",),
    "worldflux.project.imagine": ("infer_project",),
    "worldflux.project.loader": ("load_project",),
    "worldflux.project.run": ("train_project",),
    "worldflux.training": ("ReplayBuffer", "Trainer", "TrainingConfig"),
    "worldflux.training.callbacks": ("Callback",),
    "worldflux.training.config": ("TrainingConfig",),
    "worldflux.training.data": ("create_random_buffer",),
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_found_where_scripts_import_them(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []
