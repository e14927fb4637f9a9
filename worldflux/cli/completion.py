"""What the shell offers on TAB: values of options, and bash's way of cutting words. No torch."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import typer

from worldflux.errors import ConfigurationError, WorldFluxError

VARIABLE = "_WORLDFLUX_COMPLETE"  # set by the scripts of `worldflux --show-completion`
DEVICES = ("auto", "cpu", "cuda", "mps")
_FLAGS = ("--install-completion", "--show-completion")


def one_of(*values: str) -> Callable[[str], Sequence[str]]:
    """An `autocompletion` that offers these values."""

    def offered(incomplete: str) -> Sequence[str]:
        return values

    return offered


def model_names(incomplete: str) -> list[str]:
    """Every preset of the catalogue."""
    from worldflux.models.catalog import list_models

    return list(list_models(surface="public"))


def environment_names(incomplete: str) -> list[str]:
    """The choices of init, and every id that Gymnasium knows."""
    import gymnasium

    from worldflux.envs.make import register_own
    from worldflux.project.answers import CHOICES

    register_own()
    return [*CHOICES, *gymnasium.registry]


def checkpoint_names(incomplete: str) -> list[str]:
    """ "best", "last", and the checkpoints of this project's run."""
    from worldflux.layout import CHECKPOINTS
    from worldflux.project.places import run_folder

    found: list[str] = []
    with contextlib.suppress(ConfigurationError):
        found = sorted(path.name for path in (run_folder() / CHECKPOINTS).glob("step-*"))
    return ["best", "last", *found]


def moment_names(incomplete: str) -> list[str]:
    """The beginnings of the episodes that this project's run recorded, the newest first."""
    from worldflux.evaluation.recordings import read_episodes, recordings
    from worldflux.project.places import run_folder

    found: list[str] = []
    with contextlib.suppress(WorldFluxError):
        for name, path in recordings(run_folder()).items():
            found += [f"{name}/{number}:0" for number in range(len(read_episodes(path)))]
    return found


def settings(incomplete: str) -> list[str]:
    """`section.key=` for every key, and the models after `model=`."""
    from worldflux.project.document import Document, read_document
    from worldflux.project.loader import known_keys
    from worldflux.project.places import project_file

    if incomplete.startswith("model="):
        return [f"model={name}" for name in model_names("")]
    try:
        document = read_document(project_file())
    except ConfigurationError:
        document = Document(project_file())
    known = known_keys(document).items()
    return ["environment=", "model=", *(f"{s}.{key}=" for s, keys in known for key in keys)]


def offer_what_fits(command: Any) -> None:
    """Adapt what typer offers for the command's parameters to what the shells replace.

    Paths are left to the shell: typer would offer what is typed already, and only that. zsh and
    fish replace the whole of `--model=tdmpc2:l`, where typer offers the value alone.
    """
    for each in (command, *getattr(command, "commands", {}).values()):
        for parameter in each.params:
            setattr(parameter, "shell_complete", _fitting(parameter.shell_complete))  # noqa: B010


def _fitting(complete: Callable[[Any, str], list[Any]]) -> Callable[[Any, str], list[Any]]:
    def offered(context: Any, typed: str) -> list[Any]:
        word = os.environ.get("_TYPER_COMPLETE_ARGS", "").rpartition(" ")[2]
        option = word[: word.find("=") + 1] if word.startswith("--") else ""
        items = [item for item in complete(context, typed) if item.type == "plain"]
        for item in items:
            item.value = option + item.value
        return items

    return offered


def take_named_shell(arguments: Sequence[str]) -> None:
    """Let a shell be named after the two options; typer then does not look which one runs."""
    flag, equals, _ = arguments[0].partition("=") if arguments else ("", "", "")
    named = equals or any(not word.startswith("-") for word in arguments[1:2])
    if flag in _FLAGS and named:
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"


def answer_shell(work: Callable[[], int]) -> int:
    """Do typer's completion. What it prints is for the shell, errors are dropped.

    bash cuts words at `:` and `=`, as in `tdmpc2:5m`, and replaces only the last piece: the pieces
    are joined before the question, and the answers are cut where bash did.
    """
    os.environ["COLUMNS"] = "10000"  # a folded description would be two offers to fish
    cut = _join_words() if os.environ[VARIABLE] == "complete_bash" else 0
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(None):
        code = work()
    for line in output.getvalue().splitlines():
        typer.echo(line[cut:])
    return code


def _join_words() -> int:
    """Join the pieces in COMP_WORDS up to the cursor; returns how much of the word bash keeps."""
    position = int(os.environ.get("COMP_CWORD", "0"))
    pieces = os.environ.get("COMP_WORDS", "").split("\n")[: position + 1]
    words: list[str] = []
    for piece in pieces:
        if words and piece and (piece[0] in ":=" or words[-1][-1:] in (":", "=")):
            words[-1] += piece
        else:
            words.append(piece)
    os.environ["COMP_WORDS"] = "\n".join(words)
    os.environ["COMP_CWORD"] = str(len(words) - 1)
    word, typed = words[-1], pieces[-1]
    if word == typed:
        return 0
    value = word.partition("=")[2] if word.startswith("--") else word
    return len(value) - (0 if typed[-1:] in (":", "=") else len(typed))
