"""Prints the table of what a run survives (issue 7); `make torture` runs it.

    torture.py                        everything in full; hours on a small machine
    torture.py --short                a few trials of everything, as the tests run it
    torture.py --only kill --trials 50 --family dreamer
    torture.py --only memory --out results.jsonl     rows are appended, so that sections add up

Exit code 0 when every row held. One torch thread; the families' smallest models on the CPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import endurance
import hostile
import non_finite
import saves
import seeds
import signals
from kills import Reference, ablations, kill_trial
from projects import FAMILIES


@dataclass
class Row:
    """One line of the table: how many of how many held, and what was seen besides."""

    section: str
    what: str
    held: int
    of: int
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether all held."""
        return self.held == self.of


class Torture:
    """The sections; each yields its rows as they are done."""

    def __init__(self, folder: Path, families: list[str], trials: int | None, short: bool) -> None:
        self.folder, self.families, self.trials, self.short = folder, families, trials, short
        self._references: dict[str, Reference] = {}

    def count(self, full: int, short: int) -> int:
        """Trials: as asked, or the full or the short number."""
        return self.trials or (short if self.short else full)

    def reference(self, family: str) -> Reference:
        """The uninterrupted run of a family, once."""
        if family not in self._references:
            self._references[family] = Reference(self.folder, family)
        return self._references[family]

    def place(self, name: str) -> Path:
        """A fresh folder."""
        return Path(tempfile.mkdtemp(prefix=name, dir=self.folder))

    def kill(self) -> Iterator[Row]:
        for family in self.families:
            trials = self.count(50, 1)
            done = []
            for seed in range(trials):
                root = self.place("kill") / "project"
                done.append(kill_trial(self.reference(family), root, seed))
                shutil.rmtree(root.parent)
            kills = sum(trial["kills"] for trial in done)
            same = sum(trial["same"] and not trial["leftovers"] for trial in done)
            yield Row("kill", f"{family}: identical end", same, trials, f"{kills} SIGKILLs")
            lost = sum(trial["lost"] for trial in done)
            yield Row("kill", f"{family}: lost checkpoints", lost, 0)

    def ablation(self) -> Iterator[Row]:
        for family in self.families:
            seen = ablations(self.reference(family), self.place("ablation"))
            unseen = ", ".join(part for part, held in seen.items() if not held)
            yield Row("ablation", f"{family}: parts", sum(seen.values()), len(seen), unseen)

    def events(self) -> Iterator[Row]:
        found = saves.crash_at_every_event(self.place("events"), self.short)
        yield Row("events", "crash at every event of a save", found["valid"], found["events"])

    def flips(self) -> Iterator[Row]:
        found = saves.bit_flips(self.place("flips"), self.count(1000, 50))
        yield Row("flips", "refused by file name", found["named"], found["flips"])
        yield Row("flips", "the one before used", found["fell_back"], found["flips"])

    def disk(self) -> Iterator[Row]:
        for place, held in saves.disk_full(self.place("disk"), self.short).items():
            yield Row("disk", f"full at: {place}", int(held), 1)
        held = saves.metrics_full(self.place("metrics"))
        yield Row("disk", "full at: metrics", int(held), 1)
        mounted = saves.tmpfs_full(self.place("tmpfs"))
        if mounted is not None:
            yield Row("disk", "a small tmpfs fills up", int(mounted), 1)

    def signals(self) -> Iterator[Row]:
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            trials = [
                signals.interrupted(
                    self.reference(family), self.place("signal") / "project", number, seed
                )
                for seed in range(self.count(20, 1))
                for family in self.families[seed % len(self.families) :][:1]
            ]
            late = f"{sum(trial['too late'] for trial in trials)} after the end"
            for name in ("stopped", "in time", "quiet", "told", "same"):
                held = sum(bool(trial[name]) for trial in trials)
                yield Row("signals", f"{number.name}: {name}", held, len(trials), late)
        again = [
            signals.second_signal(
                self.reference(self.families[0]), self.place("twice") / "project", seed
            )
            for seed in range(self.count(20, 1))
        ]
        yield Row("signals", "a second one: nothing is lost", sum(again), len(again))

    def nan(self) -> Iterator[Row]:
        cases = non_finite.CASES
        results = {
            case: non_finite.injected(self.place("nan") / "run", *case)
            for case in (cases[:: 7 if self.short else 1])
        }
        names = ("stopped", "unchanged", "named", "kept", "last good", "checkpoints finite")
        for name in names:
            missed = [str(case) for case, found in results.items() if not found.get(name)]
            held = len(results) - len(missed)
            yield Row("nan", name, held, len(results), "; ".join(missed))
        later = non_finite.injected(
            self.place("nan") / "run", "tdmpc2:ci", "gradient", float("nan"), phase=1
        )
        yield Row("nan", "in the second phase: the first is undone", sum(later.values()), 6)
        back = [non_finite.rolled_back(self.place("back"), f) for f in non_finite.FAMILIES]
        yield Row("nan", "rolled back with half the rate", sum(back), len(back))

    def locks(self) -> Iterator[Row]:
        trials = [
            signals.race(self.place("race") / "project", seed) for seed in range(self.count(20, 1))
        ]
        for name in trials[0]:
            yield Row("locks", name, sum(trial[name] for trial in trials), len(trials))

    def hostile(self) -> Iterator[Row]:
        found = hostile.refusals(self.place("hostile"))
        bad = [f"{name}: {v.told}" for name, v in found.items() if v.told != "refused"]
        slowest = max(found, key=lambda name: found[name].seconds)
        detail = "; ".join(bad) or f"slowest {found[slowest].seconds:.2f} s ({slowest})"
        held = len(found) - len(bad)
        yield Row("hostile", "inputs refused by name, none run", held, len(found), detail)

    def toml(self) -> Iterator[Row]:
        count = self.count(5000, 200)
        found = hostile.mutated_tomls(self.place("toml"), count)
        told = found["refused"] + found["accepted"]
        detail = f"{found['accepted']} still valid, slowest {found['slowest_ms']} ms"
        yield Row("toml", "mutated texts: only configuration errors", told, count, detail)

    def memory(self) -> Iterator[Row]:
        for family in non_finite.FAMILIES:
            if family.partition(":")[0] not in self.families:
                continue
            count = self.count(20_000, 200)
            grown = endurance.updates(self.place("memory"), family, count)
            flat = not (grown["files"] or grown["threads"] or grown["children"])
            held = grown["resident"] <= 5 and flat
            yield Row("memory", f"{family}: {count} updates", int(held), 1, str(grown))
            saved = endurance.cycles(self.place("cycles"), family, 5 if self.short else 100)
            held = saved["resident"] <= 20 and not saved["files"]
            yield Row("memory", f"{family}: save and restore", int(held), 1, str(saved))

    def seeds(self) -> Iterator[Row]:
        for family in self.families:
            for seed in range(1 if self.short else 3):
                found = seeds.repeated(self.place("seeds"), family, seed)
                detail = ", ".join(name for name, same in found.items() if not same)
                yield Row("seeds", f"{family} seed {seed}", sum(found.values()), len(found), detail)


SECTIONS = (
    "kill", "ablation", "events", "flips", "disk", "signals", "nan", "locks", "hostile", "toml",
    "memory", "seeds",
)  # fmt: skip


def main() -> None:
    """Run the sections asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=SECTIONS, action="append")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path, help="append each row as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="torture"))
    torture = Torture(folder, given.family or list(FAMILIES), given.trials, given.short)
    passed = True
    try:
        for section in given.only or SECTIONS:
            passed &= _run(section, getattr(torture, section), given.out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if passed else 1)


def _run(section: str, rows: Callable[[], Iterator[Row]], out: Path | None) -> bool:
    began, passed = time.monotonic(), True
    try:
        for row in rows():
            passed &= row.passed
            _show(row, time.monotonic() - began, out)
    except Exception as error:  # one broken section must not hide what the others show
        row = Row(section, f"{type(error).__name__}: {error}", 0, 1)
        passed = False
        _show(row, time.monotonic() - began, out)
    return passed


def _show(row: Row, seconds: float, out: Path | None) -> None:
    mark = "ok  " if row.passed else "FAIL"
    print(
        f"{mark} {row.section:9s} {row.what:45s} {row.held:5d}/{row.of:<5d} {seconds:7.1f} s  "
        f"{row.detail}",
        flush=True,
    )
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(row), "passed": row.passed, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
