"""ES modules as one script, for a page that is opened from a disk: there a browser loads no module from a file.

Each module becomes a function that runs once and returns what it exports, in the order in which they need each other.
Read are the forms that pleura's own modules are written in; any other is refused, and not guessed.
"""

from __future__ import annotations

import re
from pathlib import Path

_NAME = r"[A-Za-z_$][\w$]*"
_IMPORT = re.compile(rf'^import (?:\{{([^}}]*)\}}|\* as ({_NAME})) from "(\.[^"]+)";', re.MULTILINE)
_DECLARED = re.compile(rf"^export ((?:async )?function\*? ?|class |const )({_NAME})", re.MULTILINE)
_LISTED = re.compile(r"^export \{([^}]*)\};\n?", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*|\bimport\(.*|\bimport\.meta\b.*|^await .*", re.MULTILINE)


def joined(entry: Path, name: str) -> str:
    """Return a module and all that it imports as one script, in which `name` holds what the module exports.

    Raises: ValueError for a module that imports itself by way of others, imports what there is not, or is written in
    a form that is not read; OSError.
    """
    made: dict[Path, str] = {}
    scripts: list[str] = []
    exported: dict[Path, set[str]] = {}

    def add(path: Path, importing: tuple[Path, ...]) -> None:
        if path in made:
            return
        if path in importing:
            raise ValueError(f"{path.name}: imports itself, by way of {importing[-1].name}")
        text = path.read_text(encoding="utf-8")
        for match in _IMPORT.finditer(text):
            other = (path.parent / match[3]).resolve()
            add(other, (*importing, path))
            if missing := {old for old, _ in _pairs(match[1] or "")} - exported[other]:
                raise ValueError(f"{path.name}: {other.name} does not export {', '.join(sorted(missing))}")
        body, names = _body(path, text, made)
        made[path] = f"module{len(made)}"
        exported[path] = {new for _, new in names}
        given = ", ".join(old if old == new else f"{new}: {old}" for old, new in names)
        scripts.append(f"// {path.name}\nconst {made[path]} = (() => {{\n{body}\nreturn {{ {given} }};\n}})();\n")

    add(entry.resolve(), ())
    return "".join([*scripts, f"const {name} = {made[entry.resolve()]};\n"])


def _body(path: Path, text: str, made: dict[Path, str]) -> tuple[str, list[tuple[str, str]]]:
    """A module without its imports and exports, and (own name, exported name) of each export."""

    def imported(match: re.Match[str]) -> str:
        module = made[(path.parent / match[3]).resolve()]
        if match[2]:
            return f"const {match[2]} = {module};"
        names = ", ".join(old if old == new else f"{old}: {new}" for old, new in _pairs(match[1]))
        return f"const {{ {names} }} = {module};"

    names = [(match[2], match[2]) for match in _DECLARED.finditer(text)]
    names += [pair for match in _LISTED.finditer(text) for pair in _pairs(match[1])]
    body = _LISTED.sub("", _DECLARED.sub(r"\1\2", _IMPORT.sub(imported, text)))
    if left := _LEFT.search(body):
        raise ValueError(f"{path.name}: this form of a module is not read: {left[0][:80]}")
    return body.strip(), names


def _pairs(listed: str) -> list[tuple[str, str]]:
    """(before, after) of each `before as after`, or name, in a list."""
    parts = [part.split(" as ") for part in (" ".join(one.split()) for one in listed.split(",")) if part]
    return [(part[0], part[-1]) for part in parts]


def common_js(text: str, name: str) -> str:
    """Return a library that is written for CommonJS, and needs no other, as a script in which `name` holds it.

    It finds no node around it, and so behaves there as it does in a browser.
    """
    return (
        f"const {name} = (() => {{\nconst module = {{ exports: {{}} }}, exports = module.exports;\n"
        f"const require = () => ({{}}), process = undefined;\n{text}\nreturn module.exports;\n}})();\n"
    )


def es_module(text: str, name: str) -> str:
    """Return a library that is one minified ES module, as a script in which `name` holds what it exports.

    It may look for files beside itself, by `import.meta.url`; beside a script that is inside a page there are none.
    Raises: ValueError if it does not end in its one list of exports, as bundlers write it.
    """
    match = re.fullmatch(r"(.*[;}\n])export ?\{([^{}]*)\};?\s*(?://[^\n]*\s*)?", text, re.DOTALL)
    if match is None:
        raise ValueError("a library that does not end in its list of exports")
    given = ", ".join(f"{new}: {old}" for old, new in _pairs(match[2]))
    body = match[1].replace("import.meta.url", '"about:blank"')
    return f"const {name} = (() => {{\n{body}\nreturn {{ {given} }};\n}})();\n"
