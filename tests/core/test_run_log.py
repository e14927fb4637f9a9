"""Reading logs that grow, tear, are cut and are replaced."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.run_log import Mark, read_chunk, sample_rows


def read(folder: Path, mark: Mark, limit: int = 1 << 20):
    with (folder / "log").open("rb") as file:
        return read_chunk(file.fileno(), mark, limit)


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"step": 1}\n{"step": 2, "va')
    first = read(tmp_path, Mark())
    assert [row["step"] for row in first.rows] == [1]
    with log.open("a") as file:
        file.write('lue": 5}\n')
    second = read(tmp_path, first.mark)
    assert second.rows == [{"step": 2, "value": 5}]
    assert read(tmp_path, second.mark).rows == []


@given(cuts=st.lists(st.integers(0, 400), max_size=12), limit=st.integers(30, 500))
@settings(max_examples=50, deadline=None)
def test_every_row_is_read_once_however_it_arrives(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], limit: int
) -> None:
    text = "".join(json.dumps({"step": step, "x": "é" * (step % 3)}) + "\n" for step in range(20))
    data = text.encode()
    folder = tmp_path_factory.mktemp("log")
    mark, steps, written = Mark(), [], 0
    (folder / "log").touch()
    for cut in [*sorted(cuts), len(data)]:
        with (folder / "log").open("ab") as file:
            file.write(data[written : min(cut, len(data))])
        written = max(written, min(cut, len(data)))
        at_end = False
        while not at_end:
            chunk = read(folder, mark, limit)
            assert not chunk.replaced
            steps += [row["step"] for row in chunk.rows]
            mark, at_end = chunk.mark, chunk.at_end
    assert steps == list(range(20))


def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    lines = [b"[1]", b"nonsense", b"\xff\xfe", b"", b"null", b"[" * 5000, b'{"a": 1}', b"9" * 5000]
    (tmp_path / "log").write_bytes(b"\n".join(lines) + b"\n")
    assert read(tmp_path, Mark()).rows == [{"a": 1}]


@pytest.mark.parametrize("how", ["replaced", "cut"])
def test_a_replaced_or_cut_log_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    log = tmp_path / "log"
    log.write_text('{"step": 1}\n{"step": 2}\n')
    mark = read(tmp_path, Mark()).mark
    if how == "replaced":
        (tmp_path / "new").write_text('{"step": 7}\n' * 9)
        os.replace(tmp_path / "new", log)
    else:
        log.write_text('{"step": 7}\n')
    chunk = read(tmp_path, mark)
    assert chunk.replaced
    assert chunk.rows[0] == {"step": 7}


def test_a_line_longer_than_a_chunk_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(json.dumps({"long": "x" * 5000}) + '\n{"step": 1}\n')
    first = read(tmp_path, Mark(), limit=100)
    assert len(first.rows[0]["long"]) == 5000


def test_samples_are_whole_lines_spread_over_the_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(50_000)) + '{"st')
    with (tmp_path / "log").open("rb") as file:
        rows, mark = sample_rows(file.fileno(), windows=20, window_bytes=256)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] == 49_999
    assert 20 * 5 < len(steps) < 20 * 30
    assert max(b - a for a, b in itertools.pairwise(steps)) < 3500
    with log.open("a") as file:
        file.write('ep": 50000}\n')
    assert read(tmp_path, mark).rows == [{"step": 50_000}]
