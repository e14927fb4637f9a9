"""Prints the table of what a run survives; `make torture` runs it.

    torture.py                        everything in full
    torture.py --short                a few trials of everything, as the tests run it
    torture.py --only kill --trials 50 --family dreamer
    torture.py --out results.jsonl    rows are appended; sections that ended are not run again

Exit code 0 when every row held. One torch thread; the families' smallest models on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import endurance
import hostile
import mutations
import non_finite
import saves
import seeds
import signals
import surroundings
from kills import Reference, ablations, kill_trial
from projects import FAMILIES, in_parallel, spend_no_time_on_what_cannot_be_lost


@dataclass
class Row:
    """One line of the table: how many of how many held, and details."""

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

    def __init__(
        self, folder: Path, families: list[str], trials: int | None, short: bool, jobs: int
    ) -> None:
        self.folder, self.families, self.trials = folder, families, trials
        self.short, self.jobs = short, jobs
        self._references: dict[str, Reference] = {}

    def count(self, full: int, short: int) -> int:
        """The number of trials: as given, or the full or the short number."""
        return self.trials or (short if self.short else full)

    def reference(self, family: str) -> Reference:
        """The uninterrupted run of a family, once."""
        if family not in self._references:
            self._references[family] = Reference(self.folder, family)
        return self._references[family]

    def place(self, name: str) -> Path:
        """A fresh folder."""
        return Path(tempfile.mkdtemp(prefix=name, dir=self.folder))

    def all_of(self, what: str, count: int, work: Callable[[int, Path], Any]) -> list[Any]:
        """`work(number, fresh folder)` for each number, several at a time, each in a fork."""
        place = self.place("trials")

        def trial(number: int) -> Any:
            folder = place / str(number)
            folder.mkdir()
            try:
                return work(number, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return in_parallel(trial, count, self.jobs, place, what)

    def kill(self) -> Iterator[Row]:
        for family in self.families:
            trials, reference = self.count(50, 1), self.reference(family)
            done = self.all_of(
                f"kill {family}",
                trials,
                lambda seed, place, r=reference: kill_trial(r, place / "project", seed),
            )
            kills = sum(trial["kills"] for trial in done)
            same = sum(trial["same"] and not trial["leftovers"] for trial in done)
            yield Row("kill", f"{family}: identical end", same, trials, f"{kills} SIGKILLs")
            lost = sum(trial["lost"] for trial in done)
            yield Row("kill", f"{family}: lost checkpoints", lost, 0)

    def ablation(self) -> Iterator[Row]:
        for family in self.families:
            seen = ablations(self.reference(family), self.place("ablation"), self.jobs)
            unseen = ", ".join(part for part, held in seen.items() if not held)
            yield Row("ablation", f"{family}: parts", sum(seen.values()), len(seen), unseen)

    def events(self) -> Iterator[Row]:
        found = saves.crash_at_every_event(self.place("events"), self.short, self.jobs)
        for name in found[0]:
            missed = [str(number) for number, held in enumerate(found) if not held[name]]
            held = len(found) - len(missed)
            yield Row("events", f"crash at each: {name}", held, len(found), " ".join(missed))

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

    def clock(self) -> Iterator[Row]:
        for family in self.families[: 1 if self.short else None]:
            place = self.place("clock")
            found = surroundings.clock_put_back(self.reference(family), place)
            yield from (Row("clock", f"{family}: {name}", int(f), 1) for name, f in found.items())

    def readonly(self) -> Iterator[Row]:
        found = surroundings.read_only_folders(self.place("readonly"), self.short)
        yield from (Row("readonly", name, int(held), 1) for name, held in found.items())

    def signals(self) -> Iterator[Row]:
        references = [self.reference(family) for family in self.families]
        for number in (signal.SIGINT, signal.SIGTERM):
            trials = self.count(20, 1)

            def trial(seed: int, place: Path, n: int = number) -> dict[str, Any]:
                reference = references[seed % len(references)]
                return signals.interrupted(reference, place / "project", n, seed)

            done = self.all_of(number.name, trials, trial)
            late = sum(trial["too late"] for trial in done)
            slowest = max(trial["seconds"] for trial in done)
            detail = f"{late} after the end, slowest {slowest:.1f} s"
            for name in ("stopped", "in time", "quiet", "reported", "same"):
                held = sum(bool(trial[name]) for trial in done)
                yield Row("signals", f"{number.name}: {name}", held, trials, detail)
        again = self.all_of(
            "a second signal",
            self.count(20, 1),
            lambda seed, place: signals.second_signal(references[0], place / "project", seed),
        )
        broken = f"{sum(trial['broken off'] for trial in again)} broke the save off"
        same = sum(trial["same"] for trial in again)
        yield Row("signals", "a second one: nothing is lost", same, len(again), broken)

    def nan(self) -> Iterator[Row]:
        cases = non_finite.CASES[:: 7 if self.short else 1]
        results = {case: non_finite.injected(self.place("nan") / "run", *case) for case in cases}
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
        trials = self.all_of(
            "locks",
            self.count(20, 1),
            lambda seed, place: signals.race(place / "project", seed),
        )
        for name in trials[0]:
            yield Row("locks", name, sum(trial[name] for trial in trials), len(trials))

    def hostile(self) -> Iterator[Row]:
        found = hostile.refusals(self.place("hostile"))
        bad = [f"{name}: {v.outcome}" for name, v in found.items() if v.outcome != "refused"]
        slowest = max(found, key=lambda name: found[name].seconds)
        detail = "; ".join(bad) or f"slowest {found[slowest].seconds:.2f} s ({slowest})"
        held = len(found) - len(bad)
        yield Row("hostile", "inputs refused by name, none run", held, len(found), detail)

    def toml(self) -> Iterator[Row]:
        count = self.count(5000, 200)
        found = mutations.mutated_tomls(self.place("toml"), count)
        held = found["refused"] + found["accepted"]
        detail = f"{found['accepted']} still valid, slowest {found['slowest_ms']} ms"
        yield Row("toml", "mutated texts: only configuration errors", held, count, detail)

    def damaged(self) -> Iterator[Row]:
        states = mutations.mutated_states(self.place("states"), self.count(500, 40))
        held = states["states"] - len(states["other"])
        detail = "; ".join(sorted(set(states["other"])))
        what = "changed state.json: only checkpoint errors"
        yield Row("damaged", what, held, states["states"], detail)
        reference = mutations.ended_run(self.place("ended"))
        problems = self.all_of(
            "changed files of a run",
            self.count(120, 3),
            lambda seed, place: mutations.mutated_run_files(reference, place, seed),
        )
        detail = "; ".join(sorted(filter(None, set(problems))))
        what = "changed files of a run: resumed or refused"
        yield Row("damaged", what, problems.count(""), len(problems), detail)

    def memory(self) -> Iterator[Row]:
        families = [f for f in non_finite.FAMILIES if f.partition(":")[0] in self.families]
        count, cycles = (200, 5) if self.short else (20_000, 100)
        count = self.trials or count

        def trial(number: int, place: Path) -> dict[str, Any]:
            family = families[number // 2]
            if number % 2:
                return endurance.cycles(place / "run", family, cycles)
            return endurance.updates(place / "run", family, count)

        grown = self.all_of("memory", 2 * len(families), trial)
        for number, family in enumerate(families):
            long, saved = grown[2 * number], grown[2 * number + 1]
            flat = not (long["files"] or long["threads"] or long["children"])
            held = long["resident"] <= 5 and flat
            yield Row("memory", f"{family}: {count} updates", int(held), 1, str(long))
            held = saved["resident"] <= 20 and not saved["files"]
            yield Row("memory", f"{family}: save and restore", int(held), 1, str(saved))

    def seeds(self) -> Iterator[Row]:
        cases = [(f, seed) for f in self.families for seed in range(1 if self.short else 3)]
        done = self.all_of(
            "seeds", len(cases), lambda number, place: seeds.repeated(place, *cases[number])
        )
        for (family, seed), found in zip(cases, done, strict=True):
            detail = ", ".join(name for name, same in found.items() if not same)
            yield Row("seeds", f"{family} seed {seed}", sum(found.values()), len(found), detail)


SECTIONS = (
    "kill", "ablation", "events", "flips", "disk", "clock", "readonly", "signals",
    "nan", "locks", "hostile", "toml", "damaged", "memory", "seeds",
)  # fmt: skip


def main() -> None:
    """Run the chosen sections and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=SECTIONS, action="append")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time")
    parser.add_argument("--out", type=Path, help="append each row as JSON; continue where it ends")
    given = parser.parse_args()
    torch.set_num_threads(1)
    spend_no_time_on_what_cannot_be_lost()
    folder = Path(tempfile.mkdtemp(prefix="torture"))
    families = given.family or list(FAMILIES)
    torture = Torture(folder, families, given.trials, given.short, given.jobs)
    form = {"families": families, "trials": given.trials, "short": given.short}
    done = _done(given.out, form)
    passed = True
    try:
        for section in given.only or SECTIONS:
            if section in done:
                print(f"     {section}: in {given.out} already", file=sys.stderr)
                passed &= done[section]
            else:
                passed &= _run(section, getattr(torture, section), given.out, form)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if passed else 1)


def _done(out: Path | None, form: dict[str, Any]) -> dict[str, bool]:
    """The sections that ended in this form, as `out` says, and whether all of their rows held."""
    if out is None or not out.is_file():
        return {}
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    ended = [line for line in lines if line.get("form") == form]
    return {line["ended"]: line["passed"] for line in ended}


def _run(
    section: str, rows: Callable[[], Iterator[Row]], out: Path | None, form: dict[str, Any]
) -> bool:
    began, worked, passed = time.monotonic(), _working_s(), True
    try:
        for row in rows():
            passed &= row.passed
            _show(row, time.monotonic() - began, out)
    except Exception as error:  # one broken section must not hide what the others show
        _show(Row(section, f"{type(error).__name__}: {error}", 0, 1), 0.0, out)
        return False
    seconds, worked = time.monotonic() - began, _working_s() - worked
    print(f"     {section}: {seconds:.0f} s, {worked:.0f} s of a processor", file=sys.stderr)
    _append(out, {"ended": section, "passed": passed, "form": form, "worked_s": round(worked, 1)})
    return passed


def _working_s() -> float:
    """Processor time of this process and of its children that ended."""
    return sum(os.times()[:4])


def _show(row: Row, seconds: float, out: Path | None) -> None:
    mark = "ok  " if row.passed else "FAIL"
    print(
        f"{mark} {row.section:9s} {row.what:45s} {row.held:5d}/{row.of:<5d} {seconds:7.1f} s  "
        f"{row.detail}",
        flush=True,
    )
    _append(out, {**asdict(row), "passed": row.passed, "seconds": round(seconds, 1)})


def _append(out: Path | None, line: dict[str, Any]) -> None:
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
