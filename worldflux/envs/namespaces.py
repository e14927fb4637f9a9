"""The environment namespaces, one row each: what worldflux knows of their ids.

Another namespace is one more row and, if it needs a protocol, a module with two functions
(`atari.py`, `dm_control.py`): `register()` makes its ids known to Gymnasium, and
`build(env_id, render_mode, prepared, arguments)` builds one environment.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_ENVIRONMENT = "none"  # as an id: the environment is not available


@dataclass(frozen=True)
class Namespace:
    """Environments that are installed and built in the same way.

    Attributes:
        choice: its name in `worldflux init`, and that of the extra that installs it.
        title: its name for people.
        prefixes: how its ids begin.
        module: what must import.
        environment: what `worldflux init` offers, with `description` and `environment_steps`.
        trial: the id that `worldflux doctor` steps and draws.
        total_steps: updates of a new project with another id.
        protocol: the module that builds it; None for gymnasium.make.
        arguments: of the protocol, next to the environment's own and to `Preparation`.
        action_repeat: frames of one agent step, where the user sets nothing.
        episode_frames: frames of every episode, where they are all alike.
        sticky: probability that the last action is repeated, where the user sets nothing.
        images: whether it observes images.
        discrete: whether its actions are discrete.
        ends_itself: whether episodes end at a limit that no spec declares.
        native_fault: why its own vector form is not taken, if so.
    """

    choice: str
    title: str
    prefixes: tuple[str, ...]
    module: str
    environment: str
    description: str
    environment_steps: int
    trial: str
    total_steps: int = 100_000
    protocol: str | None = None
    arguments: tuple[str, ...] = ()
    action_repeat: int = 1
    episode_frames: int | None = None
    sticky: float | None = None
    images: bool = False
    discrete: bool = False
    ends_itself: bool = False
    native_fault: str | None = None

    @property
    def extra(self) -> str | None:
        """The extra of worldflux that installs it; None where nothing is missing."""
        return self.choice if self.prefixes else None


# Every id that no other row claims.
CLASSIC = Namespace(
    choice="classic",
    title="classic control",
    prefixes=(),
    module="gymnasium",
    environment="Pendulum-v1",
    description="minutes on a laptop",
    environment_steps=4_500,
    trial="CartPole-v1",
)
MUJOCO = Namespace(
    choice="mujoco",
    title="MuJoCo",
    prefixes=(
        *("Ant-v", "HalfCheetah-v", "Hopper-v", "Humanoid-v", "HumanoidStandup-v", "Pusher-v"),
        *("InvertedDoublePendulum-v", "InvertedPendulum-v", "Reacher-v", "Swimmer-v", "Walker2d-v"),
    ),
    module="mujoco",
    environment="HalfCheetah-v5",
    description="hours, better with a GPU",
    environment_steps=200_000,
    trial="HalfCheetah-v5",
)
ATARI = Namespace(
    choice="atari",
    title="Atari",
    prefixes=("ALE/",),
    module="ale_py",
    environment="ALE/Pong-v5",
    description="from pixels, needs a GPU",
    environment_steps=100_000,
    trial="ALE/Pong-v5",
    protocol="worldflux.envs.atari",
    arguments=("noop_max", "terminal_on_life_loss"),
    action_repeat=4,
    sticky=0.25,
    images=True,
    discrete=True,
    ends_itself=True,  # the emulator ends each game after 108,000 frames
    native_fault=(
        "draws idle starts and sticky actions from its own random streams, so that its games are "
        "not those of the Atari protocol here, and cannot be played again on resume"
    ),
)
CONTROL = Namespace(
    choice="dmc",
    title="dm_control",
    prefixes=("dm_control/",),
    module="dm_control",
    environment="dm_control/walker-walk-v0",
    description="an hour on a laptop",
    # 100,000 control steps with tdmpc2:laptop: one update for every other agent step, and
    # pretraining.
    environment_steps=26_000,
    trial="dm_control/cartpole-swingup-v0",
    total_steps=26_000,
    protocol="worldflux.envs.dm_control",
    action_repeat=2,
    episode_frames=1_000,
)

NAMESPACES = (CLASSIC, MUJOCO, ATARI, CONTROL)
CHOICES = {row.choice: row for row in NAMESPACES}


def namespace_of(env_id: str) -> Namespace:
    return next((row for row in NAMESPACES if env_id.startswith(row.prefixes)), CLASSIC)


def frames_per_step(env_id: str, action_repeat: int | None = None) -> int:
    """Frames in one agent step, as published curves count them: the given or usual repeat."""
    return action_repeat or namespace_of(env_id).action_repeat
