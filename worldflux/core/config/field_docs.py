"""What each field of a configuration means: the `#:` comments beside the fields, read once.

They stand after a field, or in the lines above it. The editor's schema and the reference show them.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

_COMMENT = re.compile(r"\s*#: (.*)")


def field_docs(cls: type) -> dict[str, str]:
    """The meaning of each field by its name, those of base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ != "builtins" and "__annotations__" in vars(base):
            docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            behind = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
            above: list[str] = []
            line = node.lineno - 2
            while match := _COMMENT.fullmatch(lines[line]):
                above.insert(0, match[1])
                line -= 1
            after = _COMMENT.fullmatch(behind)
            text = " ".join([*above, *([after[1]] if after else [])])
            if text:
                docs[node.target.id] = text
    return docs
