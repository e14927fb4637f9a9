"""dataset.py is the user's own code: imported as Python does, its faults shown as the user's."""

from __future__ import annotations

import functools
import pickle
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import ConfigurationError, MissingDependencyError, WorldFluxError
from worldflux.project.dataset_file import own_make_env
from worldflux.project.environments import environment_maker, vector_environment
from worldflux.project.loader import load_project
from worldflux.project.sections import OnlineCollectionSection

from ..warm import Warm

WORLD = """
from dataclasses import dataclass

import gymnasium
import numpy as np


@dataclass(frozen=True)
class Settings:
    size: int = 3


class World(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, settings=Settings()):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (settings.size,), np.float32)
        self.zeros, self.t = np.zeros(settings.size, np.float32), 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.zeros, {}

    def step(self, action):
        self.t += 1
        return self.zeros, 0.5, False, self.t >= 20, {}


def make_env(render_mode=None):
    return World()
"""
LAYOUTS = {
    "a module": {"my_env.py": WORLD, "dataset.py": "from my_env import make_env\n"},
    "a package": {
        "envs/__init__.py": "",
        "envs/world.py": WORLD,
        "dataset.py": "from envs.world import make_env\n",
    },
    "a folder without __init__": {
        "parts/world.py": WORLD,
        "dataset.py": "from parts.world import make_env\n",
    },
    "a module that imports another": {
        "world_impl.py": WORLD,
        "my_env.py": "import world_impl\nmake_env = world_impl.make_env\n",
        "dataset.py": "from my_env import make_env\n",
    },
    "an import inside make_env": {
        "my_env.py": WORLD,
        "dataset.py": "def make_env(render_mode=None):\n    import my_env\n"
        "    return my_env.World(my_env.Settings(4))\n",
    },
    "a class as make_env": {
        "dataset.py": WORLD.replace("self, settings=Settings()", "self, render_mode=None").replace(
            "settings.size", "3"
        )
        + "\n\nmake_env = World\n",
    },
}


def project(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_beside_it_is_imported(layout: str, mode: Any, tmp_path: Path) -> None:
    root = project(tmp_path, LAYOUTS[layout])
    make = environment_maker(root, "custom")
    two = OnlineCollectionSection(processes=2)
    envs = vector_environment(make, "custom", 2, online=two, mode=mode)
    assert envs.spec.obs_shape == (4 if "inside" in layout else 3,)
    envs.reset(0)
    envs.close()


def test_two_projects_in_one_process_keep_their_own_modules(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        files = {"my_env.py": f"NAME = {name!r}\n", "parts/x.py": f"NAME = {name!r}\n"}
        own = "import my_env, parts.x\ndef make_env(render_mode=None): return my_env, parts.x\n"
        make = own_make_env(project(tmp_path / name, {**files, "dataset.py": own}))
        assert make is not None
        assert [module.NAME for module in make()] == [name, name]
    assert str(tmp_path / "two") not in sys.path


def test_it_is_imported_once_and_again_after_an_edit(tmp_path: Path) -> None:
    files = {"my_env.py": "def make_env(render_mode=None): return 1\n"}
    root = project(tmp_path, {**files, "dataset.py": "from my_env import make_env\n"})
    first = own_make_env(root)
    assert own_make_env(root) is first
    (root / "my_env.py").write_text("def make_env(render_mode=None): return 'edited'\n")
    edited = own_make_env(root)
    assert edited is not None
    assert edited() == "edited"


def test_what_it_defines_reaches_a_spawned_process(tmp_path: Path) -> None:
    own = "from dataclasses import dataclass\n@dataclass\nclass Task:\n    size: int = 5\n"
    own += "    def __call__(self): return self.size\n"
    own += "def make_env(render_mode=None): return Task()\n"
    make = own_make_env(project(tmp_path, {"dataset.py": own}))
    assert make is not None
    task = make()
    assert pickle.loads(pickle.dumps(task)) == task
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(task) == 5


RAISED = {
    "raise ValueError('boom')": "ValueError: boom",
    "1 / 0": "ZeroDivisionError: division by zero",
    "{}['horizon']": "KeyError: 'horizon'",
    "assert False": "AssertionError",
    "open('calibration.csv')": "FileNotFoundError: [Errno 2] No such file or directory",
    "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])": "two (2 sub-exceptions)",
    "class Halt(BaseException): pass\nraise Halt('now')": "dataset.Halt: now",
    "import sys\nsys.exit('no licence')": "it called sys.exit('no licence')",
    "import sys; sys.exit()": "it called sys.exit()",
    "exit(3)": "it called sys.exit(3)",
    "import numpy as np\nnp.load('missing.npy')": "FileNotFoundError",
    "import a_package_that_is_not_there": "No module named 'a_package_that_is_not_there'",
    "from gymnasium import no_such_name": "ImportError: cannot import name 'no_such_name'",
    "def f(:": "SyntaxError: invalid syntax",
    "x = (1,": "SyntaxError: '(' was never closed",
    "if True:\nx = 1": "IndentationError",
}


@pytest.mark.parametrize("beside", [False, True], ids=["in dataset.py", "in a module beside it"])
@pytest.mark.parametrize("code", RAISED)
def test_whatever_it_raises_is_told_with_its_file_and_line(
    code: str, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"dataset.py": f"\n{code}\n"}
    if beside:
        files = {"dataset.py": "import broken\n", "broken.py": files["dataset.py"]}
    with pytest.raises(ConfigurationError) as caught:
        own_make_env(project(tmp_path, files))
    expected = RAISED[code].replace("dataset.Halt", "broken.Halt" if beside else "dataset.Halt")
    assert expected in caught.value.message
    assert caught.value.message.startswith("dataset.py cannot be imported: ")
    where = str(caught.value.where).split(":")
    blamed_line = 1 + len(code.splitlines()) if "\n" in code else 2
    assert where[:2] == ["broken.py" if beside else "dataset.py", str(blamed_line)]
    assert (len(where) == 3) is ("SyntaxError" in expected or "Indentation" in expected)


def test_hints_name_the_next_step(tmp_path: Path) -> None:
    hints = {
        "import my_evn": "put my_evn.py next to dataset.py, or: pip install my_evn",
        "import worldflux.telemetry": "worldflux init --force",
        "open('calibration.csv')": "Path(__file__).parent / 'calibration.csv'",
    }
    project(tmp_path, {"calibration.csv": "1"})
    for code, hint in hints.items():
        with pytest.raises(ConfigurationError) as caught:
            own_make_env(project(tmp_path, {"dataset.py": code}))
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize("raw", [b"x = '\xff'", b"x = 1\0"], ids=["not UTF-8", "a null byte"])
def test_a_file_that_is_no_text_is_told(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.py").write_bytes(raw)
    with pytest.raises(ConfigurationError, match=r"dataset\.py cannot be imported: SyntaxError"):
        own_make_env(tmp_path)


def test_our_own_errors_keep_their_kind(tmp_path: Path) -> None:
    own = "from worldflux.errors import MissingDependencyError\n"
    own += "raise MissingDependencyError('no simulator', hint='pip install it')\n"
    with pytest.raises(MissingDependencyError) as caught:
        own_make_env(project(tmp_path, {"dataset.py": own}))
    assert isinstance(caught.value, WorldFluxError)
    assert (caught.value.hint, str(caught.value.where)[-2:]) == ("pip install it", ":2")


@pytest.mark.parametrize(
    ("own", "message", "hint"),
    [
        ("def make_envs(render_mode=None): ...", "no make_env", "did you mean 'make_envs'?"),
        ("import gymnasium\nenv = 3", "no make_env", "define make_env(render_mode=None)"),
        ("", "no make_env", "delete dataset.py"),
        ("make_env = object()", "make_env is not a function: it is a object", "define make_env"),
    ],
)
def test_a_file_that_would_not_be_used_is_refused(
    own: str, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        own_make_env(project(tmp_path, {"dataset.py": own}))
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("signature", ["()", "(mode)", "(config, render_mode=None)"])
def test_a_make_env_that_cannot_be_called_is_told_at_its_line(
    signature: str, tmp_path: Path
) -> None:
    own = f"\n\ndef make_env{signature}:\n    raise AssertionError\n"
    with pytest.raises(ConfigurationError, match="cannot be called with render_mode") as caught:
        environment_maker(project(tmp_path, {"dataset.py": own}), "custom")
    assert str(caught.value.where).endswith("dataset.py:3")
    assert caught.value.hint == "write def make_env(render_mode=None)"


def test_the_command_shows_the_users_line_and_keeps_stdout_clean(
    tiny_project: Path, python: Warm
) -> None:
    command = ("-m", "worldflux", "train", str(tiny_project))
    run = functools.partial(python.run, *command, cwd=tiny_project.parent)
    (tiny_project / "dataset.py").write_text("print('loading')\nraise RuntimeError('no robot')\n")
    done = run()
    where = f"{tiny_project.name}/dataset.py:2"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "starting",
        "loading",
        f"error: {where}: dataset.py cannot be imported: RuntimeError: no robot",
    ]
    assert not (tiny_project / "outputs").exists()
    debugged = run("--debug").stderr
    assert f'{tiny_project.name}/dataset.py", line 2' in debugged
    (tiny_project / "dataset.py").write_text("raise KeyboardInterrupt\n")
    done = run()
    assert (done.returncode, done.stderr) == (130, "starting\ninterrupted\n")


def test_a_run_is_trained_from_another_folder(tiny_project: Path, python: Warm) -> None:
    project(tiny_project, LAYOUTS["a module"])
    (tiny_project / "my_env.py").write_text(WORLD)
    command = ("-m", "worldflux", "train", str(tiny_project), "--set", "environment=custom")
    done = python.run(*command, cwd=tiny_project.parent)
    assert done.returncode == 0, done.stderr
    assert load_project(tiny_project).root == tiny_project
