"""A what-if session of the dashboard: a separate process that holds a run's environment and model.

One JSON object a line in, one out: {"run": FOLDER} opens a run, {"moment": "NAME/EPISODE:STEP"}
goes there, {"action": NUMBERS or "agent"} takes a step, in reality and in imagination at once. The
process ends with its input, or after `IDLE_S` without any.
"""

from __future__ import annotations

import base64
import io
import json
import os
import select
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from worldflux.core.state import State
from worldflux.errors import (
    CapabilityError,
    ConfigurationError,
    EnvironmentFault,
    EnvironmentSetupError,
    WorldFluxError,
)
from worldflux.evaluation.episodes import RecordedEpisode, cuda_devices
from worldflux.evaluation.imagination import pixels_of
from worldflux.evaluation.open_loop import (
    OBSERVATION,
    can_imagine,
    observed_states,
    predicted_names,
    scaled,
)
from worldflux.evaluation.recordings import read_episodes, recordings
from worldflux.files import finite

from .controls import AGENT
from .open_run import open_run
from .trust import calibration_of
from .what_if import AgentChoice, Moment, Reality, controls, moment_of

IDLE_S = 120.0
MAX_SIDE = 320  # pixels of a rendered frame
MAX_LINES = 6
_MAX_RECORDINGS = 50


class Session:
    """One run with its model, one environment, and the moment from which both continue."""

    def __init__(self, folder: Path) -> None:
        self._run = open_run(folder)
        if not can_imagine(self._run.model):
            raise CapabilityError(f"{type(self._run.model).__name__} cannot imagine")
        self._reality: Reality | None = None
        self._index = 0
        self._choice = AgentChoice(self._run)
        self._state = State()
        self._draws = True

    def describe(self) -> dict[str, Any]:
        """The moments that there are, and what can be done in the environment."""
        found = [
            {"name": name, "steps": [0 if e.seed is None else len(e) for e in read_episodes(path)]}
            for name, path in list(recordings(self._run.folder).items())[:_MAX_RECORDINGS]
        ]
        if not found:
            moment_of(self._run.folder, "0:0")  # says what is missing
        first = moment_of(self._run.folder, _first(found))
        reality = self._reality_of(first)
        trusted = calibration_of(self._run.checkpoint)
        return {
            "recordings": found,
            "environment": reality.envs.spec.env_id,
            "fps": reality.envs.spec.render_fps,
            "trusted": None if trusted is None else trusted.horizon,
            "controls": controls(self._run, reality, first).to_json(),
        }

    def go(self, text: str) -> dict[str, Any]:
        """The moment: from here both continue."""
        moment = moment_of(self._run.folder, text)
        reality = self._reality_of(moment)
        reality.go(moment)
        self._choice.forget()
        episode = reality.episode()
        with torch.random.fork_rng(devices=cuda_devices(self._run.model)), torch.no_grad():
            torch.manual_seed(0)  # as `imagine` predicts
            self._state = observed_states(self._run.model, episode)[-1]
        return self._shown(reality, episode, None)

    def act(self, action: Any) -> dict[str, Any]:
        """One step of both; the same action is taken in reality and in imagination."""
        reality = self._reality
        if reality is None or reality.is_over:
            raise ConfigurationError("the episode is over", hint="go to another moment")
        if action == AGENT:
            row = self._choice.row(reality.episode())
        else:
            row = self._controls.row(action, str(action))
        reality.act(row)
        model = self._run.model
        with torch.no_grad():
            given = torch.from_numpy(row[None]).to(model.device)
            self._state = model.transition(self._state, given, deterministic=True)
        return self._shown(reality, reality.episode(), row)

    def close(self) -> None:
        """End the environment; the next moment has a new one."""
        if self._reality is not None:
            self._reality.envs.close()
        self._reality = None

    def _reality_of(self, moment: Moment) -> Reality:
        """The environment that plays this moment; the last one where it does too."""
        index = moment.episode.index
        if self._reality is None or (self._run.tasks is not None and index != self._index):
            self.close()
            self._reality, self._index = Reality(self._run, index, render=True), index
            self._controls = controls(self._run, self._reality, moment)
        return self._reality

    def _shown(
        self, reality: Reality, episode: RecordedEpisode, row: np.ndarray | None
    ) -> dict[str, Any]:
        with torch.no_grad():
            decoded = self._run.model.decode(self._state).predictions
        names = predicted_names(self._run.model, episode, decoded)
        imagined = {name: decoded[key][0].float().cpu().numpy() for name, key in names.items()}
        true = {OBSERVATION + name: scaled(values[-1]) for name, values in episode.obs.items()}
        true["reward"] = episode.rewards[-1:] if len(episode) else np.zeros(1, np.float32)
        image = next((name for name, values in true.items() if np.ndim(values) == 3), None)
        if image is None:
            frames = [self._drawn(reality), None]
        else:
            pair = (true[image], imagined.get(image))
            frames = [None if part is None else _encoded(pixels_of(part)) for part in pair]
        return {
            "step": len(episode),
            "is_over": reality.is_over,
            "action": None if row is None else [float(number) for number in row],
            "frames": frames,
            "lines": _lines(true, imagined),
        }

    def _drawn(self, reality: Reality) -> str | None:
        """The rendered frame of an environment without images; None once it could not draw."""
        if not self._draws:
            return None
        try:
            return _encoded(reality.envs.render_first())
        except EnvironmentSetupError:
            self._draws = False
            return None


def _first(found: list[dict[str, Any]]) -> str:
    """The first episode that can be played again."""
    for entry in found:
        for number, steps in enumerate(entry["steps"]):
            if steps:
                return f"{entry['name']}/{number}:0"
    raise ConfigurationError("no recorded episode of this run begins with a seed")


def _encoded(frame: np.ndarray) -> str:
    """A frame `[H, W, 3]` as an address that an image takes."""
    image = Image.fromarray(frame)
    kind = "PNG" if max(image.size) <= MAX_SIDE // 2 else "JPEG"
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    with io.BytesIO() as file:
        image.save(file, kind)
        return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _lines(
    true: dict[str, Any], imagined: dict[str, np.ndarray]
) -> dict[str, tuple[float | None, float]]:
    """(true, imagined) of everything that is one number a step, and of the first entries of
    vectors; nobody knows a true value."""
    numbers: dict[str, tuple[float | None, float]] = {}
    entries: dict[str, tuple[float | None, float]] = {}
    for name, values in imagined.items():
        if values.size == 1 and not name.startswith(OBSERVATION):
            real = true.get(name)
            numbers[name] = None if real is None else float(real[0]), float(values.flat[0])
        elif values.ndim == 1:
            key, pairs = name.removeprefix(OBSERVATION), zip(true[name], values, strict=True)
            entries |= {f"{key}[{i}]": (float(a), float(b)) for i, (a, b) in enumerate(pairs)}
    return dict([*numbers.items(), *entries.items()][:MAX_LINES])


def main(output: BinaryIO) -> None:
    """Answer requests from standard input until it ends, or nothing comes for `IDLE_S`."""
    session: Session | None = None
    try:
        while select.select([sys.stdin], [], [], IDLE_S)[0] and (line := sys.stdin.readline()):
            request = json.loads(line)
            try:
                if session is None:
                    session = Session(Path(request["run"]))
                    answer = session.describe()
                elif "moment" in request:
                    answer = session.go(str(request["moment"]))
                else:
                    answer = session.act(request["action"])
            except WorldFluxError as error:
                if session is not None and isinstance(error, EnvironmentFault):
                    session.close()
                answer = {"error": error.message, "hint": error.hint}
            output.write(json.dumps(finite(answer)).encode() + b"\n")
            output.flush()
    finally:
        if session is not None:
            session.close()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an environment prints is no answer
    torch.set_num_threads(1)
    main(answers)
