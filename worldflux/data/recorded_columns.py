"""The columns of one file of recorded steps (docs/data.md): found, checked, cut into episodes.

A true end is learned without a bootstrap, a time limit with one, and a lost end as a transition
that never happened. What the file does not settle is therefore refused, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from worldflux.errors import ConfigurationError, ShapeMismatchError, nearest

from .episode_rows import flags, per_step

Dones = Literal["terminations", "time_limits", "by_time_limit", "open"]

NAMES = {
    "observations": ("observations", "obs"),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "terminals": ("terminals", "terminations"),
    "timeouts": ("timeouts", "truncations"),
    "dones": ("dones",),
    "next_observations": ("next_observations", "next_obs"),
}
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_ENDS = ("terminals", "timeouts", "dones")
_LIKE_ENDS = ("time", "trunc", "termin", "done", "episode", "traj", "last", "first", "end", "reset")
_LIKE_STARTS = ("first", "start", "begin")
_CHUNK_BYTES = 64 << 20
_SHOWN = 12  # names in a message
_RENAME = "record timeouts: True at the last step of each episode that did not end by itself"
_CHOICES = (
    'record terminals and timeouts, or set [data] dones = "terminations" (all are true ends), '
    '"time_limits" (none is)'
)


class Columns:
    """Columns by the names of `NAMES`; observations by part where the file names them.

    `found` has name -> part -> values `[N, ...]`, the part "" where there is only one; `unread` has
    everything else in the file; `limit` is the time limit of `env_id`, where they are known, or the
    `episode_length` of `task`; `stops` are the rows after the last of each file, of a folder.
    Raises ConfigurationError when a column is missing, exists twice, or does not fit the others.
    """

    def __init__(
        self,
        file: Mapping[str, Any],
        where: str,
        stops: np.ndarray | None = None,
        env_id: str | None = None,
        limit: int | None = None,
        task: str | None = None,
    ) -> None:
        self.where, self.stops = where, stops
        self.env_id, self.limit, self.task = env_id, limit, task
        self.found: dict[str, dict[str, Any]] = {}
        self.unread = dict(file)
        for name, words in NAMES.items():
            parts = {word: _parts(file, word) for word in words}
            there = [word for word, found in parts.items() if found]
            if len(there) > 1:
                raise self.error(f"{' and '.join(there)} are the same column: keep one")
            if there:
                self.found[name] = parts[there[0]]
                for part in self.found[name]:
                    del self.unread[f"{there[0]}/{part}" if part else there[0]]
        self._check_missing(file)
        self._check_rows()

    def error(self, message: str, hint: str | None = None) -> ConfigurationError:
        return ConfigurationError(message, where=self.where, hint=hint)

    def one_each(self, name: str, read: Callable[[str, Any], np.ndarray] = per_step) -> np.ndarray:
        """A column `[N]` of one number a row, read whole; ConfigurationError for another shape."""
        try:
            return read(name, self.found[name][""][...])
        except ShapeMismatchError as error:
            hint = f"keep one column of them, such as {name}[:, 0]" if "shape" in str(error) else ""
            raise self.error(error.message, hint or None) from None

    def likely_ends(self) -> dict[str, bool]:
        """Unread columns that look as if they mark where episodes end; True for flags."""
        likely = {}
        first = next(iter(self.found.values()), {})
        rows = max((len(values) for values in first.values() if values.ndim), default=0)
        for name, values in self.unread.items():
            named = any(word in name.lower() for word in _LIKE_ENDS)
            one_each = math.prod(values.shape) == len(values) if values.ndim else False
            if named and one_each and values.dtype.kind in "biuf":
                numbers = np.asarray(values[...])
                is_flags = len(numbers) == rows and bool(np.isin(numbers, (0, 1)).all())
                if is_flags or numbers.dtype.kind in "iu":
                    likely[name] = is_flags
        return likely

    def renamed(self) -> str | None:
        """What unread columns may have been meant as."""
        absent = {name: words for name, words in NAMES.items() if name not in self.found}
        likely, guesses = self.likely_ends(), []
        for name in self.unread:
            words = [w for n in absent if (n in _ENDS) == (name in likely) for w in absent[n]]
            near = nearest(name, words, 1) or (["timeouts"] if likely.get(name) else [])
            starts = any(word in name.lower() for word in _LIKE_STARTS)
            moved = " (one row earlier, True in the last one)" * starts
            guesses += [f"{name!r}{moved} be {word!r}" for word in near]
        return f"should {', '.join(guesses)}?" if guesses else None

    def named(self) -> str:
        names = [w + (f"/{part}" if part else "") for w, c in self.found.items() for part in c]
        return shown([*names, *self.unread])

    def _check_missing(self, file: Mapping[str, Any]) -> None:
        missing = [name for name in _REQUIRED if name not in self.found]
        if "dones" in self.found and "terminals" in missing:
            missing.remove("terminals")
        if missing:
            words = {word for words in NAMES.values() for word in words}
            paths = [name.rpartition("/") for name in file]
            groups = {group for group, _, word in paths if group and word in words}
            joined = f"join the groups ({shown(groups)}) end to end, with timeouts"
            raise self.error(
                f"columns are missing: {', '.join(missing)}; the file has {shown(file)}",
                (joined if groups else self.renamed())
                or "needed are observations, actions, rewards and terminals, row by row",
            )

    def _check_rows(self) -> None:
        counts = {}
        for name, part, values in ((n, p, v) for n, c in self.found.items() for p, v in c.items()):
            counts[name + (f"/{part}" if part else "")] = values.shape[0] if values.ndim else 0
            if values.dtype.kind not in "biuf":
                raise self.error(f"column {name!r} holds {values.dtype}, not numbers")
            if 0 in values.shape[1:]:
                raise self.error(f"column {name!r} has the shape {values.shape}: it holds nothing")
            if part and name not in ("observations", "next_observations"):
                raise self.error(f"column {name!r} is a group, expected one array")
        if len(set(counts.values())) != 1 or 0 in counts.values():
            given = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise self.error(f"every column has one row a step, at least one; here: {given}")
        own = {part: values.shape for part, values in self.found["observations"].items()}
        following = self.found.get("next_observations", self.found["observations"])
        theirs = {part: values.shape for part, values in following.items()}
        if theirs != own:
            raise self.error(
                f"next_observations {theirs} are not of the shapes of observations {own}"
            )

    def continues(self, start: int, stop: int) -> np.ndarray:
        """For each row start..stop - 1, whether its next observation is the following row's."""
        same = np.ones(stop - start, bool)
        for part, following in self.found["next_observations"].items():
            values = self.found["observations"][part]
            for first, last in _chunks(values, start, stop):
                after, then = np.asarray(values[first + 1 : last + 1]), following[first:last]
                kept = min(after.dtype, then.dtype, key=lambda dtype: dtype.itemsize)
                after, then = after.astype(kept), np.asarray(then).astype(kept)
                equal = (after == then) | (after != after) | (then != then)  # NaN is refused later
                same[first - start : last - start] &= equal.reshape(last - first, -1).all(1)
        return same

    def observation_space(self) -> tuple[spaces.Space, str | None]:
        """The space that the values lie in, where no environment says so, and what is unknown."""
        leaves: dict[str, spaces.Space] = {}
        unknown = None
        for part, values in sorted(self.found["observations"].items()):
            shape, dtype = tuple(values.shape[1:]), values.dtype
            highest = 1 if dtype.kind in "bf" else min(255, np.iinfo(dtype).max)
            leaves[part] = spaces.Box(-np.inf, np.inf, shape, np.float32)
            if dtype == np.uint8 or len(shape) == 3:
                leaves[part] = spaces.Box(0, highest, shape, dtype.type)
                low, high = (0, 0) if dtype == np.uint8 else _range(values)
                if low < 0 or high > highest:
                    unknown = f"images are {dtype} from {low:g} to {high:g}, not uint8"
        only = leaves.keys() == {""}
        return leaves[""] if only else spaces.Dict(leaves), unknown

    def action_space(self) -> tuple[spaces.Space, str | None]:
        """Whole numbers are one Discrete action; real ones are taken to lie in [-1, 1]."""
        actions = self.found["actions"][""]
        width, (low, high) = math.prod(actions.shape[1:]), _range(actions)
        is_real, finite = actions.dtype.kind == "f", bool(np.isfinite([low, high]).all())
        if is_real and (not finite or (low >= -1 and high <= 1)):
            return spaces.Box(-1.0, 1.0, (width,)), None  # not finite: refused with its row
        if not is_real and width == 1 and low >= 0:
            return spaces.Discrete(max(2, int(high) + 1)), None
        kind = "numbers" if is_real else "whole numbers"
        box = spaces.Box(min(low, -1.0), max(high, 1.0), (width,), np.float64)
        return box, f"actions are {width} {kind} from {low:g} to {high:g} a row"


def shown(names: Any) -> str:
    """The first of many names."""
    names = sorted(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "none"


def _parts(file: Mapping[str, Any], word: str) -> dict[str, Any]:
    """The column of that name; by part where it is kept as NAME/part."""
    if word in file:
        return {"": file[word]}
    return {k.partition("/")[2]: v for k, v in file.items() if k.startswith(f"{word}/")}


def _chunks(values: Any, start: int, stop: int) -> Iterator[tuple[int, int]]:
    row_bytes = math.prod(values.shape[1:]) * values.dtype.itemsize
    step = max(1, _CHUNK_BYTES // max(1, row_bytes))
    return ((first, min(first + step, stop)) for first in range(start, stop, step))


def _range(values: Any) -> tuple[float, float]:
    """The smallest and the largest value; NaN where there is one."""
    parts = [np.asarray(values[a:b]) for a, b in _chunks(values, 0, len(values))]
    return float(np.min([part.min() for part in parts])), float(np.max([p.max() for p in parts]))


# --------------------------------------------------------------------------- ends of episodes


@dataclass(frozen=True)
class Ends:
    """Which rows `[N]` are true ends, the row after the last of each episode, and whether the file
    flags them all."""

    terminal: np.ndarray
    stops: np.ndarray
    flagged: bool
    notes: tuple[str, ...]


def episode_ends(columns: Columns, dones: Dones | None) -> Ends:
    """The ends of the recorded episodes.

    `dones` says what a lone `dones` column means (`[data] dones`); "open" reads true ends, and
    notes that this is open. Raises ConfigurationError when ends are missing, contradict one
    another, or their kind is open.
    """
    given = {
        name: columns.one_each(name, flags)
        for name in ("terminals", "timeouts", "dones")
        if name in columns.found
    }
    terminal, done = given.get("terminals"), given.get("dones")
    timeout, notes = given.get("timeouts"), []
    if dones not in (None, "open") and (done is None or len(given) > 1):
        notes.append("data.dones is not used: the file has terminals or timeouts")
    if terminal is not None and timeout is None and done is not None and (done != terminal).any():
        timeout = done & ~terminal  # a dones that repeats terminals says nothing of other ends
    if terminal is not None and timeout is None and columns.stops is not None:
        timeout = np.zeros_like(terminal)  # what no flag ends, ends with its file
    if terminal is None and timeout is not None and done is not None:
        terminal = done & ~timeout
    flagged = terminal is None or timeout is not None
    if terminal is not None and timeout is not None and done is not None:
        differing = np.flatnonzero(done != terminal | timeout)
        if len(differing):
            raise columns.error(
                f"dones contradicts terminals and timeouts at row {differing[0]}",
                "keep terminals and timeouts alone",
            )
    if terminal is not None and timeout is None:
        timeout, note = _unflagged(columns, terminal)
        notes.append(note)
    ended = done if terminal is None or timeout is None else terminal | timeout
    assert ended is not None
    files = [len(ended)] if columns.stops is None else columns.stops
    stops = np.union1d(np.flatnonzero(ended) + 1, files)  # no flag: cut off with its file
    lengths = np.diff(stops, prepend=0)
    _check_limit(columns, lengths)
    if terminal is not None and timeout is not None:
        _check_true_ends(columns, lengths[(terminal & ~timeout)[stops - 1]])
    else:
        marked = ended[stops - 1]
        timed_out, note = _why(columns, dones, lengths[marked])
        timeout = np.zeros_like(ended)
        timeout[stops[marked] - 1] = timed_out
        terminal = ended & ~timeout
        notes.append(note)
    _check_last_observations(columns, stops)
    return Ends(terminal, stops, flagged, tuple(notes))


def _unflagged(columns: Columns, terminal: np.ndarray) -> tuple[np.ndarray, str]:
    """Ends without a column for them: where the next observation is not that of the next row."""
    if "next_observations" in columns.found:
        cut = np.zeros_like(terminal)
        cut[:-1] = ~columns.continues(0, len(cut) - 1)
        cut &= ~terminal
        inside = ~terminal[:-1]
        if inside.sum() > 1 and cut[:-1][inside].all():
            raise columns.error(
                "no next observation is the observation of the next row: rows are not in the order "
                "that they were played in, or the two columns hold different numbers",
                "keep rows in the order that they were played in, or leave next_observations out "
                "and record timeouts",
            )
        return cut, f"no timeouts: {cut.sum():,} ends read from next_observations"
    likely = columns.likely_ends()
    if likely or not terminal[-1]:
        unread = f"; {', '.join(likely)} is not read" if likely else ""
        raise columns.error(
            "no column marks where an episode was cut off (there is neither timeouts nor "
            f"next_observations{unread}); the file has {columns.named()}",
            columns.renamed() or _RENAME,
        )
    return np.zeros_like(terminal), "no timeouts: every episode is read as ended by itself"


def _check_limit(columns: Columns, lengths: np.ndarray) -> None:
    over = np.flatnonzero(lengths > (columns.limit or np.inf))
    if len(over):
        who, setting = columns.env_id, f"environment_kwargs.max_episode_steps = {lengths.max()}"
        if columns.task is not None:
            who = f"task {columns.task} (episode_length)"
            setting = f"episode_length = {lengths.max()} of task {columns.task}"
        raise columns.error(
            f"episode {over[0]} has {lengths[over[0]]:,} steps, and {who} ends after "
            f"{columns.limit:,}: ends are missing; the file has {columns.named()}",
            columns.renamed()
            or f"{_RENAME}; if it was recorded with another limit, set it: {setting}",
        )


def _check_true_ends(columns: Columns, lengths: np.ndarray) -> None:
    """Episodes with true ends that all last exactly the time limit were cut off by it."""
    if len(lengths) > 1 and (lengths == columns.limit).all():
        raise columns.error(
            f"terminals marks {len(lengths):,} true ends, all after the {columns.limit:,} steps of "
            f"{columns.env_id}'s time limit",
            "if they are time limits, call the column dones; if they are true ends, also set "
            '[data] dones = "terminations"',
        )


def _why(columns: Columns, dones: Dones | None, lengths: np.ndarray) -> tuple[np.ndarray, str]:
    """Which of the episodes with these lengths ended by a time limit, of a lone `dones`."""
    env_id, limit = columns.env_id, columns.limit
    at_limit = lengths == (limit or 0)
    if dones == "by_time_limit" and limit is None:
        problem = 'data.dones = "by_time_limit" needs an environment with a time limit'
        raise columns.error(problem, _CHOICES)
    if not len(lengths):
        return at_limit, "dones flags no end: every episode was cut off"
    if dones == "open":
        note = f"dones: {len(lengths):,} read as true ends, which no column says; to train, set "
        return np.zeros_like(at_limit), note + "[data] dones"
    if dones is None and (limit is None or not at_limit.all()):
        known = "no time limit of an environment is known"
        if limit is not None:
            known = (
                f"{at_limit.sum():,} of them after the {limit:,} steps of {env_id}'s time limit, "
                f"{(~at_limit).sum():,} earlier"
            )
        raise columns.error(
            f"dones marks the ends of {len(lengths):,} episodes, but not whether they are true "
            f"ends or time limits ({known}); the file has {columns.named()}",
            columns.renamed()
            or _CHOICES + (', "by_time_limit" (those before the limit are)' if limit else ""),
        )
    timed_out = at_limit
    if dones in ("terminations", "time_limits"):
        timed_out = np.full_like(at_limit, dones == "time_limits")
    return timed_out, (
        f"dones: {timed_out.sum():,} read as time limits, {(~timed_out).sum():,} as true ends "
        f"({'data.dones' if dones else f'{env_id} ends after {limit:,} steps'})"
    )


def _check_last_observations(columns: Columns, stops: np.ndarray) -> None:
    """What follows an end is no observation of the next episode, as some recorders have it."""
    inner = stops[:-1] - 1
    if "next_observations" not in columns.found or len(inner) < 2:
        return
    if all(columns.continues(row, row + 1)[0] for row in inner.tolist()):
        raise columns.error(
            "next_observations at the end of each episode is the first observation of the next one",
            'record the last observation there (info["final_obs"] of a vector environment), or '
            "leave next_observations out and record timeouts",
        )
