"""What docs/benchmarks.md and benchmarks/ say of each other; nothing is run or timed here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def test_there_are_benchmarks() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_benchmark_is_named_in_the_docs(script: Path) -> None:
    assert f"benchmarks/{script.name}" in PAGE.read_text(encoding="utf-8")


def test_the_docs_name_no_benchmark_that_is_not_there() -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", PAGE.read_text(encoding="utf-8")))
    assert named == {script.name for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_benchmark_compiles_says_what_it_does_and_runs_only_as_a_script(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    compile(source, str(script), "exec")
    module = ast.parse(source)
    assert ast.get_docstring(module)
    guards = [ast.unparse(node.test) for node in module.body if isinstance(node, ast.If)]
    assert "__name__ == '__main__'" in guards
