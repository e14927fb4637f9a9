"""Where a project and its run are: one rule for every command.

A command takes a folder or a file; without one it looks here, then in each folder above.
"""

from __future__ import annotations

from pathlib import Path

from worldflux.errors import ConfigurationError
from worldflux.layout import CHECKPOINTS, RUN_MANIFEST

from .document import FILE_NAME, shown_path
from .loader import load_project


def project_file(given: Path | None = None) -> Path:
    """The worldflux.toml that is meant: of this folder or the nearest above, unless given.

    Args:
        given: worldflux.toml, or the folder that holds it; it need not exist.
    """
    if given is not None:
        return given / FILE_NAME if given.is_dir() else given
    found = _nearest(FILE_NAME)
    return Path(FILE_NAME) if found is None else found / FILE_NAME


def run_folder(given: Path | None = None) -> Path:
    """The run folder that is meant: a run, or the `training.output_dir` of a project.

    Args:
        given: a run, its run_manifest.json or its checkpoints folder; a project or its
            worldflux.toml. Without it: the run that this folder lies in, or the run of the project
            that it lies in, or `outputs`.
    """
    place = _nearest(RUN_MANIFEST, FILE_NAME) if given is None else whole_run(given)
    if place is None:
        return Path("outputs")
    is_project = (place / FILE_NAME).is_file() or (place.suffix == ".toml" and place.is_file())
    if not is_project or (place / RUN_MANIFEST).is_file():
        return place
    project = load_project(place)
    return Path(shown_path(project.root / project.training_config().output_dir))


def one_place(argument: Path | None, option: Path | None, flag: str) -> Path | None:
    """The place that a command was given, as its argument or with the option `flag`."""
    if argument is not None and option is not None:
        message = f"two places are named, {argument} and {flag} {option}"
        raise ConfigurationError(message, where=flag, hint="leave one of them out")
    return argument if option is None else option


def whole_run(place: Path) -> Path:
    """The run that a manifest or a checkpoints folder belongs to; any other place as it is."""
    is_part = place.name in (RUN_MANIFEST, CHECKPOINTS)
    return place.parent if is_part and (place.parent / RUN_MANIFEST).is_file() else place


def _nearest(*names: str) -> Path | None:
    """This folder or the nearest above that holds one of these files."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / name).is_file() for name in names):
            return Path() if folder == here else folder
    return None
