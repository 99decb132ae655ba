"""The house as CONTRIBUTING describes it: how large modules and folders may be, and how docstrings begin."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("specvit", "orchestrator")
TREES = (*PACKAGES, "tests")
"""Where Python modules of the repository lie."""
MOST_LINES = 350
MOST_MODULES = 22
FOREIGN = ("Hold", "Holds", "Hear", "Take note", "Tell", "Tells", "Say", "Says", "Know", "Knows", "Complain")
"""Openings that name neither what a function does nor what a class is."""


def modules(trees: tuple[str, ...] = PACKAGES) -> list[Path]:
    return sorted(path for tree in trees for path in (ROOT / tree).rglob("*.py"))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module with their lines, also those under fields and constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, text


def test_python_modules_lie_in_the_packages_and_the_tests() -> None:
    listing = ["git", "-C", str(ROOT), "ls-files", "*.py"]
    known = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.splitlines()
    assert [path for path in known if not path.startswith(tuple(f"{tree}/" for tree in TREES))] == []


def test_no_module_is_too_long() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(TREES)}
    assert {path: lines for path, lines in sizes.items() if lines > MOST_LINES} == {}


def test_no_folder_holds_too_many_modules() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in modules(TREES))
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_says_what_lives_in_it(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    faces = [folder / "__init__.py" for folder in sorted(folders)]
    assert [str(face) for face in faces if not face.is_file()] == []
    assert [str(face) for face in faces if not ast.get_docstring(ast.parse(face.read_text()))] == []


def test_no_docstring_begins_with_a_word_that_hides_what_is_done() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in modules()
        for line, text in docstrings(path)
        if text.lstrip().startswith(tuple(f"{word} " for word in FOREIGN))
    ]
    assert found == []
