"""Minari data sets, from the local folder of data sets (`MINARI_DATASETS_PATH`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from worldflux.errors import ConfigurationError
from worldflux.optional import require

from .offline import OfflineData, RawEpisode


def open_minari(dataset_id: str) -> OfflineData:
    """Open a data set that is on this machine.

    Raises:
        MissingDependencyError: when minari is not installed.
        ConfigurationError: when there is no such data set here, or its id is malformed.
    """
    require("a Minari data set", "minari", "minari")
    import minari

    where = f"minari:{dataset_id}"
    try:
        dataset = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError, KeyError, OSError) as error:
        raise ConfigurationError(
            f"there is no readable Minari data set {dataset_id!r} on this machine: {error}",
            where=where,
            hint=f"minari download {dataset_id}; minari list local shows what is here",
        ) from None

    def episodes() -> Iterator[RawEpisode]:
        for episode in dataset.iterate_episodes():
            yield RawEpisode(
                episode.observations, episode.actions, episode.rewards, episode.terminations
            )

    chosen = dataset.episode_indices
    steps = [int(meta["total_steps"]) for meta in dataset.storage.get_episode_metadata(chosen)]
    recorded = dataset.env_spec
    return OfflineData(
        where=where,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        lengths=np.array(steps, np.int64),
        num_rows=sum(steps) + len(steps),
        episodes=episodes,
        env_id=None if recorded is None else recorded.id,
    )
