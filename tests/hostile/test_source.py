"""What the source must not do with what it reads."""

import ast
from pathlib import Path

import uem_t5x


def test_nothing_is_unpickled_or_evaluated():
    """No module can run what it reads: by pickle, as Python, or as an array of objects."""
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
    files = list(Path(uem_t5x.__file__).parent.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert modules.isdisjoint(name.partition(".")[0] for name in names), file
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else None
                assert called not in ("eval", "exec", "__import__"), file
                assert "allow_pickle" not in [keyword.arg for keyword in node.keywords], file
