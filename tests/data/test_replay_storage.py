"""Incremental saving: what a checkpoint names is exactly what comes back, and costs what is new."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux.core.batch import Batch
from worldflux.data.replay import ReplayBuffer
from worldflux.data.replay_storage import SealedFiles, remove_unnamed
from worldflux.errors import CheckpointError

NUM_ENVS, OBS, LATENT = 2, 3, 4


class Stream:
    """A world and a learner that depend on nothing but the step: both can be played again."""

    def __init__(self, capacity: int = 200, seed: int = 0) -> None:
        self.buffer = ReplayBuffer(
            capacity, (OBS,), 1, num_envs=NUM_ENVS, extra_columns={"latent": (LATENT,)}, seed=seed
        )

    def advance(self, steps: int) -> list[str]:
        """Add, sample and write back `steps` times; returns the hash of each batch."""
        return [self._one() for _ in range(steps)]

    def _one(self) -> str:
        step = self.buffer.steps_written
        rng = np.random.default_rng(step)
        first = rng.random(NUM_ENVS) < 0.1
        flags = np.zeros(NUM_ENVS, bool)
        rows = [rng.standard_normal((NUM_ENVS, n)).astype(np.float32) for n in (OBS, 1, LATENT)]
        self.buffer.add(rows[0], rows[1], rows[0][:, 0], first, flags, flags, {"latent": rows[2]})
        if not self.buffer.can_sample(4, within_episode=False):
            return ""
        batch = self.buffer.sample(8, 4, within_episode=False)
        fresh = torch.tanh(batch.extras["latent"] + batch.rewards[..., None])
        self.buffer.write_back(batch.extras["replay_index"], {"latent": fresh[:, 1:]})
        return digest(batch)


def digest(batch: Batch) -> str:
    whole = hashlib.sha256()
    assert isinstance(batch.obs, torch.Tensor)
    for tensor in (batch.obs, batch.actions, batch.rewards, batch.terminations, batch.firsts):
        whole.update(tensor.numpy().tobytes())
    for name in sorted(batch.extras):
        whole.update(batch.extras[name].numpy().tobytes())
    return whole.hexdigest()


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(state)))


def restored(state: dict[str, Any], folder: Path) -> Stream:
    stream = Stream(seed=99)
    SealedFiles(stream.buffer).restore(through_json(state), folder)
    return stream


@pytest.mark.parametrize("seed", range(20))
def test_resumed_after_further_steps_it_goes_on_as_if_never_stopped(
    tmp_path: Path, seed: int
) -> None:
    """Length, cursor and the next ten batches, latents written back included."""
    rng = np.random.default_rng(seed)
    stream = Stream()
    sealed = SealedFiles(stream.buffer)
    for _ in range(int(rng.integers(1, 6))):
        stream.advance(int(rng.integers(3, 60)))
        state = sealed.save(tmp_path)
    named = through_json(state)
    length, cursor = len(stream.buffer), stream.buffer.steps_written
    expected = stream.advance(10)
    stream.advance(int(rng.integers(1, 120)))
    sealed.save(tmp_path)  # newer than the checkpoint: must not be read
    again = restored(named, tmp_path)
    assert (len(again.buffer), again.buffer.steps_written) == (length, cursor)
    assert again.advance(10) == expected


def test_twenty_sigkills_leave_what_the_checkpoint_names(tmp_path: Path) -> None:
    driver = Path(__file__).parent / "replay_kill_driver.py"
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "20"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [trial["equal"] for trial in report] == [True] * 20
    assert sum(trial["killed"] for trial in report) == 20


def test_a_checkpoint_writes_little_more_than_what_is_new(tmp_path: Path) -> None:
    buffer = ReplayBuffer(60_000, (64,), 1)
    rows = np.zeros((20_000, 64), np.float32)
    end = np.zeros(19_999, bool)
    end[-1] = True
    sealed = SealedFiles(buffer)
    sizes = []
    for _ in range(4):  # the fourth overwrites the first
        buffer.add_episode(rows, np.zeros((19_999, 1)), np.zeros(19_999), end)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        state = sealed.save(tmp_path)
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        fresh = [path for path in tmp_path.iterdir() if path not in before]
        sizes.append(sum(path.stat().st_size for path in fresh))
    new_bytes = 20_000 * buffer.size_bytes // buffer.capacity
    assert max(sizes) < 1.02 * new_bytes
    remove_unnamed(tmp_path, [state])
    assert len(list(tmp_path.iterdir())) == 3


def test_written_back_files_stay_within_twice_the_replay(tmp_path: Path) -> None:
    stream = Stream(capacity=100)
    sealed = SealedFiles(stream.buffer)
    for _ in range(40):
        stream.advance(7)
        state = sealed.save(tmp_path)
        assert sum(entry["rows"] for entry in state["written_back"]) <= 2 * len(stream.buffer)
    remove_unnamed(tmp_path, [state])
    names = {entry["file"] for kind in ("chunks", "written_back") for entry in state[kind]}
    assert {path.name for path in tmp_path.iterdir()} == names
    latents = stream.buffer.rows(stream.buffer.oldest_step, stream.buffer.steps_written)
    other = Stream(capacity=100)
    SealedFiles(other.buffer).restore(state, tmp_path)
    again = other.buffer.rows(other.buffer.oldest_step, other.buffer.steps_written)
    assert all(np.array_equal(latents[name], again[name]) for name in latents)


def test_going_on_from_an_older_checkpoint_leaves_the_newer_one_whole(tmp_path: Path) -> None:
    stream = Stream()
    sealed = SealedFiles(stream.buffer)
    stream.advance(20)
    older = sealed.save(tmp_path)
    stream.advance(20)
    newer = sealed.save(tmp_path)
    branch = Stream()
    other = SealedFiles(branch.buffer)
    other.restore(through_json(older), tmp_path)
    zeros, flags = np.zeros((NUM_ENVS, OBS), np.float32), np.zeros(NUM_ENVS, bool)
    for _ in range(20):  # another future, over the same steps
        branch.buffer.add(
            zeros, zeros[:, :1], zeros[:, 0], flags, flags, flags, {"latent": np.zeros((2, 4))}
        )
    other.save(tmp_path)
    assert restored(newer, tmp_path).buffer.steps_written == 40


def test_a_full_disk_leaves_the_save_before_and_the_next_save_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream()
    sealed = SealedFiles(stream.buffer)
    stream.advance(30)
    before = sealed.save(tmp_path)
    stream.advance(30)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("worldflux.data.replay_storage.sync_file", full)
        with pytest.raises(OSError, match="No space"):
            sealed.save(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert restored(before, tmp_path).buffer.steps_written == 30
    after = sealed.save(tmp_path)
    assert restored(after, tmp_path).advance(10) == stream.advance(10)


@pytest.mark.parametrize("kind", ["chunk", "written-back"])
@pytest.mark.parametrize("damage", ["missing", "bit", "symlink"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    stream = Stream()
    sealed = SealedFiles(stream.buffer)
    for _ in range(2):
        stream.advance(30)
        state = sealed.save(tmp_path)
    path = next(tmp_path.glob(f"{kind}-*"))
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "symlink":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"missing|damaged") as caught:
        restored(state, tmp_path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("cursor"),
        lambda state: state["chunks"].pop(),
        lambda state: state["chunks"].reverse(),
        lambda state: state["chunks"][0].update(file="../elsewhere.safetensors"),
        lambda state: state["sampler"].pop("state"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, change: Any) -> None:
    stream = Stream()
    sealed = SealedFiles(stream.buffer)
    for _ in range(2):
        stream.advance(30)
        state = sealed.save(tmp_path)
    broken = through_json(state)
    change(broken)
    with pytest.raises(CheckpointError):
        restored(broken, tmp_path)
