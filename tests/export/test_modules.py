"""Modules joined to one script: what each exports and imports is what it was, and other forms are refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pleura.export.modules import common_js, es_module, joined

COUNTER = """// A module.
import { step as by, START } from "./parts/steps.js";
import * as words from "./words.js";

const count = START + by;  // `import` is a word, too
export const LATER = words.say(count);
export function twice(value) {
  return 2 * value;
}
export class Box {}
export async function wait() {}
function own() {
  return 1;
}
export { own as renamed, count };
"""
STEPS = 'import { say } from "../words.js";\nexport const step = 2, other = say(1);\nexport const START = 40;\n'
WORDS = 'export const say = value => `it is ${value}`;\nconst count = "another count";\n'


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "steps.js").write_text(STEPS, encoding="utf-8")
    (tmp_path / "words.js").write_text(WORDS, encoding="utf-8")
    path = tmp_path / "counter.js"
    path.write_text(COUNTER, encoding="utf-8")
    return path


def run(script: str) -> str:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_a_module_gives_what_it_gave_and_each_runs_once(counter: Path):
    script = joined(counter, "counter")
    assert script.count("const say =") == 1
    last = "console.log(counter.LATER, counter.twice(4), counter.renamed(), counter.count, typeof counter.Box)"
    assert run(script + last) == "it is 42 8 1 42 function"
    assert run(script + "console.log(Object.keys(counter).length, typeof own, typeof say)") == "6 undefined undefined"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("export default 1;\n", "counter.js: this form of a module is not read: export default 1;"),
        ("export let count = 1;\n", "this form of a module is not read: export let"),
        ('import steps from "./words.js";\n', "this form of a module is not read: import steps"),
        ('export * from "./words.js";\n', "this form of a module is not read"),
        ('const words = import("./words.js");\n', "this form of a module is not read"),
        ("const here = import.meta.url;\n", "this form of a module is not read"),
        ('import { nothing, say } from "./words.js";\n', "counter.js: words.js does not export nothing"),
        ('import { own } from "./counter.js";\n', "counter.js: imports itself, by way of counter.js"),
    ],
)
def test_another_form_of_a_module_is_refused(counter: Path, text: str, reason: str):
    counter.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=reason.replace(".", r"\.").replace("*", r"\*")):
        joined(counter, "counter")


def test_two_modules_that_import_each_other_are_refused(counter: Path):
    (counter.parent / "words.js").write_text('import { LATER } from "./counter.js";\nexport const say = LATER;\n')
    with pytest.raises(ValueError, match=r"counter\.js: imports itself, by way of words\.js"):
        joined(counter, "counter")


def test_a_module_that_is_missing_is_an_error(counter: Path):
    (counter.parent / "words.js").unlink()
    with pytest.raises(FileNotFoundError):
        joined(counter, "counter")


def test_libraries_of_both_kinds_are_held_by_a_name():
    older = 'var own = 1; module.exports = { two: own + 1, node: typeof process, needs: typeof require("zlib") };'
    newer = "var a=1,b=import.meta.url;export{a as one,b as here};\n//# sourceMappingURL=x.map\n"
    script = common_js(older, "older") + es_module(newer, "newer")
    last = "console.log(older.two, older.node, older.needs, newer.one, newer.here, typeof own)"
    assert run(script + last) == "2 undefined object 1 about:blank undefined"
    with pytest.raises(ValueError, match="does not end in its list of exports"):
        es_module("var a=1;", "newer")
