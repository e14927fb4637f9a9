"""`worldflux models`: the catalogue (without torch), and official checkpoints in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from worldflux.models.catalog import IMPORTED, list_models
from worldflux.project.answers import PICKED

from .completion import model_names, one_of

models = typer.Typer(
    help="List and inspect the model presets; import and export official checkpoints.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@models.command("list")
def list_(
    surface: Annotated[
        str,
        typer.Option(
            help="supported, public (adds proof and official presets) or all.",
            autocompletion=one_of("supported", "public", "all"),
        ),
    ] = "supported",
    maturity: Annotated[
        str | None,
        typer.Option(
            help="Keep only reference, experimental or skeleton.",
            autocompletion=one_of("reference", "experimental", "skeleton"),
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Add descriptions.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the model presets, with the true number of learnable parameters."""
    entries = list_models(verbose=True, maturity=maturity, surface=surface)
    if as_json:
        listing = {"surface": surface, "maturity": maturity, "models": entries}
        _print_json({**listing, "picked_by_init": PICKED})
    elif verbose:
        for name, entry in entries.items():
            typer.echo(f"{name}\n    {entry['description']}\n    {_summary(entry)}")
    else:
        _print_picked()
        _print_table(entries)
    if not as_json:
        _print_others(entries)


@models.command("info")
def info(
    model: Annotated[
        str,
        typer.Argument(metavar="ID", help="A preset id or an alias.", autocompletion=model_names),
    ],
    as_json: AsJson = False,
) -> None:
    """Show one preset: what it is, how large, and every number of its configuration."""
    from worldflux.models.catalog import default_config, get_model_info

    entry = get_model_info(model)
    config = default_config(entry["model_id"])
    if as_json:
        _print_json({**entry, "config": config.to_dict()})
        return
    alias = f" (alias {entry['alias']})" if entry["alias"] else ""
    typer.echo(f"{entry['model_id']}{alias}\n    {entry['description']}\n    {_summary(entry)}\n")
    for name, value in config.to_dict().items():
        if name not in {"set_fields", "device", *config.UNREAD}:  # a project's own, or not read
            used = getattr(config, f"resolved_{name}", value)  # with what the recipe adds
            typer.echo(f"    {name} = {json.dumps(used)}")


@models.command("compare")
def compare(
    observations: Annotated[
        str | None,
        typer.Option(help="numbers or images.", autocompletion=one_of("numbers", "images")),
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option(
            help="continuous or discrete.", autocompletion=one_of("continuous", "discrete")
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or gpu.", autocompletion=one_of("cpu", "gpu"))
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Of one run, at most; by default any.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was measured of the models: returns, minutes, and costs of updates and actions."""
    from worldflux.models.measured import measured

    for value, allowed in (
        (observations, ("numbers", "images")),
        (actions, ("continuous", "discrete")),
        (device, ("cpu", "gpu")),
    ):
        if value not in (None, *allowed):
            raise typer.BadParameter(f"{value!r} is not {' or '.join(allowed)}")
    rows = measured(observations, actions, device, minutes)
    if as_json:
        _print_json(rows)
    else:
        _print_measured(rows)


@models.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An official checkpoint.")],
    family: Annotated[
        str,
        typer.Option(
            help=" or ".join(f"{name} ({files})" for name, files in IMPORTED.items()) + ".",
            autocompletion=one_of(*IMPORTED),
        ),
    ],
    to: Annotated[Path, typer.Option(help="New folder of the model.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="What is not in the file."),
    ] = None,
) -> None:
    """Turn an official checkpoint into a model that worldflux opens."""
    from worldflux.core.learning import learned_count
    from worldflux.models.registry import import_file

    size = learned_count(import_file(family, file, to, _fields(set_ or [])))
    typer.echo(f"{to}: {family} with {size:,} learnable parameters")


@models.command("export")
def export(
    directory: Annotated[Path, typer.Argument(help="A saved model, a run or a project.")],
    to: Annotated[Path, typer.Option(help="New file, which the official code loads.")],
) -> None:
    """Write a saved model as an official checkpoint."""
    from worldflux.factory import saved_folder
    from worldflux.models.registry import export_file
    from worldflux.project.places import run_folder

    export_file(saved_folder(run_folder(directory)), to)
    typer.echo(str(to))


def _fields(assignments: list[str]) -> dict[str, Any]:
    from worldflux.project.document import Document
    from worldflux.project.problems import ProjectFileError

    document = Document(Path())
    if problems := document.set_assignments(assignments):
        raise ProjectFileError(problems)
    return document.data


def _summary(entry: dict[str, Any]) -> str:
    return (
        f"{entry['parameters']:,} parameters (label {entry['params']}), {entry['default_obs']}, "
        f"{entry['support_tier']}, {entry['parity_role']}"
    )


def _print_picked() -> None:
    """The few that most people need, which hide among the others."""
    public = list_models(verbose=True, surface="public")
    typer.echo("worldflux init picks:")
    for name, purpose in PICKED.items():
        typer.echo(f"  {name:<23}{public[name]['parameters']:>11,}  {purpose}")
    typer.echo("")


def _print_table(entries: dict[str, dict[str, Any]]) -> None:
    if not entries:
        typer.echo("no model has this maturity on this surface")
        return
    width = max(len(name) for name in entries)
    typer.echo(f"{'MODEL':<{width}}  {'LABEL':<10}  {'PARAMETERS':>11}  {'INPUT':<6}  TIER")
    for name, entry in entries.items():
        typer.echo(
            f"{name:<{width}}  {entry['params']:<10}  {entry['parameters']:>11,}  "
            f"{entry['default_obs']:<6}  {entry['support_tier']}"
        )


def _print_others(entries: dict[str, dict[str, Any]]) -> None:
    """How many presets the narrower surface leaves out, of which agents, and how to list them."""
    others = [name for name in list_models(surface="public") if name not in entries]
    if entries and others:
        agents = ", ".join(sorted({name.partition(":")[0] for name in others}))
        typer.echo(f"\n{len(others)} more, of {agents}:\n  worldflux models list --surface public")


def _print_measured(rows: dict[str, list[dict[str, Any]]]) -> None:
    typer.echo(f"{'MODEL':<18}{'LEARNED':<33}{'RETURN':<14}SEEDS  MINUTES")
    for row in rows["learned"]:
        learned = f"{row['environment']:<33}{row['returns']:<14}{row['seeds']:>5}"
        typer.echo(f"{row['model']:<18}{learned}{row['minutes']:>9}")
    typer.echo(f"\n{'MODEL':<24}{'COSTS':<14}{'UPDATE':>11}{'ACTION':>11}")
    for row in rows["costs"]:
        where = f"{row['observations']}, {row['device']}"
        update, action = (
            "-" if value is None else f"{value:g} ms"
            for value in (row["update_ms"], row["action_ms"])
        )
        typer.echo(f"{row['model']:<24}{where:<14}{update:>11}{action:>11}")
    typer.echo(
        "\nReturns: the best checkpoint over fresh episodes. Minutes: the slowest seed's.\n"
        "cpu: one thread of a virtual core. gpu: an H200, the fastest way that was tried\n"
        "(training.compile, mixed precision). What is not here was not measured. How it\n"
        "was: docs/results.md; which model to take: docs/choosing.md."
    )


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=2, allow_nan=False))
