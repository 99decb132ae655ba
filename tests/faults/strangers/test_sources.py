"""Our own sources: none calls what could execute a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SOURCES = [path for package in ("orchestrator", "specvit") for path in sorted((REPOSITORY / package).rglob("*.py"))]
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads"),
    *("dill.load", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "shelve.open", "pd.read_pickle"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "jsonpickle.decode", "torch.hub.load", "tarfile.extractall"),
}


def _calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {str(word.arg): ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_source_calls_what_could_execute_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, words in _calls(ast.parse(text)):
        assert name not in FORBIDDEN_CALLS
        assert not name.endswith((".extractall", ".enable_load_extension", ".load_extension"))
        if name == "torch.load":
            assert words["weights_only"] == "True"
        if name in ("np.load", "np.lib.format.read_array"):
            assert words["allow_pickle"] == "False"
        assert words.get("shell", "False") == "False"
        assert words.get("allow_pickle", "False") == "False"
        assert words.get("trust_remote_code", "False") == "False"
    assert "0.0.0.0" not in text


def test_no_source_sets_rays_authentication() -> None:
    """It is looked at, and taken back to what it was, in one place."""
    found = [
        ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.Subscript) and "'RAY_AUTH_MODE'" in ast.unparse(node)
    ]
    assert sorted(found) == ["os.environ.get('RAY_AUTH_MODE')", "os.environ.pop('RAY_AUTH_MODE', None)"]
