"""The columns of one file of recorded steps (docs/data.md): found by name, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.errors import ConfigurationError, ShapeMismatchError, nearest

from .episode_rows import per_step

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


class Columns:
    """Columns by the names of `NAMES`; observations by part where the file names them.

    `found` has name -> part -> values `[N, ...]`, the part "" where there is only one; `unread` has
    everything else in the file; `limit` is the time limit of `env_id`, where they are known. Raises
    ConfigurationError when a column is missing, exists twice, or does not fit the others.
    """

    def __init__(
        self, file: Mapping[str, Any], where: str, env_id: str | None, limit: int | None
    ) -> None:
        self.where, self.env_id, self.limit = where, env_id, limit
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
        """The names of everything in the file, for a message."""
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
            highest = 1 if dtype.kind == "f" else 255
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
