"""Sessions without a network: deadlines, weights taken over, and a log that repeats exactly."""

from __future__ import annotations

import json
import math
import queue
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import worldflux
from worldflux.acting import raw_form
from worldflux.acting.answer_log import ANSWERS, AnswerLog, replay
from worldflux.acting.deadline import DeadlineAgent
from worldflux.acting.sessions import MAX_SESSIONS, NoSession, Sessions
from worldflux.acting.weights import (
    NewestWeights,
    PublishWeights,
    Weights,
    newest,
    weights_of,
)
from worldflux.errors import CheckpointError, ConfigurationError, EnvironmentFault
from worldflux.files import sha256_of
from worldflux.layout import WEIGHTS_FILE
from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project

NAN = np.full(3, np.nan, np.float32)


def first_weights(agent: worldflux.Agent) -> Weights:
    assert agent.checkpoint is not None
    return weights_of(agent.model, agent.checkpoint)


@pytest.mark.parametrize(("deadline_s", "how"), [(0.0, "prior"), (math.inf, "plan")])
def test_an_agent_with_a_deadline_acts_by_the_prior_or_the_whole_plan(
    projects: dict[str, Path], deadline_s: float, how: str
) -> None:
    agent = worldflux.load_agent(projects["pendulum"])
    acting = DeadlineAgent(worldflux.load_agent(projects["pendulum"]), deadline_s)
    for observation in np.eye(3, dtype=np.float32):
        answer = acting.act(observation)
        assert (answer.how, answer.iterations == answer.of) == (how, how == "plan")
        np.testing.assert_array_equal(answer.action, agent.act(observation, policy=how))


def test_time_is_shared_and_what_does_not_fit_is_not_begun(projects: dict[str, Path]) -> None:
    acting = DeadlineAgent(worldflux.load_agent(projects["pendulum"]), math.inf)
    observation = np.zeros(3, np.float32)
    assert acting.act(observation).iterations == 6
    acting.deadline_s = 60.0
    assert acting.act(observation).iterations == 6
    assert acting.act(observation, share=lambda: 0.0).how == "prior"
    assert acting.act(observation, since=time.monotonic() - 60.0).how == "prior"


def test_a_log_repeats_exactly_whatever_was_left_out(
    projects: dict[str, Path], tmp_path: Path
) -> None:
    """Two sessions, plans cut off, an episode's end, other weights in between."""
    agent, warnings = worldflux.load_agent(projects["pendulum"], checkpoint="1"), []
    log = AnswerLog(tmp_path / "log", 3, warnings.append)
    first = first_weights(agent)
    sessions = Sessions(agent, first, deadline_s=math.inf, seed=3, log=log)
    log.keep(first)
    later = worldflux.load_agent(projects["pendulum"], checkpoint="2")
    rng, names = np.random.default_rng(0), [None, None]
    for step in range(12):
        sessions.deadline_s = 0.0 if step % 3 == 1 else math.inf
        if step == 6:
            sessions.take(first_weights(later))
        observation = rng.uniform(-1, 1, 3).astype(np.float32)
        with pytest.raises(EnvironmentFault):
            sessions.answer(names[0], NAN, False, time.monotonic())
        name, answer, used = sessions.answer(
            names[step % 2], observation, step == 9, time.monotonic()
        )
        names[step % 2] = name
        assert used.update == (2 if step >= 6 else 1)
        assert answer.how == ("prior" if step % 3 == 1 else "plan")
    log.close()
    assert (sessions.answers, len(sessions), warnings) == (12, 2, [])
    found = replay(worldflux.load_agent(projects["pendulum"]), tmp_path / "log")
    assert (found.answers, found.sessions, found.different) == (12, 2, [])
    with pytest.raises(ConfigurationError, match="already holds a log"):
        AnswerLog(tmp_path / "log", 0, warnings.append)
    _differences_are_found(projects["pendulum"], tmp_path / "log")


def _differences_are_found(run: Path, folder: Path) -> None:
    lines = (folder / ANSWERS).read_text().splitlines()
    row = json.loads(lines[4])
    lines[4] = json.dumps({**row, "action": "AAAAAA=="})
    (folder / ANSWERS).write_text("\n".join([*lines, ""]))
    assert replay(worldflux.load_agent(run), folder).different == [4]
    (folder / f"{row['weights']}.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not those of the log"):
        replay(worldflux.load_agent(run), folder)
    with pytest.raises(ConfigurationError, match="no log of answers"):
        replay(worldflux.load_agent(run), folder.parent)


def test_a_session_ends_when_nobody_asks_and_makes_room(projects: dict[str, Path]) -> None:
    agent = worldflux.load_agent(projects["cartpole"])
    sessions = Sessions(agent, first_weights(agent), deadline_s=1.0, idle_s=0.05)
    observation = np.zeros(4, np.float32)

    def ask(name: str | None) -> str:
        return sessions.answer(name, observation, False, time.monotonic())[0]

    name = ask(None)
    assert ask(name) == name
    time.sleep(0.06)
    with pytest.raises(NoSession, match="it ended after"):
        ask(name)
    sessions.idle_s = 60.0
    for _ in range(MAX_SESSIONS):
        ask(None)
    with pytest.raises(NoSession, match="256 sessions"):
        ask(None)
    sessions.idle_s = 0.0
    assert ask(None)
    assert len(sessions) == 1


def test_named_observations_and_several_actions_travel_in_both_forms(
    projects: dict[str, Path], tmp_path: Path
) -> None:
    """And a model that does not plan says so, whatever the deadline."""
    agent = worldflux.load_agent(projects["walker"])
    space, log = agent.observation_space, AnswerLog(tmp_path, 0, print)
    log.keep(first_weights(agent))
    sessions = Sessions(agent, first_weights(agent), deadline_s=0.0, log=log)
    same, name = worldflux.load_agent(projects["walker"]), None
    space.seed(0)
    for _ in range(4):
        observation = space.sample()
        listed = json.loads(json.dumps({k: raw_form.to_json(v) for k, v in observation.items()}))
        for given in (
            raw_form.from_json(space, listed),
            raw_form.from_bytes(space, raw_form.to_bytes(space, observation)),
        ):
            name, answer, _ = sessions.answer(name, given, False, time.monotonic())
            assert (answer.how, answer.iterations, answer.of) == ("policy", 0, 0)
            np.testing.assert_array_equal(answer.action, same.act(observation))
    log.close()
    assert replay(worldflux.load_agent(projects["walker"]), tmp_path).different == []
    for wrong in ({}, {**listed, "camera": [[1]]}, {**listed, "mode": 1.5}, {**listed, "mode": 9}):
        with pytest.raises(EnvironmentFault):
            sessions.answer(name, raw_form.from_json(space, wrong), False, time.monotonic())


def test_a_learner_publishes_and_damaged_weights_are_left_out(
    projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.acting.weights.PUBLISH_S", 0.0)
    root, server = tmp_path / "project", subprocess.Popen([sys.executable, "-c", "exit(5)"])
    shutil.copytree(projects["pendulum"], root, ignore=shutil.ignore_patterns("outputs"))
    server.wait()
    run = root / "outputs"
    train_project(root, callbacks=[PublishWeights(run, server)], say=lambda line: None)
    warnings = read_manifest(run)["warnings"]
    assert warnings == ["serve_ended: exit code 5; training continues"]
    folder = newest(run)
    assert folder == run / "published" / "step-000000002"
    assert sha256_of(folder / WEIGHTS_FILE) == read_manifest(run)["weights_sha256"]

    agent, taken, said = worldflux.load_agent(run, checkpoint="1"), queue.SimpleQueue(), []
    good = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    reader = NewestWeights(run, first_weights(agent), taken.put, said.append)
    reader.start()
    until = time.monotonic() + 30
    while not said and time.monotonic() < until:
        time.sleep(0.02)
    (folder / WEIGHTS_FILE).write_bytes(good)
    used = taken.get(timeout=30)
    reader.stop()
    assert (used.update, len(said)) == (2, 1)
    assert "damaged" in said[0]
    assert used.model is not agent.model
