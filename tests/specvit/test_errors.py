from __future__ import annotations

import ast
import re
from pathlib import Path

from specvit import errors

PACKAGES = [Path(errors.__file__).parent, Path(errors.__file__).parents[1] / "orchestrator"]


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    classes = [
        (node.name, base.id)
        for package in PACKAGES
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    ]
    known = {"SpecsweepError": ""}
    while more := {name: base for name, base in classes if base in known and name not in known}:
        known |= more
    drawn, above = {}, [""]
    for indent, name in re.findall(r"^    ( *)(\w+Error) ", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 2
        above[depth + 1 :] = [name]
        drawn[name] = above[depth]
    assert drawn == known
