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
    """Where training data comes from, and how the replay keeps and samples it."""

    #: "gym": the agent collects; "minari", "npz", "hdf5" or "lerobot": recorded; "random": noise,
    #: to try code
    source: Literal["gym", "random", "minari", "npz", "hdf5", "lerobot"] = "gym"
    dataset: Line | None = None  #: id of a Minari data set
    path: Line | None = None  #: file or folder of recorded data, relative to the project
    #: observations of a LeRobot data set that are read, such as ["state"]; unset: all
    features: Annotated[tuple[Line, ...], Field(min_length=1)] | None = None
    #: what a file's lone `dones` are: true ends, time limits, or distinguished by the time limit
    dones: Literal["terminations", "time_limits", "by_time_limit"] | None = None
    buffer_capacity: Annotated[int, Field(ge=100, le=MAX_COUNT)] = 1_000_000  #: transitions kept
    #: where they are: "auto" takes memory while half of the free one holds them, else a mapped file
    storage: Literal["auto", "ram", "mmap"] = "auto"
    sampling: Literal["uniform", "recency"] = "uniform"  #: which sequences are drawn more often
    #: with "recency": a sequence that ended so many transitions ago is drawn half as often
    recency_half_life: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 100_000.0
    #: share of the sequences of a batch that are recorded ones, once the agent has collected others
    #: (online_collection.after_offline_updates)
    recorded_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    #: weight of a behaviour-cloning loss: the policy learns to act as recorded; 0: it does not
    imitation_weight: Annotated[float, Field(ge=0, le=MAX_COUNT)] = 0.0
    #: updates over which that weight falls to 0, from the first that collects; unset: it stays
    imitation_decay_updates: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None


@dataclass(frozen=True)
class OnlineCollectionSection(Section):
    """How the agent collects its own data. None means: as the model's family does."""

    #: random environment steps before the first update
    warmup_transitions: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    #: environment steps for each update; 0.5 is one for every other update
    collect_steps_per_update: Annotated[float, Field(gt=0, le=100_000)] | None = None
    num_envs: Annotated[int, Field(ge=1, le=1024)] = 1  #: environments that are stepped together
    pretrain: bool | None = None  #: run one update for each warm-up step, before the others
    #: with recorded data: the agent also collects its own, after so many updates; unset: never
    after_offline_updates: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    #: "sync": one process steps them in turn; "async": several; "native": their own vector form
    vector: Literal["sync", "async", "native"] = "sync"
    #: processes of "async"; unset: one a core
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    #: a faulty environment stops the run, or its process is restarted, at most max_restarts times
    on_env_error: Literal["stop", "restart"] = "stop"
    max_restarts: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 3  #: of one run
    #: seconds after which a step or reset counts as hung
    step_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    check_bounds: bool = True  #: false: observations may leave the bounds that their space declares
    #: how --resume continues episodes: repeats their actions, or begins new ones (robots)
    env_resume: Literal["replay", "restart"] = "replay"


@dataclass(frozen=True)
class EvaluationSection(Section):
    """The evaluations during training; `training.eval_interval` says how often."""

    #: episodes of each evaluation; 0: none is played
    episodes: Annotated[int, Field(ge=0, le=10_000)] = 10
    stop_at_return: float | None = None  #: mean return that completes the run
    #: agent steps after which an episode is cut; unset: the environment's own time limit, or where
    #: it declares none 10,000, or 1,000 if random episodes do not end
    max_episode_steps: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    #: "training" plays in the training environments, for one that can exist only once (a robot, a
    #: licence, a port), whose present episodes end there; "separate": in copies
    environment: Literal["separate", "training"] = "separate"
    #: "plan", or "prior": the learned policy alone. That return counts, and those of the model's
    #: other ways to act are reported next to it; unset: the model's own way, alone
    policy: Literal["plan", "prior"] | None = None


@dataclass(frozen=True)
class LoggingSection(Section, Tracking):
    """How the run is called in its manifest and by the loggers of `training.log_to`."""


@dataclass(frozen=True)
class GameplaySection(Section):
    """The agent at work: frames while it trains, and the video that each evaluation writes."""

    enabled: bool = True  #: false: nothing is drawn
    #: frames a second at most (drawing takes at most 0.5 % of the time), and of videos where the
    #: environment has no render_fps
    fps: Annotated[int, Field(ge=1, le=120)] = 15
    max_frames: Annotated[int, Field(ge=1, le=100_000)] = 512  #: longest video


@dataclass(frozen=True)
class VisualizationSection(Section):
    """The local dashboard."""

    enabled: bool = False  #: true: worldflux train opens it
    host: Line = "127.0.0.1"  #: address that it listens on
    port: Annotated[int, Field(ge=1, le=65_535)] = 8765  #: the first port tried
    refresh_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 1000  #: between two looks at the run
    open_browser: bool = False  #: open the page in the browser
    allow_hosts: tuple[Line, ...] = ()  #: names under which a proxy reaches it
    base_path: Annotated[str, Field(max_length=200)] = ""  #: path under which a proxy serves it


@dataclass(frozen=True)
class InferenceSection(Section):
    """What the generated inference.py does."""

    episodes: Annotated[int, Field(ge=1, le=10_000)] = 1  #: episodes that are played
    #: steps that the model imagines, here and at each evaluation of training
    horizon: Annotated[int, Field(ge=1, le=10_000)] = 15
    checkpoint: Line = "best"  #: "best", "last", an update such as "3000", or a folder


@dataclass(frozen=True)
class VerifySection(Section):
    """What `worldflux verify` checks, at confidence 1 - `alpha`."""

    #: "quick": one run; "proof": several against a published curve; "auto": by their number
    mode: Literal["auto", "quick", "proof"] = "quick"
    episodes: Annotated[int, Field(ge=2, le=10_000)] = 20  #: fresh episodes that are played
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05  #: one-sided error level
    threshold: float | None = None  #: mean return that the agent must surely reach
    #: share of the published gain over random that a proof may fall short
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    min_seeds: Annotated[int, Field(ge=2, le=1000)] = 3  #: runs that a proof needs


@dataclass(frozen=True)
class DistributedSection(Section):
    """Data-parallel training: parts that one or more processes host (`worldflux train --nproc`)."""

    #: parts of a run, each with its environments, replay buffer and rows of the batch; the result
    #: depends on their number, and not on the number of processes
    shards: Annotated[int, Field(ge=1, le=4096)] = 1
    #: of each process with several shards; the last bits of a result depend on it
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    #: seconds that a process waits for the others: longer than an evaluation takes
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0


@dataclass(frozen=True)
class TaskSection(Section):
    """One of several tasks that one agent learns: [[tasks]]."""

    #: name of the task, in returns and metrics
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")]
    environment: Line | None = None  #: unset: the project's
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict)  #: over the project's
    #: agent steps after which an episode is cut; unset: the environment's own time limit
    episode_length: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0  #: share of the batches, relative
    reference_return: float | None = None  #: return that counts as 1 in normalised scores
    data: Line | None = None  #: recorded data of this task, of the kind that data.source says


@dataclass(frozen=True)
class SweptSection(Section):
    """The values of a setting in a sweep: `low` to `high`, or `choices`."""

    low: Any = None  #: the smallest number; only whole ones are tried where both ends are whole
    high: Any = None  #: the largest number
    log: bool = False  #: draw the logarithm evenly, such as for learning rates
    step: Any = None  #: distance between numbers; unset: 1 between whole ones, else none
    choices: tuple[Any, ...] = ()  #: the values, instead of a range


@dataclass(frozen=True)
class SweepSection(Section):
    """What `worldflux sweep` tries, with Optuna. The largest return wins."""

    #: settings, in quotes, and their ranges, such as
    #: "training.learning_rate" = { low = 1e-4, high = 1e-2, log = true }, a table of the keys below
    parameters: Mapping[str, SweptSection] = field(default_factory=dict)
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20  #: runs of the whole study
    #: mean return that counts: of the "last" evaluation of a run, or of the "best"
    score: Literal["last", "best"] = "last"
    sampler: Literal["tpe", "random", "gp", "cmaes"] = "tpe"  #: chooses the values
    sampler_options: Mapping[str, Any] = field(default_factory=dict)  #: of Optuna's class
    #: ends runs whose evaluations fall behind
    pruner: Literal["none", "median", "successive_halving", "hyperband"] = "median"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)  #: of Optuna's class
    sampler_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  #: of what the sampler draws
    #: database that several machines share, such as "postgresql://..."; unset: a file in the folder
    storage: Line | None = None


@dataclass(frozen=True)
class ProjectSections(Section):
    """A whole worldflux.toml. `architecture` and `training` hold only the keys that were set."""

    project_name: Line  #: name of the project, in manifests and on the dashboard
    environment: Line  #: any Gymnasium id, or module:Env-v0 from a module in this folder
    #: a preset (worldflux models list), or "./folder" of a saved model, whose weights are taken
    model: Line
    #: a saved model, a run or hf://owner/name whose weights the run begins with, as far as they fit
    start_from: Line | None = None
    #: the environment's own arguments, and pixels, image_size, frame_stack, action_repeat and
    #: action_mask
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: fields of the model's configuration: worldflux models info ID
    architecture: Mapping[str, Any] = field(default_factory=dict)
    #: how long, how large and how often
    training: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskSection, ...] = ()  #: [[tasks]]: several tasks for one agent
    data: DataSection = field(default_factory=DataSection)
    online_collection: OnlineCollectionSection = field(default_factory=OnlineCollectionSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)
    gameplay: GameplaySection = field(default_factory=GameplaySection)
    visualization: VisualizationSection = field(default_factory=VisualizationSection)
    distributed: DistributedSection = field(default_factory=DistributedSection)
    inference: InferenceSection = field(default_factory=InferenceSection)
    verify: VerifySection = field(default_factory=VerifySection)
    sweep: SweepSection = field(default_factory=SweepSection)
