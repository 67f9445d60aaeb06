"""The viewer's page as it is sent: its headers, and that it holds and loads nothing but its own files."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files as files_of

import pytest
from places import ROOT
from served import Seen, Served, serving

from pleura.dicom.instance import NOT_FOR_DIAGNOSIS
from pleura.serve.keys import load_keys
from pleura.serve.pages import PAGES

WEB = ROOT / "src/pleura/serve/web"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted(WEB.iterdir())}
SCRIPTS = [name for name in SOURCES if name.endswith(".js")]
MAX_LINES = 350


@pytest.mark.parametrize("path", list(PAGES))
def test_each_file_is_sent_as_it_is_and_may_do_nothing_that_it_need_not(served: Served, path: str) -> None:
    answer = served.ask("GET", path)
    assert (answer.status, answer.body) == (200, (WEB / (path.rpartition("/")[2] or "index.html")).read_bytes())
    policy = dict(line.split(" ", 1) for line in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    kinds = {"": "text/html", "html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].partition(";")[0] == kinds[path.rpartition(".")[2].strip("/")]
    head = served.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")


def test_every_file_of_the_folder_is_sent_and_they_come_with_the_package() -> None:
    assert {path.rpartition("/")[2] or "index.html" for path in PAGES} == set(SOURCES)
    assert {one.name for one in files_of("pleura.serve").joinpath("web").iterdir()} == set(SOURCES)


def test_the_page_loads_without_a_key_and_nothing_else_does(seen: Seen, files, tmp_path) -> None:
    (tmp_path / "keys").write_text("a-key-of-this-test-alone")
    with serving(seen, keys=load_keys(tmp_path / "keys")) as served:
        assert {served.ask("GET", path).status for path in PAGES} == {200}
        for path in ("/v1/model", "/web/other.js", "/web/"):
            assert served.ask("GET", path).status == 401, path
        assert served.predict(files["png"], "multipart/form-data").status == 401


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_has_no_script_or_style_of_its_own_and_names_files_that_are_there() -> None:
    tags = _Tags()
    tags.feed(SOURCES["index.html"])
    for tag, attributes in tags.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            if name in attributes:
                assert f"/{attributes[name]}" in PAGES, attributes[name]
    assert "style" not in {tag for tag, _ in tags.found}
    assert all("src" in attributes for tag, attributes in tags.found if tag == "script")
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes.get("for") for tag, attributes in tags.found if tag == "label"}
    assert {attributes["id"] for tag, attributes in tags.found if tag == "input"} <= labels
    named = set(re.findall(r'\bby\("([a-z-]+)"\)|_by\("([a-z-]+)"\)', "".join(SOURCES[name] for name in SCRIPTS)))
    assert {one or other for one, other in named} <= set(ids)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_imports_its_neighbours_and_what_they_export_and_asks_nobody_else(name: str) -> None:
    source = SOURCES[name]
    assert len(source.splitlines()) <= MAX_LINES
    for names, module in re.findall(r'^import \{ (.*?) \} from "\./(.*?)";$', source, re.MULTILINE):
        exported = set(re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", SOURCES[module], re.MULTILINE))
        assert set(names.split(", ")) <= exported, module
    code = re.sub(r"/\*.*?\*/", "", re.sub(r"//.*", "", source), flags=re.DOTALL)
    assert len(re.findall(r"\bimport\b", code)) == len(re.findall(r"^import \{", code, re.MULTILINE))
    never = r"https?://|\beval\(|innerHTML|insertAdjacentHTML|document\.write|localStorage|sessionStorage|cookie"
    assert not re.search(never, source)
    if "Exports: " in source:
        said = re.search(r"^// Exports: ([\w, ]+)\.", source, re.MULTILINE)
        assert said is not None
        exported = set(re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", source, re.MULTILINE))
        assert set(said[1].split(", ")) == exported


def test_the_words_of_the_disclaimer_are_those_of_the_dicom_objects() -> None:
    assert f'NOT_FOR_DIAGNOSIS = "{NOT_FOR_DIAGNOSIS}"' in SOURCES["source.js"]


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_all_text_has_enough_contrast_and_nothing_is_bright() -> None:
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", SOURCES["viewer.css"]))
    for ground in ("back", "face", "raised"):
        assert luminance(colours[ground]) < 0.025, "a dark room stays dark"
        for text in ("text", "soft", "accent", "warn", "found", "none"):
            contrast = (luminance(colours[text]) + 0.05) / (luminance(colours[ground]) + 0.05)
            assert contrast >= 4.5, (text, ground, contrast)
