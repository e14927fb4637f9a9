"""A check's result and a run's verdict: pass, warn, fail or not applicable, with the numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .proof import Task

GOOD = ("pass", "proven")
Status = Literal["pass", "warn", "fail", "not_applicable"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked, what was found, and the numbers."""

    name: str
    status: Status
    detail: str
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def unless(
        cls, problems: list[str], name: str, detail: str, numbers: dict[str, Any] | None = None
    ) -> Check:
        """A check that failed with these problems, or passed with this detail and numbers."""
        if problems:
            return cls(name, "fail", "; ".join(problems))
        return cls(name, "pass", detail, numbers or {})


def _plain(words: str, status: str) -> str:
    return words


@dataclass(frozen=True)
class Verdict:
    """Every check of a run, and what follows: a run passes when no check failed.

    `conclusion` is set where a verdict says more than pass or fail; `warnings` are repeated
    wherever the verdict is shown; `tasks` are what a proof compared, for its plots.
    """

    target: str
    mode: str
    checks: list[Check]
    conclusion: str | None = None
    warnings: list[str] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        held = all(check.status != "fail" for check in self.checks)
        return held and self.conclusion in (None, *GOOD)

    @property
    def word(self) -> str:
        return self.conclusion or ("pass" if self.passed else "fail")

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "mode": self.mode,
            "verdict": self.word,
            "checks": [asdict(check) for check in self.checks],
            "warnings": self.warnings,
        }

    def text(self, width: int | None = None, paint: Callable[[str, str], str] = _plain) -> str:
        """One line per check, wrapped to `width` columns; `paint` colours words by a status."""
        names = max(len(check.name) for check in self.checks)
        lines = [f"{self.target} ({self.mode})"]
        for check in self.checks:
            label = "n/a" if check.status == "not_applicable" else check.status.upper()
            shown = f"  {check.name:<{names}}  {paint(f'{label:<4}', check.status)}  "
            lines.append(shown + _wrapped(check.detail, width, names + 10))
        lines += [f"  note: {_wrapped(warning, width, 8)}" for warning in self.warnings]
        lines.append(f"verdict: {paint(self.word.upper(), 'pass' if self.passed else 'fail')}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def _wrapped(words: str, width: int | None, indent: int) -> str:
    """Words that begin in column `indent`, as do their further lines."""
    if width is None:
        return words
    room = max(20, width - indent)
    return f"\n{' ' * indent}".join(textwrap.wrap(words, room, break_long_words=False))
