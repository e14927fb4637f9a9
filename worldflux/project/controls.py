"""What a person can do in an environment: its actions by number, by name and by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Env, spaces

from worldflux.envs.actions import action_rows, as_classes
from worldflux.envs.faults import Failure
from worldflux.errors import ConfigurationError

AGENT = "agent"
# Codes of keys that are no characters: those of SDL 2, and of pygame 1 in older environments.
_KEYS = {
    **dict(zip(range(1073741903, 1073741907), ("right", "left", "down", "up"), strict=True)),
    **dict(zip(range(273, 277), ("up", "down", "right", "left"), strict=True)),
    32: "space",
}
_REPEATED = re.compile(r"(.+?)(?:x([1-9][0-9]{0,4}))?")


@dataclass(frozen=True)
class Controls:
    """The actions of an environment.

    `names` and `keys` map to an action's numbers in the environment's own units: names are those
    of its keyboard and of its `get_action_meanings`, keys such as "left", "a" or "a+space".
    """

    space: spaces.Space
    names: dict[str, list[float]]
    keys: dict[str, list[float]]

    def row(self, numbers: Iterable[float], called: str) -> np.ndarray:
        """The action row `[A]` of an action's numbers.

        Raises:
            ConfigurationError: where they are no action; it is `called` so.
        """
        try:
            values = np.array([list(numbers)], np.float64)
            row: np.ndarray = action_rows(self.space, values)[0]
        except Failure as failure:
            raise self._refused(called, failure.problem) from None
        except (TypeError, ValueError, OverflowError):
            raise self._refused(called, f"is no action of {self.space}") from None
        return row

    def parse(self, texts: Iterable[str]) -> list[np.ndarray | None]:
        """Action rows of texts such as "1", "0.5,-1", "left", "agent" and "1x10"; None for the
        agent's own choice.

        Raises:
            ConfigurationError: for anything else, with what there is.
        """
        rows: list[np.ndarray | None] = []
        for text in texts:
            match = None if text in self.names else _REPEATED.fullmatch(text)
            word, count = match.groups() if match else (text, None)
            rows += [None if word == AGENT else self._row_of(word, text)] * int(count or 1)
        return rows

    def _row_of(self, word: str, text: str) -> np.ndarray:
        numbers = self.names.get(word.lower())
        if numbers is None:
            try:
                numbers = [float(part) for part in word.split(",")]
            except ValueError:
                problem = f"is no action: the environment takes {self.space}"
                raise self._refused(text, problem) from None
        return self.row(numbers, text)

    def _refused(self, text: str, problem: str) -> ConfigurationError:
        named = f", or {', '.join(self.names)}" if self.names else ""
        highest = [
            part["high"] if "high" in part else part["choices"][-1] for part in self._parts()
        ]
        example = ",".join(f"{number:g}" for number in highest)
        return ConfigurationError(
            f"the action {text[:60]!r} {problem}",
            hint=f"--action {example}, --action {example}x10, --action {AGENT}{named}",
        )

    def to_json(self) -> dict[str, Any]:
        """For the page: each number of an action with its choices or bounds, and the keys."""
        parts = self._parts()
        names = {name: numbers for name, numbers in self.names.items() if name not in self.keys}
        return {"parts": parts, "names": names, "keys": self.keys or _arrows(parts)}

    def _parts(self) -> list[dict[str, Any]]:
        space = as_classes(self.space)
        if isinstance(space, spaces.Box):
            whole = space.dtype.kind in "iu"
            bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
            return [{"low": low, "high": high, "whole": whole} for low, high in bounds]
        assert isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
        counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        starts = np.broadcast_to(np.ravel(space.start), counts.shape)
        pairs = zip(starts.tolist(), counts.tolist(), strict=True)
        return [{"choices": list(range(start, start + count))} for start, count in pairs]


def controls_of(env: Env | None, space: spaces.Space) -> Controls:
    """What can be done in an environment whose actions are of `space`; its names, where it is
    given."""
    own, keys, mapping = getattr(env, "unwrapped", None), {}, {}
    with suppress(AttributeError):  # ALE refuses so with continuous actions
        mapping = own.get_keys_to_action()  # type: ignore[union-attr]
    meanings = getattr(own, "get_action_meanings", None)
    for held, action in mapping.items():
        words = [_key(key) for key in (held if isinstance(held, tuple) else [held])]
        if words and all(words):
            keys["+".join(sorted(words))] = _numbers(space, action)
    named = enumerate(meanings() if meanings else ())
    return Controls(space, keys | {n.lower(): [float(i)] for i, n in named}, keys)


def _key(key: Any) -> str:
    """A key as a word; "" for one without a name."""
    if isinstance(key, int):
        return _KEYS.get(key) or (chr(key).lower() if 32 < key < 127 else "")
    return "space" if key == " " else str(key).lower()


def _numbers(space: spaces.Space, action: Any) -> list[float]:
    return [float(number) for number in np.ravel(np.asarray(action, getattr(space, "dtype", None)))]


def _arrows(parts: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The arrow keys of an environment that names none: the ends of the first two numbers."""

    def ends(part: Mapping[str, Any]) -> tuple[float, float, float]:
        if "choices" in part:
            choices = part["choices"]
            return choices[0], choices[len(choices) // 2], choices[-1]
        return part["low"], (part["low"] + part["high"]) / 2, part["high"]

    found, middle = {}, [ends(part)[1] for part in parts]
    for place, words in enumerate((("left", "right"), ("down", "up"))[: len(parts)]):
        for word, number in zip(words, ends(parts[place])[::2], strict=True):
            found[word] = [*middle[:place], number, *middle[place + 1 :]]
    return found
