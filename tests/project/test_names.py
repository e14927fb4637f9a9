"""One rule for names and folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldflux.errors import ConfigurationError
from worldflux.project.placement import check_folder, check_name, name_from

HOSTILE = [
    "", " ", ".", "..", "...", "../x", "/etc/x", "a/b", "a\\b", "a/../../b", "~", "~root", "a b",
    'a"b', "a'b", "a`b", "$HOME", "$(id)", "a;b", "a|b", "a&b", "a\nb", "a\rb", "a\tb", "a\0b",
    "{{ x }}", "{% x %}", "a#b", 'x" #', "%2e%2e", "-rf", "--help", ".git", ".hidden", "a.", "a..b",
    "CON", "con.txt", "nul", "LPT1", "caf\u00e9", "\u202egpj", "\U0001f600", "a" * 64, "a" * 300,
    "\ud800", "\u0430bc", "_x",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_name(name)
    assert str(caught.value).isascii()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["a", "agent", "My-Agent_2.0", "7", "a" * 63, "v1.2", "console"])
def test_kind_names_are_taken(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=70))
def test_a_taken_name_is_harmless(name: str) -> None:
    try:
        taken = check_name(name)
    except ConfigurationError:
        return
    assert taken.isascii()
    assert Path(taken).name == taken
    assert not set(taken) & set("\"'`$(){}[]<>|&;*?!#%\\/ \t\n")


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "a\0b",
        "a/\nb",
        "x/-rf",
        "x/.hidden",
        "a/$(id)",
        "a/b`c",
        "CON",
        "nul.txt",
        "a/ b",
        "{{x}}",
    ],
)
def test_hostile_folders_are_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        check_folder(folder)


def test_folders_that_exist_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = tmp_path / "my caf\u00e9 {{x}}"
    strange.mkdir()
    assert check_folder(str(strange / "agent")) == strange / "agent"
    monkeypatch.chdir(strange)
    assert check_folder(".") == strange
    assert check_folder("agent") == strange / "agent"


def test_a_sibling_with_the_same_beginning_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root-evil").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    assert check_folder("../root-evil/x") == tmp_path / "root-evil" / "x"
    assert check_folder("../root/../new one") == tmp_path / "new one"


def test_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_folder("~/agent") == tmp_path / "agent"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("agent", "agent"),
        ("a--b.2", "a--b.2"),
        ("my project", "my-project"),
        ("Roboter \u00fcben (v2)", "Roboter-uben-v2"),
        ("caf\u00e9", "cafe"),
        ("\u65e5\u672c\u8a9e", "default"),
        ("con", "default"),
        ("_x", "x"),
        ("a" * 90, "a" * 63),
    ],
)
def test_a_project_takes_the_name_nearest_to_its_folders(folder: str, name: str) -> None:
    assert name_from(folder, "default") == name


@given(st.text(max_size=70))
def test_every_folder_gives_a_name_that_is_allowed(folder: str) -> None:
    assert check_name(name_from(folder, "default"))
