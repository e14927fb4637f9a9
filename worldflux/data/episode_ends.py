"""Where recorded episodes end, and why: as the columns say, or the environment's time limit.

A true end is learned without a bootstrap, a time limit with one, and a lost end as a transition
that never happened. What the file does not settle is therefore refused, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .episode_rows import flags
from .recorded_columns import Columns

Dones = Literal["terminations", "time_limits", "by_time_limit", "open"]

_RENAME = "record timeouts: True at the last step of each episode that did not end by itself"
_CHOICES = (
    'record terminals and timeouts, or set [data] dones = "terminations" (all are true ends), '
    '"time_limits" (none is)'
)


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
    stops = np.flatnonzero(ended) + 1
    if not ended[-1]:  # the last episode was cut off
        stops = np.append(stops, len(ended))
    lengths = np.diff(stops, prepend=0)
    _check_limit(columns, lengths)
    if terminal is not None and timeout is not None:
        _check_true_ends(columns, lengths[(terminal & ~timeout)[stops - 1]])
    else:
        timed_out, note = _why(columns, dones, lengths[: int(ended.sum())])
        timeout = np.zeros_like(ended)
        timeout[stops[: len(timed_out)] - 1] = timed_out
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
        raise columns.error(
            f"episode {over[0]} has {lengths[over[0]]:,} steps, and {columns.env_id} ends after "
            f"{columns.limit:,}: ends are missing; the file has {columns.named()}",
            columns.renamed()
            or f"{_RENAME}; if it was recorded with another limit, set it: "
            f"environment_kwargs.max_episode_steps = {lengths.max()}",
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
        return at_limit, "dones flags no end: one episode that was cut off"
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
