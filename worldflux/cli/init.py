"""`worldflux init`: ask (on a terminal) or take flags, then write a new project."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worldflux.envs.namespaces import CHOICES
from worldflux.errors import ConfigurationError

from .completion import DEVICES, environment_names, model_names, one_of

if TYPE_CHECKING:
    from worldflux.project.answers import Answers
    from worldflux.project.placement import Placement


def init(
    path: Annotated[
        str | None,
        typer.Argument(help="Folder of the project. Default: its name.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Project name. Default: the folder's.", show_default=False)
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(CHOICES)}, or a Gymnasium id such as CartPole-v1. "
            f"Default: {next(iter(CHOICES))}.",
            show_default=False,
            autocompletion=environment_names,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A preset of `worldflux models list`. Default: one that fits.",
            autocompletion=model_names,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Gradient updates of the training.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences in a batch.", show_default=False)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto (default), cpu, cuda, cuda:N or mps.",
            show_default=False,
            autocompletion=one_of(*DEVICES),
        ),
    ] = None,
    answers_file: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            help="TOML file of answers, such as a project's .worldflux/answers.toml; "
            "options override it.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Folder or installed package of templates. Default: worldflux's own."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take defaults.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, write nothing.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace generated files that exist; edited ones are kept as NAME.bak."
        ),
    ] = False,
) -> None:
    """Create a project: a worldflux.toml and thin scripts around the library.

    On a terminal it asks for what the flags leave open. It uses no network.
    """
    from worldflux.project.answers import DEFAULT_NAME, complete
    from worldflux.project.document import FILE_NAME, parsed
    from worldflux.project.loader import load_project
    from worldflux.project.placement import check_folder, check_name, examine, name_from, write
    from worldflux.project.recorded_answers import TEMPLATE, VERSION, read_answers
    from worldflux.project.scaffold import own_templates, render, templates_in, templates_root
    from worldflux.project.template_record import ANSWERS_FILE, BASE, record_of

    options = {
        "name": name,
        "environment": env,
        "model": model,
        "total_steps": steps,
        "batch_size": batch_size,
        "device": device,
        TEMPLATE: template,
    }
    given = read_answers(answers_file) if answers_file else {}
    given |= {key: value for key, value in options.items() if value is not None}
    given.pop(VERSION, None)
    template = given.pop(TEMPLATE, None)
    folder = own_templates(template) if template else None

    def refuse_taken(name: str) -> None:
        target = root or check_folder(check_name(name))
        names = dict.fromkeys([ANSWERS_FILE, *templates_in(folder or templates_root())], "")
        _refuse_obstacles(examine(target, names, replace=force), force)

    may_ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    root = None if path is None else check_folder(path)
    if "name" not in given and (root is not None or not may_ask):
        given["name"] = DEFAULT_NAME if root is None else name_from(root.name, DEFAULT_NAME)
    if "name" in given:
        refuse_taken(given["name"])
    answers = _ask(given, refuse_taken) if may_ask else complete(**given)
    root = root or check_folder(answers.name)
    files = render(answers, folder)
    if folder:
        load_project(parsed(root / FILE_NAME, files[FILE_NAME]), environ={})
    files = {**record_of(answers, files, template), **files}
    placement = examine(root, files, replace=force)
    _refuse_obstacles(placement, force)
    extra = _missing_extra(answers)
    if extra is None:
        _check_environment(answers.environment, placement.root)
    if dry_run:
        done = {"replace": placement.existing, "keep   ": placement.kept, "create ": placement.new}
        for word, names in done.items():
            for file in names:
                if not file.startswith(BASE):  # the same files again
                    typer.echo(f"{word} {file}")
        typer.echo(f"nothing was written to {placement.root}")
        return
    for replaced, copy in write(placement).items():
        typer.echo(f"replaced {replaced}; the old one is {copy}", err=True)
    _next_steps(answers, placement, extra)


def _refuse_obstacles(placement: Placement, force: bool) -> None:
    """Stop before anything is written where files are in the way."""
    if placement.blocked:
        raise ConfigurationError(
            "the folder cannot take the project: " + "; ".join(placement.blocked),
            where=str(placement.root),
            hint="move it out of the way, or choose another folder",
        )
    if placement.existing and not force:
        raise ConfigurationError(
            "files of this name exist already: " + ", ".join(placement.existing),
            where=str(placement.root),
            hint="choose another folder, or --force to replace these files and keep copies",
        )


def _check_environment(env_id: str, root: Path) -> None:
    """Warn now of what would stop `worldflux train`: an unknown id, a module that is not there."""
    from worldflux.project.answers import WELL_KNOWN

    if env_id in WELL_KNOWN:
        return
    from worldflux.project.environments import environment_problem

    if problem := environment_problem(env_id, root):
        typer.echo(f"warning: {problem.message}", err=True)
        if problem.hint:
            typer.echo(f"hint: {problem.hint}", err=True)


def _missing_extra(answers: Answers) -> str | None:
    needed = answers.needed_extra
    return needed.extra if needed and importlib.util.find_spec(needed.module) is None else None


def _next_steps(answers: Answers, placement: Placement, extra: str | None) -> None:
    from worldflux.project.document import shown_path

    folder = shown_path(placement.root)
    typer.echo(f"created {answers.name}: {answers.environment} with {answers.model}")
    if placement.kept:
        own = " (add outputs/ to it)" if ".gitignore" in placement.kept else ""
        typer.echo(f"    your {' and '.join(placement.kept)} stayed{own}")
    if extra is not None:
        typer.echo(f"    pip install 'worldflux[{extra}]'")
    if folder != ".":
        typer.echo(f"    cd {shlex.quote(folder)}")
    typer.echo("    worldflux train")


# --------------------------------------------------------------------------- questions


def _ask(given: Mapping[str, Any], check_new: Callable[[str], object]) -> Answers:
    """Ask for every answer that is not given, and check it at once. Ctrl-C: KeyboardInterrupt.

    Args:
        check_new: refuses a name that is not allowed, or whose folder is taken.
    """
    import questionary

    from worldflux.project.answers import (
        DEFAULT_NAME,
        complete,
        default_total_steps,
        environment_id,
    )

    name = given.get("name") or _text("Project name", DEFAULT_NAME, check_new)
    environment = environment_id(given.get("environment") or _environment())
    model = given.get("model") or _model(environment)
    steps = given.get("total_steps")
    if steps is None:
        default = str(default_total_steps(environment))
        steps = _count(_text("Gradient updates", default, _count))
    device = given.get("device") or _choose("Device", {k: k for k in ("auto", "cpu", "cuda")})
    answers = complete(name, environment, model, steps, given.get("batch_size"), device)
    summary = f"{name}: {answers.environment}, {answers.model}, {steps:,} updates on {device}"
    if not questionary.confirm(f"Create {summary}?").unsafe_ask():
        raise KeyboardInterrupt
    return answers


def _environment() -> str:
    from worldflux.project.answers import CHOICES, environment_id

    titles = {key: f"{key:<8} {c.environment}: {c.description}" for key, c in CHOICES.items()}
    answer = _choose("Environment", {**titles, "custom": "custom   any other Gymnasium id"})
    return answer if answer in CHOICES else _text("Gymnasium id", "CartPole-v1", environment_id)


def _model(environment: str) -> str:
    """Offer the presets that fit the environment's actions: default first, with size and use."""
    from worldflux.models.catalog import list_models
    from worldflux.project.answers import DEFAULT_NAME, PICKED, complete, default_model

    entries = list_models(verbose=True, surface="public")
    titles = {}
    for model in dict.fromkeys([default_model(environment), *PICKED, *list_models()]):
        with contextlib.suppress(ConfigurationError):  # TD-MPC2 for discrete actions
            model = complete(DEFAULT_NAME, environment, model).model
            size = f"{entries[model]['parameters'] / 1e6:6.1f}M"
            titles[model] = f"{model:<23}{size}  {PICKED.get(model, '')}"
    return _choose("Model", titles)


def _choose(question: str, titles: dict[str, str]) -> str:
    import questionary

    options = [questionary.Choice(text.rstrip(), value=value) for value, text in titles.items()]
    answer: str = questionary.select(question, choices=options).unsafe_ask()
    return answer


def _text(question: str, default: str, check: Callable[[str], object]) -> str:
    """Ask for a line; an empty one takes the default, which is shown and not typed already."""
    import questionary

    def complaint(text: str) -> bool | str:
        try:
            check(text or default)
        except ConfigurationError as error:
            return f"{error.message}: {error.hint}" if error.hint else error.message
        return True

    line = questionary.text(f"{question} ({default})", validate=complaint)
    return line.unsafe_ask() or default


def _count(text: str) -> int:
    """A whole number above 0, as in 20000, 20_000, 20,000 or 2e4."""
    plain = text.strip().replace(",", "").replace("_", "")
    try:
        number = float(plain)
    except ValueError:
        number = 0.0
    if not (1 <= number < 1e15 and number == int(number)):
        raise ConfigurationError("a whole number above 0")
    return int(number)
