"""Checks of what the environment gives: actions, rewards, ends, observations and resets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from worldflux.progress import counted

from .evidence import Evidence, Experience, random_effect
from .finding import Measured
from .statistics import Floats, distinct, flat

_LEAST_ROWS = 200  # of the replay, or of random transitions, that a check needs
_MOST_TIMES = 100.0  # beyond a threshold: more says no more
_LEAST_ENDS, _MANY_ENDS = 5, 16
_NEAR_ENDS = 5  # steps before an end that do not count as the middle of an episode
_CHANGED = 0.25  # share of trials in which another action shows
_MOVES = 0.9  # share of the steps that show whether anything moves
_ALIKE = 0.8  # share of episodes of one length that makes it a time limit


def failed(evidence: Evidence, limit: float) -> Measured | None:
    """The run ended with an error, which its manifest names."""
    if evidence.manifest.get("status") != "failed":
        return None
    return Measured(limit, f"the run ended with an error: {evidence.manifest.get('reason')}")


def actions(evidence: Evidence, limit: float) -> Measured | None:
    """Another action changes nothing of what follows; or random ones say nothing of it."""
    played, rows = evidence.played, evidence.experience
    if played is not None and played.changed is not None:
        if played.changed >= _CHANGED:
            return None
        words = "another action, all else the same, changed what followed in "
        words += f"{played.changed:.0%} of the trials; at least {_CHANGED:.0%} are expected"
        return Measured(_CHANGED / max(played.changed, 0.01), words)
    found = None if rows is None else random_effect(rows)
    if found is None or found >= limit:
        return None
    words = (
        f"under random actions, what is observed and received soon depends on them by {found:.1f} "
        f"standard errors; at least {limit:g} are expected"
    )
    return Measured(min(limit / max(found, 0.1), _MOST_TIMES), words)


def reward_constant(evidence: Evidence, limit: float) -> Measured | None:
    """The same reward at every step, where ends do not make returns differ either."""
    rows = evidence.experience
    if rows is None or len(rows.rewards) < limit or np.ptp(rows.rewards):
        return None
    if rows.last.any() and np.ptp(rows.age[rows.last]):
        return None
    words = (
        f"each of {len(rows.rewards):,} rewards is {rows.rewards[0]:g}, in episodes of one length: "
        "no goal was reached yet, or step() knows no other reward"
    )
    return Measured(len(rows.rewards) / limit, words, {"warmup": evidence.longer_warmup(10_000)})


def reward_rare(evidence: Evidence, limit: float) -> Measured | None:
    """Rewards that differ from the usual one are too few to learn from."""
    rows = evidence.experience
    if rows is None or len(rows.rewards) < _LEAST_ROWS or not np.ptp(rows.rewards):
        return None
    values, counts = np.unique(rows.rewards, return_counts=True)
    usual = int(counts.argmax())
    others = len(rows.rewards) - int(counts[usual])
    if others >= limit:
        return None
    words = (
        f"{others} of {len(rows.rewards):,} steps had another reward than {values[usual]:g}; about "
        f"{limit:g} are needed to learn from, and more random steps find more"
    )
    return Measured(limit / others, words, {"warmup": evidence.longer_warmup(10_000)})


def reward_scale(evidence: Evidence, limit: float) -> Measured | None:
    """Rewards so large that values leave the range, or so small that one bin holds them all."""
    rows, clipped = evidence.experience, [n for n in evidence.notes if " beyond " in n]
    largest = 0.0 if rows is None else float(np.abs(rows.rewards).max(initial=0.0))
    if largest > limit or clipped:
        factor = f"{limit / max(largest, 10 * limit):.0e}"
        words = (
            f"rewards are as large as {largest:,.0f}; more than {limit:,.0f} is a lot for one step"
        )
        if clipped:
            words = clipped[-1].removeprefix("unfit_data: ")
        return Measured(min(max(largest / limit, 2.0), _MOST_TIMES), words, {"factor": factor})
    least = 1 / limit
    if rows is None or not 0 < largest < least:
        return None
    words = f"the largest of {len(rows.rewards):,} rewards is {largest:.2g}"
    return Measured(min(least / largest, _MOST_TIMES), words, {"factor": f"{1 / largest:.0f}"})


def limit_as_death(evidence: Evidence, limit: float) -> Measured | None:
    """Terminal ends after always the same number of steps, where the state looks like any other."""
    rows = evidence.experience
    if rows is None:
        return None
    ends = np.flatnonzero(rows.terminal & rows.last)
    lengths = rows.age[ends]
    if len(ends) < _LEAST_ENDS:
        return None
    steps = int(np.bincount(lengths).argmax())
    share = float((lengths == steps).mean())
    if share < _ALIKE or _looks_final(rows, ends, steps) is not False:
        return None
    words = (
        f"{share:.0%} of {len(ends)} terminal ends came after exactly {counted(steps, 'step')}, in "
        "states that look like those in the middle: a time limit recorded as death"
    )
    return Measured(share / limit * len(ends) / _LEAST_ENDS, words)


def _looks_final(rows: Experience, ends: np.ndarray, steps: int) -> bool | None:
    """Whether observations at these ends differ from those in the second half of episodes; None
    where too little was seen, or nothing changes."""
    late = (rows.age >= steps // 2) & (rows.age < steps - min(_NEAR_ENDS, steps // 8))
    seen = np.concatenate([flat(values) for values in rows.obs.values()], 1)
    if late.sum() < len(ends) or not np.ptp(seen, axis=0).any():
        return None
    return distinct(seen[ends], seen[late]) > _ALIKE


def death_unseen(evidence: Evidence, limit: float) -> Measured | None:
    """Episodes of ever another length, or whose last states look different, of which none ends as
    terminated."""
    rows = evidence.experience
    if rows is None or rows.terminal.any():
        return None
    ends = np.flatnonzero(rows.last)
    lengths = rows.age[ends]
    if len(ends) < _LEAST_ENDS:
        return None
    steps = int(np.bincount(lengths).argmax())
    share = float((lengths != steps).mean())
    least, most = lengths.min(), lengths.max()
    took = f"{steps:,}" if least == most else f"{least:,} to {most:,}"
    words = f"none of {len(ends)} episodes, of {took} steps, ended as terminated"
    if share > limit:
        return Measured(share / limit, words + ": deaths are reported as truncated")
    if evidence.number("environment", "time_limit") == steps:
        return None  # the environment's own: these ends are no deaths
    if len(ends) < _MANY_ENDS or not _looks_final(rows, ends[lengths == steps], steps):
        return None
    if _drifts(rows, steps) and not _pays_at_ends(rows):
        return None
    words += ", and their last states look like no others"
    return Measured(_ALIKE / limit, words)


def _drifts(rows: Experience, steps: int) -> bool:
    """Whether states in the middle also look unlike all before, as with a clock among them."""
    middle = steps * 3 // 4
    return bool(_looks_final(rows, np.flatnonzero(rows.age == middle), middle))


def _pays_at_ends(rows: Experience) -> bool:
    """Whether the only rewards are at ends: these decide something, as a time limit does not."""
    return bool(rows.reward[rows.last].any() and not rows.reward[~rows.last].any())


def ends_ignored(evidence: Evidence, limit: float) -> Measured | None:
    """Episodes terminate, but the model does not learn where."""
    found = [note for note in evidence.notes if "this model learns as if" in note]
    return Measured(limit, found[-1].removeprefix("unfit_data: ")) if found else None


def _vectors(rows: Experience) -> Iterator[tuple[str, Floats]]:
    for name, values in rows.obs.items():
        if values.dtype != np.uint8:
            yield name, flat(values)


def observation_constant(evidence: Evidence, limit: float) -> Measured | None:
    """An observation of which most never changes."""
    rows = evidence.experience
    if rows is None or len(rows) < _LEAST_ROWS:
        return None
    for name, values in rows.obs.items():
        still = float((np.ptp(flat(values), axis=0) <= 1e-9).mean())
        if still > limit:
            amount = "never changes" if still == 1 else f"does not change in {still:.0%} of it"
            words = f"the observation {name!r} {amount}, over {len(rows):,} steps"
            times = _MOST_TIMES if still == 1 else still / limit
            return Measured(times, words, {"name": name})
    return None


def observation_scale(evidence: Evidence, limit: float) -> Measured | None:
    """One entry that varies so much more than the others that these are lost."""
    rows = evidence.experience
    if rows is None or len(rows) < _LEAST_ROWS:
        return None
    entries = [(name, i, s) for name, v in _vectors(rows) for i, s in enumerate(v.std(0)) if s > 0]
    if len(entries) < 2:
        return None
    spreads = np.array([spread for _, _, spread in entries])
    name, index, most = entries[int(spreads.argmax())]
    usual = float(np.median(np.delete(spreads, spreads.argmax())))
    if most <= limit * usual:
        return None
    words = f"entry {index} of {name!r} varies by {most:,.4g}, the others by {usual:.2g}"
    values = {"name": name, "index": index, "factor": f"{usual / most:.0e}"}
    return Measured(min(most / usual / limit, _MOST_TIMES), words, values)


def pixels_dark(evidence: Evidence, limit: float) -> Measured | None:
    """Images of 0 and 1 only: they were scaled before they became bytes."""
    rows = evidence.experience
    images = {} if rows is None else {n: v for n, v in rows.obs.items() if v.dtype == np.uint8}
    for name, values in images.items():
        brightest = int(values.max(initial=0))
        if 0 < brightest <= limit:
            words = f"the brightest pixel of {name!r} is {brightest} of 255"
            return Measured(255 / brightest / 10, words, {"name": name})
    return None


def pixels_still(evidence: Evidence, limit: float) -> Measured | None:
    """Images, not dark ones, in which hardly a pixel changes: what moves was lost in resizing."""
    rows = evidence.experience
    if rows is None or rows.follows.sum() < _LEAST_ROWS:
        return None
    after = np.flatnonzero(rows.follows)
    for name, values in rows.obs.items():
        if values.dtype != np.uint8 or not np.ptp(values) or values.max() < limit:
            continue
        changes = np.abs(values[after].astype(np.int16) - values[after - 1]).reshape(len(after), -1)
        most = float(np.quantile(changes.max(1), _MOVES))
        if most < limit:
            words = (
                f"in {_MOVES:.0%} of the steps no pixel of {name!r} changes by more than "
                f"{most:.0f} of 255"
            )
            return Measured(limit / max(most, 1.0), words, {"name": name})
    return None


def seed_ignored(evidence: Evidence, limit: float) -> Measured | None:
    """The same seed and actions give other observations."""
    played = evidence.played
    if played is None or all(played.repeats):
        return None
    where = "the first observation" if not played.repeats[0] else "what follows"
    words = f"two resets with the same seed, and the same actions: {where} differs"
    return Measured(limit, words)


def reset_fixed(evidence: Evidence, limit: float) -> Measured | None:
    """Every episode is the same under the same actions, and the agent does not learn."""
    played = evidence.played
    if played is None or played.varies or evidence.has_learned():
        return None
    return Measured(limit, "every seed gives the same episode under the same actions")
