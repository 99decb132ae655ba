"""The face of every room: it offers what it lists, and showing it costs no heavy import."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    ".".join(file.parent.relative_to(ROOT).parts): file
    for package in ("specvit", "orchestrator")
    for file in sorted((ROOT / package).rglob("__init__.py"))
}
FRONT_DOORS = (
    *("specvit.config", "orchestrator.plan", "orchestrator.power", "orchestrator.report", "orchestrator.control"),
    "orchestrator.results",
    "orchestrator.cli.app",
)
HEAVY = ("torch", "pandas", "ray", "optuna", "matplotlib", "timm", "datasets")


def names_bound(body: list[ast.stmt], room: str) -> Iterator[str]:
    """Yield what a face defines, or takes from its own room, also in the block for type checkers."""
    for statement in body:
        match statement:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from names_bound(statement.body, room)
            case ast.ImportFrom(module=str(module)) if module == room or module.startswith(f"{room}."):
                yield from (alias.asname or alias.name for alias in statement.names)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign():
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_lists_what_it_offers_and_offers_what_it_lists(room: str) -> None:
    face = importlib.import_module(room)
    offered = {name for name in names_bound(ast.parse(ROOMS[room].read_text()).body, room) if not name.startswith("_")}
    assert len(face.__all__) == len(set(face.__all__))
    # A face may offer a base class that lives in another room; all that is its own it lists.
    assert offered <= set(face.__all__)
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        face.no_such_name  # noqa: B018


# A module whose import was refused is not there for the next face either, so that each is judged by itself.
LOOKING_IN = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ImportError(f"{{name}} is heavy")

heavy, doors = {heavy!r}, {doors!r}
sys.meta_path.insert(0, Refuse())
for door in doors:
    try:
        importlib.import_module(door)
    except ImportError as error:
        print(f"{{door}}: {{error}}")
"""


def test_faces_and_front_doors_import_nothing_heavy() -> None:
    code = LOOKING_IN.format(heavy=HEAVY, doors=(*ROOMS, *FRONT_DOORS))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines() == []


def test_the_command_line_shows_its_help_without_settings() -> None:
    code = "import sys, orchestrator.cli.app; print({'numpy', 'pydantic', 'specvit.config'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("command", ["schema", "plan sweeps/recipes.yaml --json --results none"])
def test_a_command_that_needs_settings_alone_loads_no_numpy(command: str) -> None:
    code = f"import sys, orchestrator.cli.app as cli; cli.app({command.split()}, standalone_mode=False)\n" + (
        "print(*({'numpy', 'torch', 'pandas', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stderr == "\n"
