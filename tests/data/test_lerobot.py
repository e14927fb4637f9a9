"""LeRobot data sets and folders of episodes: written here, read, converted, trained on."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from worldflux.data.lerobot import LeRobotDataset
from worldflux.data.offline import replay_of
from worldflux.data.recorded import open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError
from worldflux.project.data_report import convert, report_on
from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project

FPS, SIDE = 10, 64
LENGTHS = (12, 9, 14)
CAMERAS = ("observation.images.front", "observation.images.wrist")
FILES = (0, 0, 1)  # the data and video file of each episode


def shade(camera: str, episode: int, step: int) -> int:
    """The brightness of a frame, by which it is known again."""
    return 20 + 60 * episode + 4 * step + (10 if "wrist" in camera else 0)


def write_video(path: Path, shades: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "1", "g": "5"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for value in shades:
            picture = np.full((SIDE, SIDE, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def png(value: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        picture = np.full((16, 16, 3), value, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return {"bytes": buffer.getvalue(), "path": None}


def numbers(episode: int, **more: Any) -> dict[str, Any]:
    steps = np.arange(LENGTHS[episode])
    rng = np.random.default_rng(episode)
    return {
        "observation.state": list(rng.normal(size=(len(steps), 3)).astype(np.float32)),
        "action": list(rng.uniform(-1, 1, (len(steps), 2)).astype(np.float32)),
        "next.reward": (steps + 100.0 * episode).astype(np.float32),
        "next.done": steps == len(steps) - 1,
        "next.success": (steps == len(steps) - 1) & (episode == 1),
        "timestamp": (steps / FPS).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(steps), episode),
        "index": steps + sum(LENGTHS[:episode]),
        "task_index": np.zeros(len(steps), int),
        **{name: make(len(steps)) for name, make in more.items()},
    }


def feature(dtype: str, *shape: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "names": None}


def info(version: str, **paths: str) -> dict[str, Any]:
    features = {camera: feature("video", SIDE, SIDE, 3) for camera in CAMERAS}
    features |= {"observation.state": feature("float32", 3), "action": feature("float32", 2)}
    features |= {"next.reward": feature("float32", 1), "timestamp": feature("float32", 1)}
    features |= {name: feature("bool", 1) for name in ("next.done", "next.success")}
    features |= {n: feature("int64", 1) for n in ("frame_index", "episode_index", "index")}
    return {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 1000,
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "features": features,
        **paths,
    }


def write_v3(folder: Path, cameras: tuple[str, ...] = CAMERAS, **more: Any) -> Path:
    """Three episodes in two data files and two files of each camera."""
    rows = []
    for file in sorted(set(FILES)):
        episodes = [e for e, own in enumerate(FILES) if own == file]
        parts = [pa.table(numbers(e, **more)) for e in episodes]
        path = folder / f"data/chunk-000/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.concat_tables(parts), path)
        for camera in cameras:
            shades = [shade(camera, e, t) for e in episodes for t in range(LENGTHS[e])]
            write_video(folder / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", shades)
        begins = 0
        for e in episodes:
            row = {"episode_index": e, "length": LENGTHS[e], "tasks": ["push"]}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            for camera in cameras:
                row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": file}
                row[f"videos/{camera}/from_timestamp"] = begins / FPS
                row[f"videos/{camera}/to_timestamp"] = (begins + LENGTHS[e]) / FPS
            rows.append(row)
            begins += LENGTHS[e]
    meta = folder / "meta/episodes/chunk-000/file-000.parquet"
    meta.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), meta)
    described = info(
        "v3.0",
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )
    for camera in set(CAMERAS) - set(cameras):
        del described["features"][camera]
    write_info(folder, described)
    return folder


def write_info(folder: Path, described: dict[str, Any]) -> None:
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/info.json").write_text(json.dumps(described), encoding="utf-8")


def changed_info(folder: Path, **changes: Any) -> None:
    write_info(folder, json.loads((folder / "meta/info.json").read_text()) | changes)


def write_v2(folder: Path) -> Path:
    """The same in a file for each episode."""
    lines = []
    for e, length in enumerate(LENGTHS):
        path = folder / f"data/chunk-000/episode_{e:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(numbers(e)), path)
        for camera in CAMERAS:
            shades = [shade(camera, e, t) for t in range(length)]
            write_video(folder / f"videos/chunk-000/{camera}/episode_{e:06d}.mp4", shades)
        lines.append(json.dumps({"episode_index": e, "length": length, "tasks": ["push"]}))
    described = info(
        "v2.1",
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )
    write_info(folder, described)
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v3(tmp_path_factory.mktemp("lerobot"))


@pytest.mark.parametrize("write", [write_v3, write_v2])
def test_every_row_is_in_its_place(tmp_path: Path, write: Any) -> None:
    buffer = replay_of(open_offline("lerobot", str(write(tmp_path))), ReplayBuffer, 0)
    rows = buffer.rows(0, buffer.steps_written)
    starts = rows["is_first"][:, 0].nonzero()[0].tolist()
    # The second episode ends by itself: its last action is kept. The others were cut off.
    assert np.diff([*starts, len(rows["reward"])]).tolist() == [12, 10, 14]
    assert rows["is_terminal"][:, 0].nonzero()[0].tolist() == [21]
    for e, start in enumerate(starts):
        steps = np.arange(LENGTHS[e])
        own = slice(start, start + len(steps))
        for camera in CAMERAS:
            frames = rows[f"obs/{camera.removeprefix('observation.')}"][own, 0]
            assert frames.shape[1:] == (3, SIDE, SIDE)
            wanted = np.array([shade(camera, e, int(t)) for t in steps])
            assert abs(frames.mean((1, 2, 3)) - wanted).max() < 1.9  # of the video's rounding
        assert np.array_equal(rows["obs/state"][own, 0], numbers(e)["observation.state"])
        kept = LENGTHS[e] - (e != 1)
        assert np.array_equal(rows["action"][own, 0][:kept], numbers(e)["action"][:kept])
        received = rows["reward"][start + 1 : start + kept + 1, 0]
        assert received.tolist() == numbers(e)["next.reward"][:kept].tolist()


def test_images_are_resized_and_may_be_in_the_data_files(tmp_path: Path) -> None:
    write_v3(tmp_path, ())
    described = json.loads((tmp_path / "meta/info.json").read_text())
    described["features"]["observation.image"] = feature("image", 16, 16, 3)
    write_info(tmp_path, described)
    for file in (0, 1):
        path = tmp_path / f"data/chunk-000/file-{file:03d}.parquet"
        table = parquet.read_table(path)
        pictures = [png(int(index)) for index in table["index"].to_pylist()]
        parquet.write_table(table.append_column("observation.image", [pictures]), path)
    found, _ = LeRobotDataset(tmp_path, (8, 8)).columns(None)
    images = found["observations/image"]
    assert images.shape == (35, 8, 8, 3)
    assert images[10:25].mean((1, 2, 3)).tolist() == list(range(10, 25))  # over two episodes


def test_what_ends_mean(tmp_path: Path) -> None:
    write_v3(tmp_path, ())
    features = json.loads((tmp_path / "meta/info.json").read_text())["features"]

    def opened(*dropped: str, **options: Any) -> Any:
        for file in (0, 1):
            path = tmp_path / f"data/chunk-000/file-{file:03d}.parquet"
            table = parquet.read_table(path)
            there = [name for name in dropped if name in table.column_names]
            parquet.write_table(table.drop_columns(there), path)
        kept = {name: entry for name, entry in features.items() if name not in dropped}
        changed_info(tmp_path, features=kept)
        return open_offline("lerobot", str(tmp_path), **options)

    with pytest.raises(ConfigurationError, match="not whether they are true ends"):
        opened("next.success")
    ends = [bool(e.terminations[-1]) for e in opened(dones="terminations").episodes()]
    assert ends == [True] * 3
    data = opened("next.done", "next.reward")
    assert [bool(e.terminations.any()) for e in data.episodes()] == [False] * 3
    assert any("every reward is read as 0" in note for note in data.notes)
    assert any("read as cut off" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "version v1.6"),
        ({"video_path": "../{video_key}.mp4"}, "leads out of the data set"),
        ({"data_path": "data/{nothing}.parquet"}, "data_path is not usable"),
        ({"data_path": "data/{nothing}.parquet"}, r"info\.json: data_path is not usable: 'data/"),
        ({"fps": None}, r"not a LeRobot data set: meta/info\.json is not usable: float"),
        ({"fps": 0}, r"info\.json: fps is 0, expected a number above 0"),
        ({"features": []}, r"not a LeRobot data set: meta/info\.json"),
        ({"features": {"action": {}}}, r"not a LeRobot data set: meta/info\.json has no 'dtype'"),
        ({"total_frames": 99}, r"info\.json: total_frames is 99, and the data files have 35"),
        ({"total_episodes": 1}, r"info\.json: total_episodes is 1, and the data files have 3"),
        ({"fps": 3000}, "has no frame at"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, dataset: Path, changes: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(dataset, tmp_path / "copy")
    changed_info(folder, **changes)
    if changes.get("fps") == 3000:  # frames that are not where the numbers say
        path = folder / "videos" / CAMERAS[0] / "chunk-000/file-000.mp4"
        write_video(path, [50] * 5)
    with pytest.raises(ConfigurationError, match=message):
        open_offline("lerobot", str(folder))


def test_what_is_missing_is_named_with_its_file(tmp_path: Path) -> None:
    folder = write_v3(tmp_path, ())
    described = json.loads((folder / "meta/info.json").read_text())

    def refused() -> str:
        with pytest.raises(ConfigurationError) as caught:
            open_offline("lerobot", str(folder))
        assert "Error(" not in str(caught.value)
        return str(caught.value)

    for key in ("fps", "features", "codebase_version", "data_path"):
        write_info(folder, {name: value for name, value in described.items() if name != key})
        assert f"meta/info.json has no {key!r}" in refused()
    wide = described["features"] | {"action": feature("float32", 4)}
    write_info(folder, described | {"features": wide})
    assert "feature 'action' has the shape [4], and the data files have rows of 2" in refused()
    added = described["features"] | {"observation.top": feature("video", 9, 9, 3)}
    write_info(folder, described | {"features": added})
    assert "meta/episodes has no 'videos/observation.top/chunk_index'" in refused()
    write_info(folder, described)
    data = folder / "data/chunk-000/file-001.parquet"
    parquet.write_table(parquet.read_table(data).drop_columns(["episode_index"]), data)
    data.with_name("file-000.parquet").unlink()
    assert "data/chunk-000/file-000.parquet is missing" in refused()
    for text, said in (("[]", "is a JSON object"), ("{nope", "not a JSON file")):
        (folder / "meta/info.json").write_text(text)
        assert said in refused()


# --------------------------------------------------------------------------- training


def project(root: Path, model: str, source: str, path: Path) -> None:
    sizes = "hidden_dim = 32\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\niterations = 1"
    if not model.startswith("tdmpc2"):
        sizes = "cnn_depth = 4\nimagination_horizon = 2"
    text = f"""
project_name = "robot"
environment = "none"
model = "{model}"
[architecture]
{sizes}
[training]
total_steps = 2
batch_size = 2
sequence_length = 6
device = "cpu"
[data]
source = "{source}"
path = "{path}"
[evaluation]
episodes = 0
[gameplay]
enabled = false
"""
    root.mkdir(parents=True, exist_ok=True)
    (root / "worldflux.toml").write_text(text)


def test_it_trains_and_the_same_data_as_npz_gives_the_same_weights(
    tmp_path: Path, dataset: Path
) -> None:
    """Two cameras and a state, of a model that takes several observations."""
    assert "3 episodes" in str(report_on(str(dataset)))
    convert(str(dataset), tmp_path / "same.npz", None, None)
    weights = []
    for source, path in (("lerobot", dataset), ("npz", tmp_path / "same.npz")):
        root = tmp_path / source
        project(root, "dreamer:ci", source, path)
        manifest = read_manifest(train_project(root, say=lambda _: None).folder)
        assert manifest["global_step"] == 2
        weights.append(manifest["weights_sha256"])
    assert weights[0] == weights[1]
    batches = [
        replay_of(open_offline(*where), ReplayBuffer, 0).sample(8, 5)
        for where in (("lerobot", str(dataset)), ("npz", str(tmp_path / "same.npz")))
    ]
    pairs = zip(batches[0].named_tensors(), batches[1].named_tensors(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_of_several_features_one_can_be_chosen(tmp_path: Path, dataset: Path) -> None:
    project(tmp_path / "run", "tdmpc2:ci", "lerobot", dataset)
    chosen = ["architecture.episodic=true", 'data.features=["state"]']
    manifest = read_manifest(
        train_project(tmp_path / "run", overrides=chosen, say=lambda _: None).folder
    )
    assert manifest["global_step"] == 2
    found = open_offline("lerobot", str(dataset), features=["images.front", "state"])
    assert list(found.observation_space.spaces) == ["images.front", "state"]
    assert any("observation.images.wrist" in note for note in found.notes)
    with pytest.raises(ConfigurationError, match=r"no feature 'observation\.stat'") as refused:
        open_offline("lerobot", str(dataset), features=["stat"])
    assert "'state'" in str(refused.value.hint)


def test_a_model_of_one_observation_trains_on_the_state(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "data", ())
    project(tmp_path / "run", "tdmpc2:ci", "lerobot", folder)
    episodic = ["architecture.episodic=true"]  # the second episode ends by itself
    outcome = train_project(tmp_path / "run", overrides=episodic, say=lambda _: None)
    assert read_manifest(outcome.folder)["global_step"] == 2
