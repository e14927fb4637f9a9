"""LeRobot data sets, versions 3.0 and 2.1, as columns of steps (huggingface.co/docs/lerobot).

`meta/info.json` names the features, and where numbers (parquet) and frames (mp4) are. One file has
the rows of many episodes in version 3.0, and of one in 2.1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.envs.wrappers import AreaResizer
from worldflux.errors import ConfigurationError
from worldflux.files import read_json_object
from worldflux.optional import require

from .episode_files import EpisodeColumn
from .recorded_columns import shown

INFO = "meta/info.json"
_MAX_INFO_BYTES = 64 << 20
_OBSERVATION, _ACTION = "observation.", "action"
_REWARD, _DONE, _SUCCESS = "next.reward", "next.done", "next.success"
# Of LeRobot's own bookkeeping, which nobody learns from.
_INDICES = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


@dataclass(frozen=True)
class _Episode:
    """An episode's rows, its data file, and by camera its video file and second there."""

    length: int
    data: Path
    videos: dict[str, tuple[Path, float]]


class LeRobotDataset:
    """A data set's features and its numbers; frames are decoded one episode at a time.

    Args:
        image_size: (height, width) that images are resized to, by area.
        features: observations to read, without "observation."; by default all.

    Raises:
        ConfigurationError: for what is no such data set, or not whole.
    """

    def __init__(
        self,
        folder: Path,
        image_size: tuple[int, int] | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        require("a LeRobot data set", "lerobot", "pyarrow", "av")
        self.folder, self._size = folder, image_size
        self._info = read_json_object(folder / INFO, "description of a data set", _MAX_INFO_BYTES)
        try:
            version = str(self._info["codebase_version"])
            self._features = {name: dict(e) for name, e in self._info["features"].items()}
            kinds = {name: str(entry["dtype"]) for name, entry in self._features.items()}
            self._fps = float(self._info["fps"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._error(f"not a LeRobot data set: {INFO} {_reason(error)}") from None
        if not 0 < self._fps < np.inf:
            raise self._error(f"{INFO}: fps is {self._fps:g}, expected a number above 0")
        if not version.startswith(("v3.", "v2.1")):
            raise self._error(
                f"a LeRobot data set of version {version}; worldflux reads v3.0 and v2.1",
                "convert it with LeRobot's own scripts",
            )
        observed = [name for name in kinds if name.startswith(_OBSERVATION)]
        self._observed = self._chosen(observed, features)
        self._cameras = [name for name in self._observed if kinds[name] == "video"]
        self._episodes = self._of_v3() if version.startswith("v3.") else self._of_v2()
        self._numbers = self._table()

    @property
    def lengths(self) -> list[int]:
        return [episode.length for episode in self._episodes]

    def columns(self, dones: str | None) -> tuple[dict[str, Any], list[str]]:
        """Columns by the names of a file of steps, and notes on what was not recorded.

        Every episode ends with its last row. `next.success` says which of them end by themselves;
        `next.done` does not, so that `dones` (`[data] dones`) has to; without either they were cut
        off.
        """
        numbers, lengths = self._numbers, self.lengths
        last = np.zeros(sum(lengths), bool)
        last[np.cumsum(lengths) - 1] = True
        found: dict[str, Any] = {}
        for name in self._observed:
            part = name.removeprefix(_OBSERVATION)
            if self._features[name]["dtype"] in ("video", "image"):
                found[f"observations/{part}"] = self._images(name)
            elif name in numbers:
                found[f"observations/{part}"] = self._rows(name)
        if _ACTION in numbers:
            found["actions"] = self._rows(_ACTION)
        notes, read = [], {*self._observed, _ACTION, _REWARD, _DONE, _SUCCESS, *_INDICES}
        found["rewards"] = np.zeros(len(last), np.float32)
        if _REWARD in numbers:
            found["rewards"] = self._rows(_REWARD)
        else:
            notes.append(f"no {_REWARD}: every reward is read as 0")
        if _SUCCESS in numbers:
            found["terminals"] = last & (np.ravel(self._rows(_SUCCESS)) > 0)
            found["timeouts"] = last & ~found["terminals"]
            notes.append(f"true ends are read from {_SUCCESS}")
        elif _DONE in numbers or dones not in (None, "open"):
            found["dones"] = last
        else:
            found["terminals"], found["timeouts"] = np.zeros_like(last), last
            notes.append(f"no {_DONE}: every episode is read as cut off")
        unread = [name for name in self._features if name not in read]
        if unread:
            notes.append(f"not read: {shown(unread)}")
        return found, notes

    # ------------------------------------------------------------------ files

    def _chosen(self, observed: list[str], features: Sequence[str] | None) -> list[str]:
        """The observations that are read, of all that there are."""
        if features is None:
            return observed
        wanted = [_OBSERVATION + name for name in features]
        missing = [name for name in wanted if name not in observed]
        if missing:
            there = [name.removeprefix(_OBSERVATION) for name in observed]
            raise self._error(f"there is no feature {missing[0]!r}", f"data.features = {there}")
        return wanted

    def _of_v3(self) -> list[_Episode]:
        """The episodes of `meta/episodes`, in order."""
        files = sorted((self.folder / "meta" / "episodes").rglob("*.parquet"))
        if not files:
            raise self._error("meta/episodes has no parquet file")
        rows = [row for file in files for row in self._parquet(file).to_pylist()]
        try:
            rows.sort(key=lambda row: row["episode_index"])
            return [
                _Episode(
                    int(row["length"]),
                    self._path("data_path", row, "data"),
                    {
                        camera: (
                            self._path("video_path", row, f"videos/{camera}", video_key=camera),
                            float(row[f"videos/{camera}/from_timestamp"]),
                        )
                        for camera in self._cameras
                    },
                )
                for row in rows
            ]
        except ConfigurationError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(f"meta/episodes {_reason(error)}") from None

    def _of_v2(self) -> list[_Episode]:
        try:
            lines = (self.folder / "meta/episodes.jsonl").read_text(encoding="utf-8").splitlines()
            episodes = []
            for row in map(json.loads, filter(None, lines)):
                number = int(row["episode_index"])
                names = {
                    "episode_index": number,
                    "episode_chunk": number // int(self._info["chunks_size"]),
                }
                videos = {
                    camera: (self._inside("video_path", video_key=camera, **names), 0.0)
                    for camera in self._cameras
                }
                data = self._inside("data_path", **names)
                episodes.append(_Episode(int(row["length"]), data, videos))
            return episodes
        except ConfigurationError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise self._error(f"meta/episodes.jsonl {_reason(error)}") from None

    def _path(self, name: str, row: dict[str, Any], group: str, **names: str) -> Path:
        chunk, file = int(row[f"{group}/chunk_index"]), int(row[f"{group}/file_index"])
        return self._inside(name, chunk_index=chunk, file_index=file, **names)

    def _inside(self, name: str, **names: Any) -> Path:
        """A file by a pattern of info.json, which may not leave the data set's folder."""
        if name not in self._info:
            raise self._error(f"{INFO} has no {name!r}")
        pattern = str(self._info[name])
        try:
            path = (self.folder / pattern.format(**names)).resolve()
        except (KeyError, ValueError, IndexError, AttributeError):
            raise self._error(
                f"{INFO}: {name} is not usable: {pattern!r}",
                f"it may have the places {', '.join(f'{{{each}}}' for each in names)}",
            ) from None
        if not path.is_relative_to(self.folder.resolve()):
            raise self._error(f"{INFO}: {name} leads out of the data set: {path}")
        return path

    def _parquet(self, path: Path) -> Any:
        import pyarrow
        from pyarrow import parquet

        bases = [b for b in (self.folder, self.folder.resolve()) if path.is_relative_to(b)]
        place = path.relative_to(bases[0]) if bases else path
        if not path.is_file():
            raise self._error(f"{place} is missing")
        try:
            return parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise self._error(f"{place} is not readable: {error}") from None

    def _table(self) -> dict[str, Any]:
        """The columns of all data files, end to end, checked against the episodes."""
        import pyarrow

        files = dict.fromkeys(episode.data for episode in self._episodes)
        tables = [self._parquet(file) for file in files]
        if not tables:
            raise self._error("there is no episode")
        try:
            table = pyarrow.concat_tables(tables)
            owners = table["episode_index"].to_numpy()
        except KeyError:
            raise self._error("the data files have no column 'episode_index'") from None
        except pyarrow.ArrowException as error:
            raise self._error(f"the data files do not fit together: {error}") from None
        changes = np.flatnonzero(np.diff(owners)) + 1
        if np.diff(changes, prepend=0, append=len(owners)).tolist() != self.lengths:
            raise self._error(
                f"{len(owners):,} rows in the data files, not the {sum(self.lengths):,} of "
                f"{len(self._episodes):,} episodes in order"
            )
        for key, found in (("total_frames", len(owners)), ("total_episodes", len(self._episodes))):
            if self._info.get(key, found) != found:
                raise self._error(
                    f"{INFO}: {key} is {self._info[key]}, and the data files have {found:,}",
                    "get the data set again: it is not whole; or correct the number",
                )
        return {name: table[name] for name in table.column_names}

    def _rows(self, name: str) -> np.ndarray:
        """A feature's numbers `[N, ...]`."""
        column, declared = self._numbers[name], self._features[name].get("shape")
        if column.null_count:
            empty = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise self._error(f"feature {name!r} has no value in row {empty}")
        values = column.to_numpy()
        if values.dtype == object:
            try:
                values = np.stack([np.asarray(row.tolist()) for row in values])
                values = values.astype(self._features[name]["dtype"])
            except (AttributeError, TypeError, ValueError) as error:
                raise self._error(f"feature {name!r} holds no rows of numbers: {error}") from None
        if isinstance(declared, list) and np.prod(declared) != np.prod(values.shape[1:]):
            raise self._error(
                f"{INFO}: feature {name!r} has the shape {declared}, and the data files have rows "
                f"of {int(np.prod(values.shape[1:]))}",
                "get the data set again, or correct the shape",
            )
        return np.asarray(values)

    # ------------------------------------------------------------------ images

    def _images(self, name: str) -> EpisodeColumn:
        def read(number: int) -> np.ndarray:
            is_video = name in self._cameras
            frames = self._video(name, number) if is_video else self._pictures(name, number)
            if self._size is None:
                return frames
            resize = AreaResizer(frames.shape[1:3], self._size)
            return np.stack([resize(frame) for frame in frames])

        first = read(0)
        return EpisodeColumn(self.lengths, first.shape[1:], np.uint8, read)

    def _video(self, name: str, number: int) -> np.ndarray:
        """An episode's frames `[T, H, W, 3]`: of each step the one of its time."""
        import av

        episode = self._episodes[number]
        path, begins = episode.videos[name]
        start = sum(self.lengths[:number])
        times = self._numbers["timestamp"].slice(start, episode.length).to_numpy() + begins
        slack = 0.5 / self._fps
        frames: list[np.ndarray] = []
        try:
            with av.open(str(path), "r") as container:
                stream = container.streams.video[0]
                assert stream.time_base is not None
                container.seek(int(max(0.0, begins - slack) / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    if len(frames) == len(times):
                        break
                    if frame.time is not None and abs(frame.time - times[len(frames)]) < slack:
                        frames.append(frame.to_ndarray(format="rgb24"))
        except (OSError, ValueError, IndexError, av.FFmpegError) as error:
            raise self._error(f"{path.name} is not readable: {error}") from None
        if len(frames) < len(times):
            raise self._error(
                f"{path.name} has no frame at {times[len(frames)]:.3f} s, of step {len(frames)} of "
                f"episode {number}"
            )
        return np.stack(frames)

    def _pictures(self, name: str, number: int) -> np.ndarray:
        """An episode's images `[T, H, W, 3]`, which are in the data files as PNG or JPEG."""
        import av

        start, length = sum(self.lengths[:number]), self._episodes[number].length
        frames: list[np.ndarray] = []
        for picture in self._numbers[name].slice(start, length).to_pylist():
            try:
                with av.open(io.BytesIO(picture["bytes"]), "r") as container:
                    frames.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
            except (KeyError, TypeError, StopIteration, OSError, av.FFmpegError) as error:
                message = (
                    f"feature {name!r}: image {len(frames)} of episode {number} {_reason(error)}"
                )
                raise self._error(message) from None
        return np.stack(frames)

    def _error(self, message: str, hint: str | None = None) -> ConfigurationError:
        return ConfigurationError(message, where=str(self.folder), hint=hint)


def _reason(error: Exception) -> str:
    """What is wrong, in words that follow the name of a file."""
    if isinstance(error, KeyError):
        return f"has no {error.args[0]!r}"
    return f"is not usable: {error}"
