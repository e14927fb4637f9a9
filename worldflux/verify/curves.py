"""Published learning curves, those that worldflux carries and a user's own; see docs/verify.md.

A file has one source and its curves: mean and deviation over seeds at numbers of frames.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from worldflux.errors import ConfigurationError
from worldflux.files import read_json_object

_MAX_BYTES = 16 << 20
_Text = Annotated[str, Field(pattern=r"\S")]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def canonical_environment(env_id: str) -> str:
    """One name for the ids that mean the same task: dm_control's papers say cup for ball_in_cup."""
    prefix = "dm_control/cup-"
    if env_id.startswith(prefix):
        return "dm_control/ball_in_cup-" + env_id.removeprefix(prefix)
    return env_id


class Source(BaseModel, frozen=True):
    """Who published what, how it was measured, and what to know before comparing with it.

    `window` is the width, in frames, of the average over training episodes (None: evaluations are
    taken as they are); `agent_steps_per_episode` None: not fixed; `sticky_actions` None: there is
    no such thing outside Atari.
    """

    id: _Text
    algorithm: _Text
    family: _Text
    suite: _Text
    observation: Literal["state", "pixels"]
    frames_per_agent_step: _Count
    agent_steps_per_episode: _Count | None = None
    evaluation: Literal["evaluation episodes", "training episodes"]
    window: _Count | None = None
    protocol: _Text
    source: _Text
    licence: _Text
    warnings: tuple[str, ...] = ()
    sticky_actions: Annotated[bool, Field(strict=True)] | None = None


class Curve(BaseModel, frozen=True):
    """One task of a source: returns over environment frames."""

    source: Source
    task: _Text
    environment: Annotated[_Text, AfterValidator(canonical_environment)]
    seeds: _Count
    steps: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = Field(min_length=1)
    mean: tuple[_Number, ...]
    sd: tuple[Annotated[_Number, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _columns_fit(self) -> Curve:
        if not len(self.steps) == len(self.mean) == len(self.sd):
            raise ValueError("steps, mean and sd must be of one length")
        if sorted(set(self.steps)) != list(self.steps):
            raise ValueError("steps must grow")
        return self


class _File(Source, frozen=True):
    format: Literal[1]
    curves: tuple[dict[str, Any], ...] = Field(min_length=1)


def built_in_curves() -> list[Curve]:
    """The curves that worldflux carries."""
    folder = resources.files("worldflux.verify") / "published"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return [
        curve
        for file in files
        if file.name.endswith(".json")
        for curve in _parse(json.loads(file.read_text(encoding="utf-8")), file.name)
    ]


def steps_to_learn(env_id: str, model: str) -> float | None:
    """Environment frames by which a published mean return is at 90 % of its best, or None.

    Of several curves of the task, the fastest of the family that the model's id begins with.
    """
    family, task = model.partition(":")[0].removesuffix("v3"), canonical_environment(env_id)
    found = []
    for curve in built_in_curves():
        if curve.environment == task and curve.source.family.startswith(family):
            most = max(curve.mean)
            reached = [s for s, m in zip(curve.steps, curve.mean, strict=True) if m >= 0.9 * most]
            found.append(float(reached[0]))
    return min(found, default=None)


def read_curves(path: Path) -> list[Curve]:
    """The curves of a reference file in the same format."""
    content = read_json_object(path, "reference file of learning curves", _MAX_BYTES)
    return _parse(content, str(path))


def _parse(content: dict[str, Any], where: str) -> list[Curve]:
    place = where
    try:
        file = _File.model_validate(content)
        source = Source.model_validate(content)
        found = []
        for index, entry in enumerate(file.curves):
            place = f"{where}: curves[{index}]"
            found.append(Curve.model_validate({**entry, "source": source}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"{field}: {message}" if field else message,
            where=place,
            hint="docs/verify.md shows the format",
        ) from None
    return found
