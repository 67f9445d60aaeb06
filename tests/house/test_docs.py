"""What the documentation claims of the settings, the commands, the files and the tree, held against the code."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from test_house import ORDER

import pleura
from pleura.cli import app
from pleura.config.augmentation import AugmentConfig
from pleura.config.bundled import load_experiment
from pleura.config.model import ModelConfig
from pleura.config.recipe import Ensemble, MemberConfig, Recipe, RuleConfig
from pleura.config.targets import LabelsConfig
from pleura.config.training import AveragingConfig, LossConfig, ScheduleConfig, StageConfig, TrainingConfig
from pleura.data.dataset import Case
from pleura.data.rle import SIIM_SIDE_PX
from pleura.evaluation.metrics.siim import empty_floor
from pleura.evaluation.metrics.titles import METRICS
from pleura.inference.writers import COLUMNS, WRITES
from pleura.models.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, DOCS = ROOT / "src" / "pleura", ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The recipe", Recipe),
    ("`model`", ModelConfig),
    ("`training`, and each of `stages`", TrainingConfig),
    ("`training.labels`", LabelsConfig),
    ("`training.loss`", LossConfig),
    ("`training.schedule`", ScheduleConfig),
    ("`training.averaging`", AveragingConfig),
    ("`training.augment`", AugmentConfig),
    ("An ensemble", Ensemble),
    ("`members`", MemberConfig),
    ("`triplet`", RuleConfig),
)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def settings_tables() -> dict[str, list[str]]:
    """The tables of docs/settings.md, heading -> rows; written anew by `python tests/house/test_docs.py`."""
    tables = {title: [_row(name, field) for name, field in kind.model_fields.items()] for title, kind in SECTIONS}
    tables["`training`, and each of `stages`"].insert(0, _row("name", StageConfig.model_fields["name"]))
    return tables


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _default(field.default)
    nested = isinstance(field.default, BaseModel)
    meaning = f"see `{name}` below" if nested else " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {default} | {_allowed(field)} | {meaning} |"


def _default(value: object) -> str:
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower().replace('none', 'null')}`"
    return "`" + (str(list(value)) if isinstance(value, tuple) else f"{value}" or '""') + "`"


def _allowed(field: FieldInfo) -> str:
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str | int)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    # Some limits stand on the field, those of a type that may be null inside it.
    inner = [limit for part in get_args(field.annotation) for limit in getattr(part, "__metadata__", ())]
    limits = [limit for entry in (*field.metadata, *inner) for limit in getattr(entry, "metadata", [entry])]
    words = []
    for kind, sign, key in ((Gt, ">", "gt"), (Ge, ">=", "ge"), (Lt, "<", "lt"), (Le, "<=", "le")):
        words += [f"{sign} {getattr(limit, key)}" for limit in limits if isinstance(limit, kind)]
    return ", ".join(words)


def commands(path: Path) -> list[list[str]]:
    """The words of every `pleura` line in the sh blocks of a page; a line that ends in a backslash goes on."""
    lines = [
        line.strip()
        for block in re.findall(r"```sh\n(.*?)```", text(path), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("pleura ")]


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_every_setting_is_in_the_manual_with_its_default_its_range_and_its_meaning() -> None:
    page = text(DOCS / "settings.md")
    missing = [row for title, rows in settings_tables().items() for row in (f"## {title}", *rows) if row not in page]
    assert missing == [], "run python tests/house/test_docs.py"


def test_every_setting_has_a_docstring() -> None:
    for _, kind in SECTIONS:
        for name, field in kind.model_fields.items():
            assert field.description or isinstance(field.default, BaseModel), f"{kind.__name__}.{name}"


def test_the_manual_has_no_setting_that_is_not_there() -> None:
    known = {row for rows in settings_tables().values() for row in rows}
    rows = [line for line in text(DOCS / "settings.md").splitlines() if line.startswith("| `")]
    assert [row for row in rows if row not in known] == []


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_the_reference_names_every_option_of_a_command(verb: str) -> None:
    section = text(DOCS / "reference.md").split(f"### pleura {verb}\n")[1].split("\n### ")[0].split("\n## ")[0]
    named = set(re.findall(r"--[a-z][a-z0-9-]*", section))
    assert named == {parameter.opts[0] for parameter in COMMANDS[verb].params if parameter.opts[0].startswith("--")}


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("columns of cases.csv", [field.name for field in fields(Case)]),
        ("keys of a checkpoint", [field.name for field in fields(Checkpoint) if field.name != "weights"]),
        ("columns of predictions.csv", COLUMNS),
        ("metrics", list(METRICS)),
        ("what predict writes", WRITES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reference_names_what_files_hold(what: str, names: list[str]) -> None:
    page = text(DOCS / "reference.md")
    assert [name for name in names if f"`{name}`" not in page] == []


@every_page
def test_every_command_on_a_page_is_one_that_the_command_line_takes(page: Path) -> None:
    for _, verb, *words in commands(page):
        if verb == "--version":
            continue
        context = COMMANDS[verb].make_context(verb, list(words))
        if verb == "train":
            recipe = context.params["recipe"]
            here = ROOT / recipe if (ROOT / recipe).is_file() else recipe
            load_experiment(here, context.params["overrides"] or [])


@every_page
def test_every_make_target_on_a_page_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE))
    wanted = set(re.findall(r"(?:^|`)make ([a-z]+)", text(page), re.MULTILINE))
    assert wanted <= targets


@every_page
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text(page))]
    local = [target for target in targets if target and not target.startswith(("http", "mailto"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@every_page
def test_every_recipe_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"recipes/([a-z0-9_]+)\.yaml", text(page)))
    assert [name for name in named if not (ROOT / "recipes" / f"{name}.yaml").is_file()] == []


def test_each_cell_on_how_viewers_show_an_object_names_its_source_or_says_that_there_is_none() -> None:
    table = text(DOCS / "how-to.md").split("| viewer | `seg` | `sc` | `gsps` | `sr` |\n|---|---|---|---|---|\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.split("\n\n")[0].splitlines()]
    assert len(rows) >= 5
    assert {len(row) for row in rows} == {5}
    assert [cell for row in rows for cell in row[1:] if not re.search(r"\]\(https://|not known|tried", cell)] == []


def test_the_order_of_imports_in_the_explanation_is_the_one_that_is_tested() -> None:
    found = re.search(r"Imports go one way: (.*?)\.\s", text(DOCS / "explanation.md"), re.DOTALL)
    assert found is not None
    ranks = "".join(found[1].split()).split("<")
    assert [set(rank.split(",")) for rank in ranks] == [set(rank) for rank in ORDER[:-1]]


def test_the_layout_in_the_explanation_equals_the_tree() -> None:
    block = re.search(r"```\nsrc/pleura/\n(.*?)```", text(DOCS / "explanation.md"), re.DOTALL)
    assert block
    told, folder = {}, ""
    for line in block[1].splitlines():
        indent, name, meaning = re.fullmatch(r"( +)(\S+)(?: +(\S.*))?", line).groups()  # type: ignore[union-attr]
        folder = "" if len(indent) == 2 else folder
        if name.endswith("/"):
            folder = name
        else:
            told[folder + name] = meaning
    assert None not in told.values(), "a file without a word on what it is"
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert (there - told.keys(), told.keys() - there) == (set(), set())


def test_the_readme_starts_with_what_it_is_one_picture_and_two_commands() -> None:
    page = text(ROOT / "README.md")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    first = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert page.startswith("# pleura\n")
    assert first
    assert len([picture for picture in pictures if page.index(picture) < first.start()]) == 1
    assert all((ROOT / picture).stat().st_size < 300_000 for picture in pictures)
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]


def test_the_training_loop_is_one_hop_from_the_readme() -> None:
    assert "](src/pleura/training/stage.py)" in text(ROOT / "README.md")


def test_the_floor_in_the_readme_is_the_one_of_the_siim_ids() -> None:
    import numpy as np

    floor = f"{empty_floor(np.arange(12_047) < 2_669):.6f}"
    assert floor == "0.778451"
    assert floor in text(ROOT / "README.md")
    assert f"{SIIM_SIDE_PX} x {SIIM_SIDE_PX}" in text(DOCS / "reference.md")


def test_one_version_is_told_everywhere() -> None:
    citation = yaml.safe_load(text(ROOT / "CITATION.cff"))
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    assert pleura.__version__ == project["version"] == citation["version"]
    assert f"## [{pleura.__version__}]" in text(ROOT / "CHANGELOG.md")
    assert citation["license"] == project["license"] == "MIT"


def write_settings() -> None:
    """Write the tables of docs/settings.md anew, and keep the words around them."""
    page = text(DOCS / "settings.md")
    for title, rows in settings_tables().items():
        head, rest = page.split(f"## {title}\n", 1)
        before, table = rest.split("| setting |", 1)
        after = re.split(r"\n(?!\|)", table, maxsplit=1)[1]
        header = "| setting | default | allowed | meaning |\n|---|---|---|---|\n"
        page = f"{head}## {title}\n{before}{header}" + "\n".join(rows) + "\n" + after
    (DOCS / "settings.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_settings()
