"""Broken worldflux.toml files through the real command: one clear message, exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worldflux.cli.app import main

Train = Callable[..., tuple[int, str, str]]

VALID = """\
project_name = "agent"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[architecture]
horizon = 3

[training]
total_steps = 100

[data]
source = "gym"
"""


def edited(old: str, new: str) -> str:
    assert old in VALID
    return VALID.replace(old, new)


# name, content, place (after the file's name), words of the message
BROKEN: list[tuple[str, str | bytes, str, tuple[str, ...]]] = [
    ("empty", "", "", ("has no keys", "worldflux init")),
    ("only comments", "# nothing\n\n", "", ("has no keys",)),
    ("blank lines", "\n \n\t\n", "", ("has no keys",)),
    ("ten megabytes", "# " + "x" * 70 + "\n" + "a = 1\n" * 1_700_000, "", ("at most 65,536",)),
    ("just too large", VALID + "#\n" * 33_000, "", ("at most 65,536",)),
    ("byte-order mark", "\ufeff" + VALID, ":1:1", ("byte-order mark", "UTF-8")),
    ("utf-16", VALID.encode("utf-16"), ":1:1", ("not UTF-8",)),
    ("latin-1", edited("agent", "Jos\u00e9").encode("latin-1"), ":1:20", ("0xe9",)),
    ("binary", bytes(range(256)) * 8, ":2:118", ("not UTF-8",)),
    ("nul bytes", VALID + "\0\0\0", ":13:1", ("not valid TOML",)),
    ("an ELF file", b"\x7fELF\x02\x01\x01" + b"\0" * 60, ":1:1", ("not valid TOML",)),
    ("a picture", b"\x89PNG\r\n\x1a\n", ":1:1", ("not UTF-8",)),
    ("JSON", '{"project_name": "agent"}', ":1:1", ("not valid TOML",)),
    ("YAML", "project_name: agent\n", ":1:13", ("not valid TOML",)),
    ("a Python script", "import worldflux\n", ":1:8", ("not valid TOML",)),
    ("unclosed string", edited('"agent"', '"agent'), ":1:22", ("not valid TOML",)),
    ("unclosed long string", edited('"agent"', '"""agent'), ":12:15", ("not valid TOML",)),
    ("unclosed array", edited("100", "[100"), ":11:", ("not valid TOML",)),
    ("unclosed table", edited("[data]", "[data"), ":11:6", ("not valid TOML",)),
    ("no value", edited("= 100", "="), ":9:14", ("not valid TOML", "Invalid value")),
    ("two values", edited("100", "100 200"), ":9:19", ("not valid TOML",)),
    ("python True", edited("100", "True"), ":9:15", ("not valid TOML",)),
    ("duplicate key", VALID + 'source = "random"\n', ":13:18", ("overwrite",)),
    ("duplicate table", VALID + "[training]\n", ":13:10", ("training", "twice")),
    ("duplicate by dots", "training.seed = 1\n" + VALID, ":9:10", ("not valid TOML",)),
    ("a long line", edited("agent", "a" * 2_000), ":1:2001", ("at most 2000",)),
    ("a deep array", VALID + "x = " + "[" * 900 + "]" * 900, ":13:", ("deeper than 32",)),
    ("a deep table", VALID + "x = " + "{a = " * 300 + "1" + "}" * 300, ":13:", ("deeper than 32",)),
    ("a long dotted key", ".".join("a" * 900) + " = 1\n" + VALID, ":1:1", ("more than 16 parts",)),
    ("a long header", VALID + f"[{'.'.join('a' * 900)}]\n", ":13:2", ("more than 16 parts",)),
    ("a 5,000-digit number", edited("100", "1" * 5_000), ":9:2001", ("at most 2000",)),
    ("a huge number", edited("100", "1" * 40), ":9:15", ("total_steps", "64 bits")),
    ("a huge hex number", edited("100", "0x" + "f" * 40), ":9:15", ("total_steps", "64 bits")),
    (
        "project_name missing",
        edited('project_name = "agent"\n', ""),
        "",
        ("'project_name' is missing",),
    ),
    (
        "environment missing",
        edited('environment = "Pendulum-v1"\n', ""),
        "",
        ("'environment'", "Pendulum-v1"),
    ),
    ("model missing", edited('model = "tdmpc2:ci"\n', ""), "", ("'model' is missing",)),
    ("unknown top key", "colour = 1\n" + VALID, ":1:1", ("unknown key 'colour'",)),
    ("misplaced key", "total_steps = 5\n" + VALID, ":1:1", ("belongs under [training]",)),
    (
        "misspelt section",
        edited("[training]", "[trainig]"),
        ":8:2",
        ("'trainig'", "did you mean 'training'"),
    ),
    (
        "misspelt training key",
        edited("total_steps", "total_step"),
        ":9:1",
        ("did you mean 'total_steps'",),
    ),
    ("misspelt data key", edited("source", "sourse"), ":12:1", ("[data]", "did you mean 'source'")),
    ("misspelt model field", edited("horizon", "horizn"), ":6:1", ("did you mean 'horizon'",)),
    (
        "field of the other family",
        edited("horizon", "kl_free"),
        ":6:1",
        ("'kl_free'", "[architecture]"),
    ),
    ("misspelt model", edited("tdmpc2:ci", "tdmpc2:cii"), ":3:9", ("did you mean", "tdmpc2:ci")),
    ("model of no family", edited("tdmpc2:ci", "gpt:5"), ":3:9", ("there is no model",)),
    ("number in quotes", edited("100", '"16"'), ":9:15", ("whole number", "without quotes: 16")),
    (
        "truth value in quotes",
        VALID + '[gameplay]\nenabled = "false"',
        ":14:11",
        ("without quotes: false",),
    ),
    ("truth value for a number", edited("100", "true"), ":9:15", ("whole number",)),
    ("number for a truth value", VALID + "[gameplay]\nenabled = 1", ":14:11", ("true or false",)),
    (
        "number for text",
        edited('"Pendulum-v1"', "1"),
        ":2:15",
        ("environment = 1", "text in quotes", 'in quotes: "1"'),
    ),
    ("fraction for a count", edited("100", "100.5"), ":9:15", ("whole number",)),
    (
        "whole fraction for a count",
        VALID + "[evaluation]\nepisodes = 3.0",
        ":14:12",
        ("whole number",),
    ),
    (
        "text for a list",
        VALID.replace("horizon = 3", 'obs_shape = "3"'),
        ":6:13",
        ("list of numbers",),
    ),
    ("list for a number", edited("100", "[100]"), ":9:15", ("whole number",)),
    (
        "key for a section",
        "data = 3\n" + edited("[data]", "[verify]").replace("source", "#"),
        ":1:8",
        ("[data]",),
    ),
    (
        "table array for a section",
        edited("[data]", "[[data]]"),
        ":11:3",
        ("data = a list", "[data]"),
    ),
    ("a date", edited("100", "2026-11-21"), ":9:15", ("is a date or time",)),
    (
        "a time of day",
        VALID + "[evaluation]\nepisodes = 07:30:00",
        ":14:12",
        ("is a date or time",),
    ),
    ("nan", VALID + "[verify]\nalpha = nan", ":14:9", ("alpha = nan", "not a finite number")),
    ("infinity", edited("100", "inf"), ":9:15", ("total_steps = inf", "not a finite number")),
    ("minus infinity", edited("horizon = 3", "gamma = -inf"), ":6:9", ("not a finite number",)),
    ("negative", edited("100", "-5"), ":9:15", ("total_steps = -5", "above 0")),
    ("zero", edited("100", "0"), ":9:15", ("total_steps = 0", "above 0")),
    ("zero horizon", edited("horizon = 3", "horizon = 0"), ":6:11", ("horizon = 0", "above 0")),
    ("out of range", VALID + "[visualization]\nport = 70000", ":14:8", ("at most 65535",)),
    ("probability of two", VALID + "[verify]\nalpha = 2", ":14:9", ("below 0.5",)),
    (
        "unknown choice",
        edited('"gym"', '"gymn"'),
        ":12:10",
        ("'gym', 'random', 'minari', 'npz', 'hdf5' or 'lerobot'",),
    ),
    ("unknown device", edited("total_steps = 100", 'device = "gpu"'), ":9:10", ("cuda:N",)),
    ("empty name", edited('"agent"', '""'), ":1:16", ("not empty",)),
    ("name with a newline", edited('"agent"', '"a\\nb"'), ":1:16", ("control characters",)),
    ("300-character name", edited("agent", "a" * 300), ":1:16", ("at most 200",)),
    ("two fields at odds", edited("horizon = 3", "latent_dim = 36"), ":6:14", ("simnorm_dim=8",)),
    (
        "elites beyond samples",
        edited("horizon = 3", "num_elites = 600"),
        ":6:14",
        ("num_samples=512",),
    ),
]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Train:
    """`worldflux train` in the folder: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["train", *arguments])
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("content", "place", "words"), [pytest.param(*row[1:], id=row[0]) for row in BROKEN]
)
def test_a_broken_file_is_told_once_and_clearly(
    content: str | bytes, place: str, words: tuple[str, ...], tmp_path: Path, train: Train
) -> None:
    file = tmp_path / "worldflux.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    before = tree(tmp_path)
    code, out, told = train()
    assert (code, out) == (2, "")
    assert told.startswith(f"error: worldflux.toml{place}")
    assert told.count("worldflux.toml") == 1
    for word in words:
        assert word in told
    assert "Traceback" not in told
    assert len(told) < 1_000
    assert tree(tmp_path) == before


def test_the_file_that_the_others_are_made_from_is_valid(tmp_path: Path, train: Train) -> None:
    (tmp_path / "worldflux.toml").write_text(VALID)
    code, _, told = train("--set", "environment=NoSuchWorld-v7")
    assert code == 2
    assert "NoSuchWorld-v7" in told
    assert sorted(tree(tmp_path)) == ["worldflux.toml"]


def test_all_problems_are_told_at_once(tmp_path: Path, train: Train) -> None:
    text = VALID.replace("horizon", "horizn").replace("100", "-1").replace('"gym"', "3")
    (tmp_path / "worldflux.toml").write_text(text)
    code, _, told = train()
    assert code == 2
    assert told.splitlines()[0] == "error: 3 problems"
    places = [line.split(" ")[0] for line in told.splitlines() if "worldflux.toml" in line]
    assert places == ["worldflux.toml:6:1:", "worldflux.toml:9:15:", "worldflux.toml:12:10:"]


@pytest.mark.parametrize("kind", ["missing", "folder", "in no folder", "link to itself"])
def test_what_is_no_file_is_told(kind: str, tmp_path: Path, train: Train) -> None:
    file = tmp_path / "worldflux.toml"
    if kind == "folder":
        file.mkdir()
    elif kind == "in no folder":
        file = tmp_path / "nowhere" / "worldflux.toml"
    elif kind == "link to itself":
        file.symlink_to(file)
    code, _, told = train("--config", str(file))
    assert code == 2
    assert told.startswith("error: ")
    assert "Traceback" not in told
