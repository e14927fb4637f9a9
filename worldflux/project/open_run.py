"""Open a finished (or running) run folder: its manifest, a checkpoint's model, its environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gymnasium import Space
from pydantic import TypeAdapter, ValidationError

from worldflux.core.config import WorldModelConfig
from worldflux.core.config.base import TASK
from worldflux.core.precision import COMPUTE_TYPES
from worldflux.core.saved_model import WEIGHTS_FILE, load_weights
from worldflux.core.world_model import WorldModel
from worldflux.data.replay_storage import SHARDS
from worldflux.envs.space_record import space_of
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.tasks import Padding
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import (
    ConfigurationError,
    EnvironmentFault,
    EnvironmentSetupError,
    RunFolderError,
)
from worldflux.evaluation.episodes import (
    EpisodeResults,
    fresh_seed,
    play_episodes,
    shares_of,
)
from worldflux.factory import build_model, require_weights_of
from worldflux.models.registry import buildable_config
from worldflux.progress import Progress, counted
from worldflux.training.checkpoints import BEST, STATE_FILE, checkpoint_of, read_state
from worldflux.training.config import TrainingConfig
from worldflux.training.threads import computing_with, threads_of

from .dataset_file import FILE, GIVEN, is_given
from .environments import (
    MakeEnvironment,
    environment_maker,
    episode_limit,
    played_at_once,
    vector_environment,
)
from .loader import Project, load_project
from .manifest import read_manifest
from .places import project_file
from .sections import EvaluationSection, OnlineCollectionSection
from .start import model_folder
from .tasks import Task, TaskSet

Rules = TypeVar("Rules", OnlineCollectionSection, EvaluationSection)


@dataclass(frozen=True)
class OpenRun:
    """A run folder with one of its checkpoints opened, played by the rules that it trained by."""

    folder: Path
    manifest: dict[str, Any]
    checkpoint: Path
    model: WorldModel
    root: Path | None  # of its project
    collection: OnlineCollectionSection
    evaluation: EvaluationSection
    restarts: list[str] = field(default_factory=list)  # why, of environments since
    tasks: TaskSet | None = None  # of several

    @property
    def name(self) -> str:
        """What reports call the agent: its checkpoint, or the saved model as it was given."""
        return str(self.manifest.get("saved_model", self.checkpoint.name))

    @property
    def is_run(self) -> bool:
        """False for a saved model, which has no evaluations."""
        return "saved_model" not in self.manifest

    def environments(self, episodes: int, *, render_first: bool = False) -> VectorEnvironment:
        """Copies of the environment that the run learned in, to play so many episodes in.

        As many as trained, where the run did not show that more can exist.
        """
        alone = self.evaluation.environment == "training" or self.evaluation.episodes == 0
        return vector_environment(
            self._makers(),
            str(self.manifest["environment"]["id"]),
            min(episodes, self.collection.num_envs)
            if alone
            else played_at_once(episodes, self.tasks),
            render_first=render_first,
            online=self.collection,
            on_restart=self._restarted,
            tasks=self.tasks,
        )

    def environment(self, index: int, *, render_first: bool = False) -> VectorEnvironment:
        """One fresh copy of the environment that number `index` of several is; it never restarts,
        because that begins another episode."""
        return vector_environment(
            [self.maker_of(index)],
            str(self.manifest["environment"]["id"]),
            1,
            render_first=render_first,
            online=dataclasses.replace(self.collection, on_env_error="stop"),
            tasks=self.tasks,
        )

    def maker_of(self, index: int) -> MakeEnvironment:
        """Makes environment number `index` of several, which play the tasks in turn."""
        makers = self._makers()
        return makers[index % len(makers)]

    def _makers(self) -> list[MakeEnvironment]:
        """One for each task."""
        one, tasks = self.maker(), self.tasks  # or why this environment cannot be made here
        make = partial(environment_maker, self.root)
        return [one] if tasks is None else tasks.makers(make, self.collection.check_bounds)

    def maker(self) -> MakeEnvironment:
        """Makes the environment that the run learned in, by its render_mode."""
        environment, root = self.manifest["environment"], self.root
        if "named" in environment and (root is None or not (root / FILE).is_file()):
            raise EnvironmentSetupError(
                "this run learned in an environment of its project's own, and there is no "
                f"{FILE} here that makes it",
                where=str(self.folder),
                hint="move the run back below its project",
            )
        name = str(environment.get("named", environment["id"]))
        if name.startswith(GIVEN) and root is None:
            raise EnvironmentSetupError(
                f"this run learned in an environment that a script made ({name})",
                where=str(self.folder),
                hint="only that script can play it; worldflux.load_agent acts without it",
            )
        return environment_maker(root, name, environment.get("kwargs", {}))

    def spaces(self) -> tuple[Space, Space]:
        """What the agent observes and does: as the run recorded it, or of its environment."""
        recorded = self.manifest.get("spaces")
        if recorded is None:  # of an earlier version
            envs = self.environments(1)
            envs.close()
            return envs.spaces.observation, envs.spaces.action
        try:
            return space_of(recorded["observation"]), space_of(recorded["action"])
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise RunFolderError(f"run_manifest.json is damaged: spaces: {error}") from None

    def play(
        self,
        envs: VectorEnvironment,
        episodes: int,
        seed: int,
        progress: Progress,
        *,
        randomly: bool = False,
        **options: Any,
    ) -> EpisodeResults:
        """Play episodes of the agent, or of a random policy, as in the run's evaluations."""
        if options.get("policy") is None and not randomly:
            options["policy"] = self.evaluation.policy
        total = episodes * max(1, len(envs.spec.tasks))
        progress.phase("random baseline" if randomly else "evaluating", total, "episodes")
        with self.computing():
            return play_episodes(
                None if randomly else self.model,
                envs,
                episodes,
                seed,
                max_steps=self.max_steps(envs),
                progress=progress.episodes,
                **options,
            )

    def computing(self) -> AbstractContextManager[None]:
        """Within it torch has as many threads as a run of this model (`training.threads`)."""
        chosen = self.manifest.get("training_config", {}).get("threads")
        was_set = isinstance(chosen, int) and chosen > 0
        config = TrainingConfig(device="cpu", threads=chosen if was_set else None)
        return computing_with(threads_of(config, self.model))

    def max_steps(self, envs: VectorEnvironment) -> int | None:
        """Agent steps after which an episode is cut, as in the run's own evaluations."""
        settings = self.manifest.get("evaluation")
        if isinstance(settings, dict) and isinstance(settings.get("max_episode_steps"), int):
            return int(settings["max_episode_steps"])
        return episode_limit(envs.spec, self.evaluation.max_episode_steps)

    def fresh_seed(self, first: int, episodes: int, num_envs: int) -> int:
        """The seed of episodes that this agent has not met (see `fresh_seed`)."""
        if not (self.checkpoint / STATE_FILE).is_file():  # a saved model says nothing of its past
            return first
        state = read_state(self.checkpoint / STATE_FILE)
        data: dict[str, Any] = state.get("data") or {}
        shard: dict[str, Any] = (data.get(SHARDS) or [data])[0]
        position = (shard.get("collector") or {}).get("position")
        begun = position["episodes"] if position else [0] * self.collection.num_envs
        each = 1 if self.tasks is None else len(self.tasks.tasks)
        return fresh_seed(
            first,
            shares_of(episodes * each, num_envs),
            int(state["training_config"]["seed"]),
            [episode + 1 for episode in begun],
            self.evaluation.episodes * each,
        )

    def _restarted(self, fault: EnvironmentFault) -> None:
        self.restarts.append(str(fault.message))


def open_run(folder: Path, checkpoint: str = BEST) -> OpenRun:
    """Open a run folder with one of its checkpoints (see `checkpoint_of`)."""
    manifest = read_manifest(folder)
    path = checkpoint_of(folder, checkpoint)
    model = _saved_model(path)
    precision = manifest.get("precision")
    if isinstance(precision, dict):  # it acts as it did in the run
        model.acting_dtype = COMPUTE_TYPES.get(str(precision.get("acting")), model.acting_dtype)
    return run_with(folder, manifest, path, model)


def run_with(folder: Path, manifest: dict[str, Any], path: Path, model: WorldModel) -> OpenRun:
    """A run folder with a model of the checkpoint `path`, played by the run's own rules."""
    project, root = project_of(folder, manifest), folder.resolve()
    if project is not None:
        root = project.root
    return OpenRun(
        folder=folder,
        manifest=manifest,
        checkpoint=path,
        model=model,
        root=root if project is not None or is_given(root) else None,
        collection=_rules(OnlineCollectionSection, "online_collection", manifest, project),
        evaluation=_rules(EvaluationSection, "evaluation", manifest, project),
        tasks=TaskSet.recorded(manifest.get("tasks")),
    )


def _saved_model(folder: Path) -> WorldModel:
    config = buildable_config(folder)
    require_weights_of(config, folder)
    model = build_model(config)
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval()


def open_model(source: str, env_id: str | None = None, task: int | None = None) -> OpenRun:
    """A saved model, or one on a hub, opened to play in an environment; files go to this folder.

    Args:
        source: a folder, a run, a project or `hf://owner/name[@revision]`.
        env_id: without it, the environment of the project that this folder belongs to.
        task: number of the task, from 0, of a model that learned several.

    Raises:
        EnvironmentSetupError: where the model observes or does something else there.
    """
    place = model_folder(source)
    model = _saved_model(place)
    root, online = None, OnlineCollectionSection()
    kwargs: dict[str, Any] = {}
    if env_id is None:
        project = _project_here(source)
        root, online = project.root, project.sections.online_collection
        env_id, kwargs = project.sections.environment, dict(project.sections.environment_kwargs)
    environment = {"id": env_id, "kwargs": kwargs}
    run = OpenRun(
        folder=Path(),
        manifest={"saved_model": source, "model": source, "environment": environment},
        checkpoint=place,
        model=model,
        root=root,
        collection=online,
        evaluation=EvaluationSection(),
    )
    envs = run.environments(1)
    envs.close()
    count = _task_count(model.config)
    if count == 1 and task is None:
        _require_fitting(source, model.config, envs.spec)
        return run
    if task is None or task >= count:
        raise ConfigurationError(
            f"{source} learned {counted(count, 'task')}, from 0 on; --task is {task}",
            hint="name the number of the task that --env is: --task 0",
        )
    spec, config = envs.spec, model.config
    padding = Padding(count, config.obs_shape, config.action_dim, config.action_type == "discrete")
    one = Task(f"task-{task}", task, env_id, kwargs, spec.action_dim, spec.time_limit)
    small = spec.obs_shape <= config.obs_shape and spec.action_dim <= config.action_dim
    if spec.modalities is not None or not small:
        _require_fitting(source, config, spec)
    return dataclasses.replace(run, tasks=TaskSet((one,), padding))


def _task_count(config: WorldModelConfig) -> int:
    """Tasks that a model learned, by embeddings or as an observation."""
    observed = config.observation_modalities.get(TASK)
    return int(observed["shape"][0]) if observed else int(getattr(config, "num_tasks", 1))


def _project_here(source: str) -> Project:
    file = project_file()
    if not file.is_file():
        raise ConfigurationError(
            f"{source} names no environment to play in, and this folder is no project",
            hint="name one: --env Pendulum-v1",
        )
    return load_project(file)


def _require_fitting(source: str, config: WorldModelConfig, spec: EnvironmentSpec) -> None:
    """Raise EnvironmentSetupError for an environment of other observations or actions."""
    named = {name: tuple(entry["shape"]) for name, entry in config.observation_modalities.items()}
    one = spec.modalities is None and len(named) == 1
    pairs = {
        "observations": (config.obs_shape, spec.obs_shape) if one else (named, spec.modalities),
        "actions": (config.action_dim, spec.action_dim),
        "kind of actions": (config.action_type, spec.action_type),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise EnvironmentSetupError(
                f"{spec.env_id} has {what} {theirs}, and {source} learned with {ours}",
                hint="play it in the environment that it learned in: --env ID",
            )


def project_of(folder: Path, manifest: Mapping[str, Any]) -> Project | None:
    """The project of a run: the nearest whose worldflux.toml agrees, above the run or from here."""
    here = Path.cwd()
    for place in (*folder.absolute().parents, here, *here.parents):
        if not (place / "worldflux.toml").is_file():
            continue
        try:
            project = load_project(place)
        except ConfigurationError:
            continue  # the run is read with its own manifest, not with a broken project
        if project.sections.project_name == manifest.get("project_name"):
            return project
    return None


def _rules(
    kind: type[Rules], name: str, manifest: Mapping[str, Any], project: Project | None
) -> Rules:
    """A section as the run recorded it; of an older run, as its project has it now."""
    configuration = manifest.get("configuration")
    section = configuration.get(name) if isinstance(configuration, dict) else None
    if not isinstance(section, dict):
        return kind() if project is None else getattr(project.sections, name)
    known = {f.name: section[f.name] for f in dataclasses.fields(kind) if f.name in section}
    try:
        return TypeAdapter(kind).validate_json(json.dumps(known))
    except ValidationError as error:
        raise RunFolderError(f"run_manifest.json is damaged: [{name}]: {error}") from None
