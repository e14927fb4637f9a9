"""Where recorded episodes end, and why: settled by the file, or refused with what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.data.offline import Tally, copy_episodes
from worldflux.data.recorded import KnownEnvironment, OfflineData, open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError

LENGTHS = (4, 4, 3)


def recorded(lengths: tuple[int, ...] = LENGTHS, images: bool = False) -> dict[str, np.ndarray]:
    """Steps of episodes that start at other places: `ends` marks the last step of each."""
    steps = [np.arange(n + 1) + 50 * k for k, n in enumerate(lengths)]
    shown = lambda rows: np.concatenate(rows)[:, None] * np.ones((1, 2), np.float32)  # noqa: E731
    if images:
        shown = lambda rows: (  # noqa: E731
            np.concatenate(rows)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
        ).astype(np.uint8)
    ends = np.zeros(sum(lengths), bool)
    ends[np.cumsum(lengths) - 1] = True
    return {
        "observations": shown([s[:-1] for s in steps]),
        "next_observations": shown([s[1:] for s in steps]),
        "actions": np.zeros((len(ends), 1), np.float32),
        "rewards": np.ones(len(ends)),
        "ends": ends,
    }


def opened(
    folder: Path, suffix: str, limit: int | None = None, means: Any = None, **columns: Any
) -> OfflineData:
    path = folder / f"steps{suffix}"
    kept = {name: values for name, values in columns.items() if values is not None}
    if suffix == ".npz":
        np.savez(path, **kept)
    else:
        with h5py.File(path, "w") as file:
            for name, values in kept.items():
                file[name] = values
    known = None
    if limit is not None:
        observed = spaces.Box(-np.inf, np.inf, columns["observations"].shape[1:])
        known = KnownEnvironment("Env-v0", observed, spaces.Box(-1, 1, (1,)), limit)
    return open_offline("npz" if suffix == ".npz" else "hdf5", str(path), known, means)


def tally(data: OfflineData) -> Tally:
    spec = data.spec("test")
    return copy_episodes(
        data, ReplayBuffer(max(2, data.num_rows), spec.replay_shapes, spec.action_dim)
    ).replay


both = pytest.mark.parametrize("suffix", [".npz", ".hdf5"])


@both
@pytest.mark.parametrize("images", [False, True])
def test_ends_that_no_column_marks_show_as_jumps(tmp_path: Path, suffix: str, images: bool) -> None:
    steps = recorded(images=images)
    ends = steps.pop("ends")
    data = opened(tmp_path, suffix, **steps, terminals=ends & (np.arange(11) == 3))
    assert data.lengths.tolist() == list(LENGTHS)
    found = tally(data)
    assert (found.true_ends, found.time_limits, found.rewards) == (1, 2, 11)


@both
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (None, "record timeouts"),
        ("timeout", "should 'timeout' be 'timeouts'?"),
        ("truncateds", "should 'truncateds' be 'truncations'?"),
        ("truncated", "should 'truncated' be 'truncations'?"),
        ("episode_terminals", "should 'episode_terminals' be 'timeouts'?"),
        ("infos/TimeLimit.truncated", "'infos/TimeLimit.truncated' be "),
    ],
)
def test_an_end_that_no_column_marks_is_refused_with_what_it_would_be_called(
    tmp_path: Path, suffix: str, name: str | None, hint: str
) -> None:
    steps = recorded()
    ends, _ = steps.pop("ends"), steps.pop("next_observations")
    steps |= {} if name is None else {name: ends}
    with pytest.raises(ConfigurationError, match="no column marks where an episode was") as caught:
        opened(tmp_path, suffix, **steps, terminals=np.zeros(11))
    assert hint in str(caught.value.hint)
    assert all(column in caught.value.message for column in steps)


def test_a_column_that_may_mark_ends_is_not_passed_over_when_the_last_step_is_terminal(
    tmp_path: Path,
) -> None:
    steps = recorded()
    ends, _ = steps.pop("ends"), steps.pop("next_observations")
    terminals = np.arange(11) == 10
    for name, values in (("timeout", ends), ("episode_ends", np.cumsum(LENGTHS))):
        with pytest.raises(ConfigurationError, match=f"{name} is not read") as caught:
            opened(tmp_path, ".npz", **steps, terminals=terminals, **{name: values})
        assert ("should" in str(caught.value.hint)) == (name == "timeout")  # no index is a flag
    data = opened(tmp_path, ".npz", **steps, terminals=terminals, weights=np.zeros((6, 2)))
    assert data.lengths.tolist() == [11]
    assert "no timeouts: every episode is read as ended by itself" in data.notes
    assert "not read: weights" in data.notes


@both
def test_an_episode_longer_than_the_time_limit_is_refused(tmp_path: Path, suffix: str) -> None:
    steps = recorded((4, 8, 3))
    ends = steps.pop("ends")
    with pytest.raises(ConfigurationError, match="episode 1 has 8 steps, and Env-v0 ends after 4"):
        opened(tmp_path, suffix, 4, **steps, terminals=ends)
    assert tally(opened(tmp_path, suffix, 8, **steps, terminals=ends)).true_ends == 3


# Of three episodes of 4, 4 and 3 steps, the first ended by itself.
TERMINAL = np.arange(11) == 3
ENDS = recorded()["ends"]


@both
@pytest.mark.parametrize(
    "columns",
    [
        {"terminals": TERMINAL, "timeouts": ENDS & ~TERMINAL},
        {"terminals": TERMINAL, "timeouts": ENDS},  # a true end at the limit is a true end
        {"terminals": TERMINAL, "dones": ENDS},
        {"timeouts": ENDS & ~TERMINAL, "dones": ENDS},
        {"terminals": TERMINAL, "timeouts": ENDS & ~TERMINAL, "dones": ENDS},
        {"terminations": TERMINAL.astype(float), "truncations": (ENDS & ~TERMINAL)[:, None]},
    ],
)
def test_two_columns_of_three_say_why_episodes_ended(
    tmp_path: Path, suffix: str, columns: dict[str, np.ndarray]
) -> None:
    steps = recorded()
    del steps["ends"]
    found = tally(opened(tmp_path, suffix, **steps, **columns))
    assert (found.episodes, found.true_ends, found.time_limits) == (3, 1, 2)


def test_dones_that_repeat_terminals_mark_no_other_ends(tmp_path: Path) -> None:
    steps = recorded()
    del steps["ends"]
    data = opened(tmp_path, ".npz", **steps, terminals=TERMINAL, dones=TERMINAL)
    assert data.lengths.tolist() == list(LENGTHS)
    del steps["next_observations"]
    with pytest.raises(ConfigurationError, match="no column marks where an episode was cut off"):
        opened(tmp_path, ".npz", **steps, terminals=TERMINAL, dones=TERMINAL)


def test_columns_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    steps = recorded()
    del steps["ends"]
    with pytest.raises(ConfigurationError, match="contradicts terminals and timeouts at row 3"):
        opened(tmp_path, ".npz", **steps, terminals=TERMINAL, dones=ENDS & ~TERMINAL)


@both
@pytest.mark.parametrize(
    ("lengths", "limit", "means", "ends"),
    [
        ((4, 4, 4), 4, None, (0, 3)),
        ((4, 4, 3), 4, "by_time_limit", (1, 2)),
        ((4, 4, 3), None, "terminations", (3, 0)),
        ((4, 4, 3), None, "time_limits", (0, 3)),
    ],
)
def test_a_lone_dones_is_read_by_the_time_limit_or_as_set(
    tmp_path: Path,
    suffix: str,
    lengths: tuple[int, ...],
    limit: int | None,
    means: str | None,
    ends: tuple[int, int],
) -> None:
    steps = recorded(lengths)
    data = opened(tmp_path, suffix, limit, means, **steps | {"dones": steps.pop("ends")})
    found = tally(data)
    assert (found.true_ends, found.time_limits) == ends
    assert f"{ends[1]} read as time limits, {ends[0]} as true ends" in data.notes[0]


@both
@pytest.mark.parametrize(
    ("limit", "means", "message"),
    [
        (None, None, r"ends of 3 episodes, .*no time limit of an env"),
        (4, None, "2 of them after the 4 steps of Env-v0's time limit, 1 earlier"),
        (9, None, "0 of them after the 9 steps"),
        (None, "by_time_limit", "needs an environment with a time limit"),
    ],
)
def test_a_lone_dones_that_nothing_settles_is_refused_with_the_key(
    tmp_path: Path, suffix: str, limit: int | None, means: str | None, message: str
) -> None:
    steps = recorded()
    with pytest.raises(ConfigurationError, match=message) as caught:
        opened(tmp_path, suffix, limit, means, **steps | {"dones": steps.pop("ends")})
    assert '[data] dones = "terminations"' in str(caught.value.hint)


@both
def test_a_jump_inside_an_episode_is_refused(tmp_path: Path, suffix: str) -> None:
    steps = recorded()
    ends = steps.pop("ends") & (np.arange(11) != 7)
    data = opened(tmp_path, suffix, **steps, terminals=np.zeros(11), timeouts=ends)
    with pytest.raises(ConfigurationError, match="episode 1, row 3: next_observations is not"):
        tally(data)


@both
def test_first_observations_in_place_of_last_ones_are_refused(tmp_path: Path, suffix: str) -> None:
    steps = recorded()
    steps["next_observations"][:-1] = steps["observations"][1:]
    ends = steps.pop("ends")
    for terminals, timeouts in ((ends, None), (ends, ~ends & ends), (ends & ~ends, ends)):
        with pytest.raises(ConfigurationError, match="is the first observation of the next one"):
            opened(tmp_path, suffix, **steps, terminals=terminals, timeouts=timeouts)


def test_where_the_ends_are_left_open_it_is_said(tmp_path: Path) -> None:
    steps = recorded()
    data = opened(tmp_path, ".npz", None, "open", **steps | {"dones": steps.pop("ends")})
    assert tally(data).true_ends == 3
    assert "3 read as true ends, which no column says; to train, set [data] dones" in data.notes[0]
    data = opened(tmp_path, ".npz", None, "open", **recorded(), terminals=ENDS)
    assert not any("dones" in note for note in data.notes)


def test_true_ends_that_all_come_at_the_time_limit_are_refused(tmp_path: Path) -> None:
    steps = recorded((4, 4, 4))
    ends = steps.pop("ends")
    with pytest.raises(ConfigurationError, match="marks 3 true ends, all after the 4 steps"):
        opened(tmp_path, ".npz", 4, **steps, terminals=ends)
    both_told = opened(tmp_path, ".npz", 4, **steps, terminals=ends, timeouts=ends)
    assert tally(both_told).true_ends == 3
    as_dones = opened(tmp_path, ".npz", 4, "terminations", **steps, dones=ends)
    assert tally(as_dones).true_ends == 3


@pytest.mark.parametrize(
    "names", [("terminals", "timeouts"), ("terminals", "dones"), ("terminals",), ("dones",)]
)
@pytest.mark.parametrize("seen", [4, 5])
def test_an_episode_of_a_folder_that_no_flag_ends_was_cut_off(
    tmp_path: Path, names: tuple[str, ...], seen: int
) -> None:
    for number in range(3):
        ends = (np.arange(4) == 3) & (number == 1)
        flags = {name: ends & (name != "timeouts") for name in names}
        obs = np.full((seen, 2), number, np.float32)
        steps = {"observations": obs, "actions": np.zeros((4, 1)), "rewards": np.ones(4)}
        np.savez(tmp_path / f"{number}.npz", **steps, **flags)
    data = open_offline("npz", str(tmp_path), dones="terminations" if len(names) == 1 else None)
    assert data.lengths.tolist() == [4, 4, 4]
    assert [bool(episode.terminations[-1]) for episode in data.episodes()] == [False, True, False]
    assert tally(data).transitions == (12 if seen == 5 else 10)
