"""Every component is a thin wrapper: typed, documented, one call into the library."""

import ast
from pathlib import Path

import pytest

FILES = sorted(p for p in Path("components").glob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_a_component_is_one_documented_call(file: Path) -> None:
    module = ast.parse(file.read_text())
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    assert function.name == file.stem
    documentation = ast.get_docstring(function) or ""
    arguments = {argument.arg for argument in function.args.args}
    assert all(f"{name}: " in documentation for name in arguments), "an argument is not documented"
    assert {"metrics"} <= arguments, "without a file at metrics.path a cached step always runs again"
    body = [node for node in function.body[1:] if not isinstance(node, ast.ImportFrom)]
    assert len(body) <= 3, "logic belongs in the library"
    imports = [n.module for n in function.body if isinstance(n, ast.ImportFrom)]
    assert sum(module.startswith("assay") for module in imports) >= 1
