"""`--help` of every command: what it does, and calls to copy that its own parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from worldflux.cli.app import COMMANDS, LazyCommands
from worldflux.cli.examples import EXAMPLES

# What documents code, not a command: "Raises:" and the like.
DOCSTRING_SECTION = re.compile(r"^\s*(Args|Attributes|Raises|Returns|Yields):", re.MULTILINE)


def _commands() -> Iterator[tuple[str, Any]]:
    for name, command in LazyCommands().items():
        yield name, command
        for part, below in getattr(command, "commands", {}).items():
            yield f"{name} {part}", below


def _parse(words: list[str]) -> None:
    """Parse a call as the command line would, without carrying it out."""
    command = LazyCommands()[words.pop(0)]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    command.make_context("worldflux", words)


@pytest.mark.parametrize(
    ("name", "command"), [*_commands()], ids=lambda part: part if isinstance(part, str) else ""
)
def test_help_has_no_docstring_section_and_ends_with_examples_that_parse(
    name: str, command: Any
) -> None:
    text = command.get_help(command.context_class(command, info_name=name))
    assert not DOCSTRING_SECTION.search(text)
    lines = text.rpartition("Examples:\n")[2].splitlines()
    assert len(lines) == len(EXAMPLES[name])
    for line in lines:
        assert len(line) <= 80
        program, *words = shlex.split(line)
        assert program == "worldflux"
        assert " ".join(words).startswith(name)
        _parse(words)


def test_no_example_belongs_to_a_command_that_is_gone() -> None:
    assert {name.partition(" ")[0] for name in EXAMPLES if name} == set(COMMANDS)


def test_an_example_that_does_not_parse_would_fail() -> None:
    with pytest.raises(Exception, match=r"No such option: ?-?-?nothing"):
        _parse(["models", "list", "--nothing"])
