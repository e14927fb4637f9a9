"""No code of the package can run what a file says: its calls are walked, one by one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "worldflux"
MODULES = {"cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
# A reader that can execute -> the argument that keeps it from doing so.
SAFE_WITH = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def offences(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            names += ["cPickle"] * (node.module == "pickle")
        else:
            names = []
        of_pickle = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        if of_pickle and node.attr != "UnpicklingError":  # an error to catch reads nothing
            yield f"{place} uses pickle.{node.attr}"
        yield from (f"{place} imports {n}" for n in names if n.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if called in CALLS or given.get("shell") is True:
            yield f"{place} calls {called}"
        if called in SAFE_WITH:
            name, value = SAFE_WITH[called]
            if given.get(name) is not value:
                yield f"{place} calls {called} without {name}={value}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_in_the_file_can_run_what_it_reads(path: Path) -> None:
    assert list(offences(path)) == []


def test_the_walk_sees_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import pickle\npickle.loads(b)\nfrom yaml import load\nexec('1')\ntorch.load(p)\n"
        "torch.load(p, weights_only=False)\nnp.load(p)\nrun('x', shell=True)\n"
    )
    assert len(list(offences(bad))) == 7
