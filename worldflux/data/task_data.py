"""Recorded data of several tasks as one data set: padded, each step with its task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from worldflux.core.config.base import OBSERVATION, TASK
from worldflux.envs.actions import action_rows
from worldflux.envs.observations import ObservationReader
from worldflux.envs.tasks import Padding

from .recorded import OfflineData, RawEpisode, row_count


def joined_tasks(parts: Sequence[OfflineData], padding: Padding) -> OfflineData:
    """The data of tasks 0, 1, ..., one after the other, as those of the padded environment."""
    observed, action = padding.spaces()

    def episodes() -> Iterator[RawEpisode]:
        for index, part in enumerate(parts):
            reader = ObservationReader(part.where, part.observation_space, check_bounds=False)
            for episode in part.episodes():
                rows = reader.read(episode.obs, row_count(episode.obs))[""]
                obs = {OBSERVATION: padding.obs(rows), TASK: np.full(len(rows), index)}
                taken = action_rows(part.action_space, episode.actions)
                actions = taken.argmax(-1) if padding.discrete else padding.actions(taken)
                yield dataclasses.replace(episode, obs=obs, actions=actions)

    return OfflineData(
        where=", ".join(part.where for part in parts),
        observation_space=observed,
        action_space=action,
        lengths=np.concatenate([part.lengths for part in parts]),
        num_rows=sum(part.num_rows for part in parts),
        episodes=episodes,
        notes=tuple(f"{part.where}: {note}" for part in parts for note in part.notes),
        unknown=next((part.unknown for part in parts if part.unknown), None),
    )
