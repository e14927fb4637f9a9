"""What a check says, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["causes found", "healthy", "too little evidence"]


@dataclass(frozen=True)
class Measured:
    """A check that fires: how many times beyond its threshold, in words, and for its advice."""

    times: float
    words: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A likely cause.

    Attributes:
        cause: its name in docs/why.md.
        score: how many times the number is beyond the threshold.
        sentence: the evidence in words, with its numbers.
        command: one command or setting to try.
    """

    cause: str
    score: float
    sentence: str
    command: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.sentence}\n    try: {self.command}"


@dataclass(frozen=True)
class Diagnosis:
    """The causes of a run, most likely first; `learned` in words, or why that is not known.

    `checked` are the names of the checks that had what they read.
    """

    findings: tuple[Finding, ...]
    learned: bool
    summary: str
    checked: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """A run that learned is healthy whatever else was found."""
        if self.learned:
            return "healthy"
        return "causes found" if self.findings else "too little evidence"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "findings": [vars(finding) for finding in self.findings],
            "checked": list(self.checked),
            "missing": list(self.missing),
        }

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.summary}"]
        lines += [f"{n}. {finding}" for n, finding in enumerate(self.findings, 1)]
        return "\n".join([*lines, *(f"not looked at: {text}" for text in self.missing)])
