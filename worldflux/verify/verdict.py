"""A check's result and a run's verdict: pass, warn, fail or not applicable, with the numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "not_applicable"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, what was found, and the numbers behind it."""

    name: str
    status: Status
    detail: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Every check of a run; the run passes when none failed."""

    target: str
    mode: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values."""
        return {
            "target": self.target,
            "mode": self.mode,
            "verdict": "pass" if self.passed else "fail",
            "checks": [asdict(check) for check in self.checks],
        }

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"{self.target} ({self.mode})"]
        for check in self.checks:
            label = check.status.replace("_", " ").upper()
            lines.append(f"  {check.name:<{width}}  {label:<14}  {check.detail}")
        lines.append(f"verdict: {'PASS' if self.passed else 'FAIL'}")
        return "\n".join(lines)
