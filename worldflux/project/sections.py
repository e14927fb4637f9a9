"""The sections of worldflux.toml: every key, its type, its bounds and its default, once.

`[training]` and `[architecture]` are not written down here: their keys are the fields of
`TrainingConfig` and of the chosen model's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from worldflux.training.loggers import Tracking

MAX_COUNT = 1_000_000_000

# Text that fits one line of a title or a prompt: no control characters.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class Section:
    """Reads strictly: no value is coerced and no unknown key is passed over."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True, "extra": "forbid"}


@dataclass(frozen=True)
class DataSection(Section):
    """Where training data comes from, and how the replay keeps and samples it.

    `source` is "gym" (the agent collects), "minari" with a `dataset` id, "npz" or "hdf5" with a
    `path` (beside worldflux.toml), or "random" (noise, to try the code). `dones` says what a file's
    lone `dones` column means: "terminations" (each is a true end), "time_limits" (none is) or
    "by_time_limit" (those before the environment's time limit are). `buffer_capacity` counts
    transitions. `storage` "auto" keeps them in memory while they need at most half of what is free,
    else in a memory-mapped file. With `sampling` "recency" a sequence that ended
    `recency_half_life` transitions before the newest is sampled half as often as the newest.
    """

    source: Literal["gym", "random", "minari", "npz", "hdf5"] = "gym"
    dataset: Line | None = None
    path: Line | None = None
    dones: Literal["terminations", "time_limits", "by_time_limit"] | None = None
    buffer_capacity: Annotated[int, Field(ge=100, le=MAX_COUNT)] = 1_000_000
    storage: Literal["auto", "ram", "mmap"] = "auto"
    sampling: Literal["uniform", "recency"] = "uniform"
    recency_half_life: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 100_000.0


@dataclass(frozen=True)
class OnlineCollectionSection(Section):
    """How the agent collects its own data. None means: as the model's family does.

    `warmup_transitions` are random environment steps before the first update,
    `collect_steps_per_update` environment steps for each later update (0.5 is a step for every
    other update), and `pretrain` runs one
    update for each warm-up transition.

    `vector` is "sync" (one process steps all environments in turn), "async" (several `processes`,
    by default one a core) or "native" (the environment's own vector form).

    An environment that breaks its word (raises, hangs longer than `step_timeout_s`, returns what
    its spaces exclude) stops the run, or its process is restarted, at most 3 times.
    `check_bounds` = false lets observations leave the bounds that their space declares.

    `env_resume` says how `--resume` continues the episodes that were running: "replay" repeats
    their actions, "restart" begins new episodes (for a robot, or a slow simulator).
    """

    warmup_transitions: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    collect_steps_per_update: Annotated[float, Field(gt=0, le=100_000)] | None = None
    num_envs: Annotated[int, Field(ge=1, le=1024)] = 1
    pretrain: bool | None = None
    vector: Literal["sync", "async", "native"] = "sync"
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    on_env_error: Literal["stop", "restart"] = "stop"
    step_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    check_bounds: bool = True
    env_resume: Literal["replay", "restart"] = "replay"


@dataclass(frozen=True)
class EvaluationSection(Section):
    """Episodes of each evaluation during training; `training.eval_interval` says how often.

    `episodes` = 0 trains without evaluations. `stop_at_return` ends the run at the first evaluation
    whose mean return is at least that.

    An episode is cut after `max_episode_steps` agent steps. By default that is the environment's
    own time limit; where it declares none, 10,000 steps, or 1,000 if random episodes do not end.

    `environment` "training" plays in the training environments, for one that can exist only once
    (a robot, a licence, a port); their present episodes end there. "separate" plays in copies.
    """

    episodes: Annotated[int, Field(ge=0, le=10_000)] = 10
    stop_at_return: float | None = None
    max_episode_steps: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    environment: Literal["separate", "training"] = "separate"


@dataclass(frozen=True)
class LoggingSection(Section, Tracking):
    """How W&B and trackio name the run (`training.log_to`); unset keys follow WANDB_* variables.

    `project` is this project's name by default, `mode` "offline".
    """


@dataclass(frozen=True)
class GameplaySection(Section):
    """The agent at work: frames while it trains, and the video that each evaluation writes.

    `fps` is the most frames a second; `max_frames` limits a video. Frames of training take at
    most 0.5 % of the run's time, so those that are slow to draw come less often.
    """

    enabled: bool = True
    fps: Annotated[int, Field(ge=1, le=120)] = 15
    max_frames: Annotated[int, Field(ge=1, le=100_000)] = 512


@dataclass(frozen=True)
class VisualizationSection(Section):
    """The local dashboard. `allow_hosts` and `base_path` are for a proxy (docs/dashboard.md)."""

    enabled: bool = False
    host: Line = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8765
    refresh_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 1000
    open_browser: bool = False
    allow_hosts: tuple[Line, ...] = ()
    base_path: Annotated[str, Field(max_length=200)] = ""


@dataclass(frozen=True)
class InferenceSection(Section):
    """Defaults of inference.py: `checkpoint` is "best", "last", an update ("3000") or a folder.

    `horizon` is how many steps the model imagines, there and at each evaluation of training.
    """

    episodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    horizon: Annotated[int, Field(ge=1, le=10_000)] = 15
    checkpoint: Line = "best"


@dataclass(frozen=True)
class VerifySection(Section):
    """What `worldflux verify` checks, at confidence 1 - `alpha`.

    quick: the return over `episodes`, and whether it reaches `threshold`. proof: at least
    `min_seeds` runs, no worse than published by `margin` of the published gain over random.
    auto: proof for several runs, else quick.
    """

    mode: Literal["auto", "quick", "proof"] = "quick"
    episodes: Annotated[int, Field(ge=2, le=10_000)] = 20
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    threshold: float | None = None
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    min_seeds: Annotated[int, Field(ge=2, le=1000)] = 3


@dataclass(frozen=True)
class ProjectSections(Section):
    """A whole worldflux.toml. `architecture` and `training` hold only the keys that were set.

    `environment_kwargs` are the environment's own arguments, and those of
    `worldflux.envs.make.Preparation`.
    """

    project_name: Line
    environment: Line
    model: Line
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    data: DataSection = field(default_factory=DataSection)
    online_collection: OnlineCollectionSection = field(default_factory=OnlineCollectionSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)
    gameplay: GameplaySection = field(default_factory=GameplaySection)
    visualization: VisualizationSection = field(default_factory=VisualizationSection)
    inference: InferenceSection = field(default_factory=InferenceSection)
    verify: VerifySection = field(default_factory=VerifySection)
