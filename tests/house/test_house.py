"""The house rules of CONTRIBUTING.md, read from the source; nothing here imports a net."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from pleura.config.bundled import load_experiment

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pleura"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
FLOOR = PROJECT["requires-python"].removeprefix(">=")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9]\S*)")
PINNED = {match[1]: match[2] for line in CONSTRAINTS if (match := PIN.fullmatch(line))}

# Each may import what stands in a line above it, and its own line; the longest dotted name counts.
ORDER = (
    ("errors", "malloc", "progress"),
    ("extras",),
    ("files",),
    ("urls",),
    ("config",),
    ("decision",),
    ("dicom",),
    ("data",),
    ("models",),
    ("inference",),
    ("evaluation.metrics",),
    ("evaluation.checks", "evaluation.scoring", "evaluation.summary", "evaluation.nested", "evaluation.fitting"),
    ("evaluation.report",),
    ("evaluation",),
    ("training",),
    ("export", "doctor"),
    ("serve", "cluster"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def rank_of(module: str) -> int:
    """Of a dotted name below pleura, by the longest part of it that has a rank."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next(RANK[name] for name in names if name in RANK)


# Heavy dependencies, and the only files that may import them.
HOMES = {
    "timm": {"models/encoders.py"},
    "typer": {name for name in MODULES if name.startswith("cli/")} - {"cli/__init__.py", "cli/copies.py"},
    "rich": {"progress.py"},
    "pydantic": {
        "config/faults.py",
        "config/card.py",
        "config/nodes.py",
        "config/augmentation.py",
        "config/recipe.py",
        "models/bfloat16.py",
        "models/header_schema.py",
        "config/targets.py",
        "config/model.py",
        "config/strict.py",
        "config/training.py",
    },
    "sklearn": set(),  # the measure of tests
    "accelerate": {"training/devices.py", "training/batches.py", "training/learner.py", "training/validation.py"},
    "pydicom": {
        *(
            "dicom/decode.py",
            "dicom/deidentify.py",
            "dicom/frontal.py",
            "dicom/grayscale.py",
            "dicom/grey_values.py",
            "dicom/header.py",
            "dicom/lut.py",
            "dicom/parse.py",
        ),
        *("dicom/seg_reading.py", "dicom/seg_writing.py", "dicom/instance.py", "dicom/source.py"),
        *("dicom/results.py", "dicom/read.py", "dicom/content.py", "dicom/gsps.py", "dicom/sc.py", "dicom/sr.py"),
        "dicom/jpeg_writing.py",
        "data/phantoms/dicom_files.py",
        *(f"serve/pacs/{name}.py" for name in ("associations", "dicomweb", "listener", "store_scu")),
    },
    "simplejpeg": {"dicom/jpeg.py"},
    "gdcm": {"dicom/jpeg_writing.py"},  # reads by way of pydicom
    "torchvision": {"models/encoders.py"},  # before timm, which needs it
    "matplotlib": {"training/curves.py", "evaluation/report/landscape.py"},
    "fastapi": {"serve/app.py", "serve/openapi.py"},
    "starlette": {"serve/app.py"},
    "uvicorn": {"serve/server.py"},
    "python_multipart": {"serve/uploads.py"},
    "prometheus_client": {"serve/metrics.py"},
    "pynetdicom": {f"serve/pacs/{name}.py" for name in ("associations", "listener", "store_scu")},
    "dicomweb_client": {"serve/pacs/dicomweb.py"},
    "requests": {"serve/pacs/dicomweb.py"},
    "highdicom": set(),  # reads in tests what is written
    "onnxruntime": {"inference/engines/onnxruntime.py", "export/int8_onnx.py"},
    "openvino": {"inference/engines/telemetry.py"},
    "onnx": {"export/onnx.py", "export/int8_onnx.py"},
    "onnxscript": {"export/onnx.py"},
    "onnx_ir": {"export/onnx.py"},
    "fsspec": {"urls/store.py"},
    "s3fs": set(),  # by way of fsspec
    "ray": {"cluster/connection.py", "cluster/pool.py", "cluster/gang.py"},
    "nncf": {"export/int8_openvino.py"},
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_FILE_BYTES = 350, 60, 1_500_000
VENDOR = "src/pleura/export/browser/vendor"
"""Works of others, as they publish them."""
LARGER_FILES = {
    "src/pleura/models/default.safetensors": 15_000_000,
    "src/pleura/models/default.onnx": 6_500_000,
    f"{VENDOR}/ort-wasm-simd-threaded.wasm.gz": 4_000_000,
}
"""The files that are allowed more: the model that comes with pleura, to learn from and to run, and what runs it in a
browser."""

every_module = pytest.mark.parametrize("name", list(MODULES))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, by its dotted name, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public functions and classes of a file, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def tracked() -> list[Path]:
    """The project's own files: what git tracks or would; in a tree without git, all that is not hidden or a cache."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith((".", "__pycache__", "shared"))]
        found += [Path(folder, name) for name in names]
    return found


@every_module
def test_a_file_of_the_source_stays_short(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@every_module
def test_a_function_fits_on_one_screen(name: str) -> None:
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(TREES[name])}
    assert {key: size for key, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


@every_module
def test_a_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name])


@every_module
def test_what_is_public_is_documented(name: str) -> None:
    assert [where for where, node in public(TREES[name]) if not ast.get_docstring(node)] == []


@every_module
def test_a_public_function_that_raises_says_so(name: str) -> None:
    if name.startswith("cli/"):
        return  # exits with typer's own exceptions, which its exit codes document

    def raises(node: ast.AST) -> bool:
        return any(isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call) for inner in ast.walk(node))

    def says(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
        return "Raises" in (ast.get_docstring(node) or "")

    parts = [(where, node) for where, node in public(TREES[name]) if not isinstance(node, ast.ClassDef)]
    assert [where for where, node in parts if raises(node) and not says(node)] == []


@every_module
def test_no_assert_print_star_import_or_broad_except_is_in_the_source(name: str) -> None:
    found = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Assert):
            found.append(f"assert, line {node.lineno}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"print, line {node.lineno}")
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            found.append(f"star import, line {node.lineno}")
        if isinstance(node, ast.ExceptHandler):
            caught = [part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)] if node.type else ["all"]
            if {"all", "Exception", "BaseException"} & set(caught):
                found.append(f"broad except, line {node.lineno}")
    assert found == []


@every_module
def test_imports_go_one_way(name: str) -> None:
    """Lazy imports count too: they save time, and change no direction."""
    if name == "__init__.py":
        return
    here = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    wrong = []
    for module in imports(TREES[name]):
        there = module.removeprefix("pleura.")
        if there == module or there.split(".")[0] == "__version__":
            continue
        if rank_of(there) > rank_of(here):
            wrong.append(f"{here} imports {there}")
    assert sorted(set(wrong)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    def dotted(name: str) -> str:
        return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    names = {f"pleura.{dotted(name)}" for name in MODULES if name != "__init__.py"}
    graph: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        needs = set(imports(tree)) & names
        # `from pleura.cli import options` needs the module, and not what the package's __init__ imports.
        packages = {module for module in needs if any(other.rpartition(".")[0] == module for other in needs)}
        graph[f"pleura.{dotted(name)}"] = needs - packages - {f"pleura.{dotted(name)}"}
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert graph == {}


def test_the_package_itself_imports_none_of_its_modules_at_once() -> None:
    at_once = [node for node in TREES["__init__.py"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [module for node in at_once for module in imports(node) if module.startswith("pleura")] == []


@pytest.mark.parametrize("package", list(HOMES))
def test_a_heavy_dependency_has_one_home(package: str) -> None:
    users = {name for name, tree in TREES.items() if any(module.split(".")[0] == package for module in imports(tree))}
    assert users == HOMES[package]


def test_no_file_is_named_after_nothing_in_particular() -> None:
    vague = re.compile(r"(utils?|helpers?|common|misc|legacy_.*|.*_v\d+)")
    assert [name for name in MODULES if vague.fullmatch(Path(name).stem)] == []


def test_help_imports_no_net_and_no_reader() -> None:
    code = (
        "import sys, pleura.cli as cli; cli.app(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'timm', 'accelerate', 'sklearn', 'scipy', 'pydicom', 'numpy'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_no_file_names_a_folder_of_one_machine() -> None:
    places = ["/".join(("", *parts, "")) for parts in (("work", "main"), ("work", "shared"), ("root",), ("home",))]
    found = []
    for path in tracked():
        if path.is_relative_to(ROOT / VENDOR):
            continue
        content = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {place}" for place in places if place.encode() in content]
    assert found == []


def test_no_file_is_large() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    assert [name for name, size in sizes.items() if size > LARGER_FILES.get(name, MAX_FILE_BYTES)] == []


def test_constraints_pin_every_line_exactly() -> None:
    lines = [line for line in CONSTRAINTS if line.strip() and not line.startswith("#")]
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def test_torch_is_pinned_to_the_version_that_pip_finds_for_cpus() -> None:
    assert PINNED["torch"] == "2.13.0"


def test_every_dependency_has_a_low_floor_and_a_constraint() -> None:
    optional = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    pinned = {_normal(name) for name in PINNED}
    optional = [line for line in optional if not line.startswith("pleura[")]  # what another extra has
    for line in [*PROJECT["dependencies"], *optional]:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)>=[0-9.]+", line)
        assert match, f"{line}: a dependency is written name>=floor"
        assert _normal(match[1]) in pinned, f"{line}: has no line in constraints.txt"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_pin_needs_a_newer_python_than_the_floor() -> None:
    needs = {_normal(each.name): each.metadata["Requires-Python"] or "" for each in distributions()}
    lowest = {name: re.search(r">=\s*3\.(\d+)", needs.get(_normal(name), "")) for name in PINNED}
    assert [name for name, match in lowest.items() if match and int(match[1]) > int(FLOOR.removeprefix("3."))] == []


def test_the_floor_of_python_is_the_same_wherever_it_is_said() -> None:
    for name in ("Makefile", ".ci/run", "README.md", "docs/tutorial.md"):
        said = re.findall(r"Python (?:>= )?(3\.\d+)", (ROOT / name).read_text(encoding="utf-8"))
        assert set(said) == {FLOOR}, name
    major, minor = FLOOR.split(".")
    assert f"sys.version_info < ({major}, {minor})" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == FLOOR


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_loads_and_bears_the_name_of_its_file(path: Path) -> None:
    assert load_experiment(path).name == path.stem


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_the_name_of_a_test_is_a_sentence(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in functions(tree) if node.name.startswith("test")]
    assert names, "a test file without a test"
    assert [name for name in names if len(name.removeprefix("test_").split("_")) < 3] == []
