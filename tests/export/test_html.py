"""A model as a page: all that is in it, what may run, that it reaches nothing, and whose work it holds."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from exports import tiny_export

from pleura.decision.triplet import Triplet
from pleura.export import html
from pleura.export.html import BROWSER, CODECS, ENGINE, VENDOR, html_of, page_facts, runtime_version, worker_script
from pleura.inference.engines.onnxruntime import OnnxEngine
from pleura.inference.predictor import Predictor
from pleura.models.exported import Exported, load_exported

RULE_OUT = {"threshold": 0.2, "alpha": 0.05, "confidence": 0.95, "patients": 85}
CALIBRATION = {
    "temperature": 1.5,
    "image": [0.3, 0.4, 1.5],
    "method": "beta",
    "conformal": RULE_OUT,
    "prevalence": 0.25,
}
CERTIFIED = {"holds": True, "engine": ENGINE, "precision": "float32"}


class Parts(HTMLParser):
    """Scripts and styles by their attributes, and every attribute that a page could load something by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[tuple[str, dict[str, str], str]] = []
        self.loads: list[str] = []
        self.metas: dict[str, str] = {}
        self._open: tuple[str, dict[str, str]] | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        own = {key: value or "" for key, value in attrs}
        self.loads += [value for key, value in own.items() if key in ("src", "href", "action", "data", "srcset")]
        self.metas |= {own[key]: own["content"] for key in ("http-equiv", "name") if tag == "meta" and key in own}
        self._open = (tag, own) if tag in ("script", "style") else self._open

    def handle_data(self, data):
        if self._open:
            self.texts.append((*self._open, data))

    def handle_endtag(self, tag):
        self._open = None if tag in ("script", "style") else self._open

    def of(self, element_id: str) -> str:
        return "".join(text for _, own, text in self.texts if own.get("id") == element_id)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("page") / "tiny.onnx"
    return load_exported(tiny_export(path, calibration=CALIBRATION, certificate=CERTIFIED))


@pytest.fixture(scope="module")
def page(exported: Exported) -> str:
    return html_of(exported.path.read_bytes(), exported).decode()


def test_equal_input_gives_equal_bytes(exported: Exported, page: str):
    assert html_of(exported.path.read_bytes(), exported).decode() == page


def test_the_policy_lets_nothing_out_and_runs_what_is_inside_alone(page: str):
    parts = Parts(page)
    policy = dict(part.strip().split(" ", 1) for part in parts.metas["Content-Security-Policy"].split(";"))
    for nothing in ("default-src", "connect-src", "base-uri", "form-action"):
        assert policy[nothing] == "'none'"
    assert not re.search(r"https?:|\*|'self'|unsafe-inline|'unsafe-eval'", " ".join(policy.values()))
    run = [text for tag, own, text in parts.texts if tag == "script" and own.get("type") == "module"]
    shown = [text for tag, _, text in parts.texts if tag == "style"]
    assert (len(run), len(shown)) == (1, 1)
    for text, kind in ((run[0], "script-src"), (shown[0], "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[kind].split()[0] == f"'sha256-{digest}'"
    assert not re.search(r"\son[a-z]+=|\sstyle=", re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL))


def test_the_page_loads_nothing_from_elsewhere(page: str):
    assert [address for address in Parts(page).loads if not address.startswith(("#", "data:"))] == []
    assert page.index("Content-Security-Policy") < page.index("<script")
    assert page.index("<meta charset") < 1024


def test_everything_that_runs_is_inside(exported: Exported, page: str):
    parts = Parts(page)
    inside = {name: base64.b64decode(parts.of(f"pleura-{name}")) for name in ("runtime", "graph", "worker", *CODECS)}
    assert gzip.decompress(inside["graph"]) == exported.path.read_bytes()
    assert inside["runtime"] == (VENDOR / "ort-wasm-simd-threaded.wasm.gz").read_bytes()
    for name in CODECS:
        assert gzip.decompress(inside[name])[:4] == b"\0asm"
    assert inside["worker"].decode() == worker_script()
    assert "import.meta" not in worker_script()  # a script that is no module would not start


def test_the_page_says_what_it_is_and_which_model_it_has(exported: Exported, page: str):
    parts = Parts(page)
    facts = json.loads(parts.of("pleura-page"))
    assert facts == json.loads(json.dumps(page_facts(exported)))
    model = facts["model"]
    assert (model["name"], model["weights"], model["doubts"]) == ("pleura tiny", "a" * 64, [])
    assert "not for diagnosis" in parts.metas["description"]
    assert "a" * 64 in parts.metas["description"]
    others = ("dicom-parser", "libjpeg-turbo", "Independent JPEG Group", "CharLS", "OpenJPEG")
    for work in (f"ONNX Runtime Web {runtime_version()}", *others):
        assert work in parts.of("pleura-licences")


def test_the_page_decides_as_a_predictor_does(exported: Exported):
    predictor, model = Predictor([exported]), page_facts(exported)["model"]
    triplet, calibration = predictor.triplet, predictor.calibration
    assert calibration is not None
    assert calibration.conformal is not None
    assert list(model["triplet"].values()) == [triplet.top_threshold, triplet.min_pixels, triplet.bottom_threshold]
    assert model["calibration"]["image"] == list(calibration.image)
    assert model["calibration"]["conformal"]["threshold"] == calibration.conformal.threshold
    assert (model["prevalence"], model["preparedPx"]) == (predictor.prevalence, predictor.prepared_px)
    assert model["name"] == predictor.algorithm.name


def test_a_model_without_calibration_has_none_in_its_page(exported: Exported):
    model = page_facts(replace(exported, calibration=None))["model"]
    assert (model["calibration"], model["prevalence"]) == (None, None)


def test_a_page_whose_engine_was_not_measured_doubts_its_results(exported: Exported):
    other = replace(exported, certificate={**CERTIFIED, "engine": OnnxEngine.name})
    doubts = page_facts(other)["model"]["doubts"]
    assert doubts == [
        "the exported model was certified on onnxruntime in float32, and runs on onnxruntime-web in float32"
    ]


def test_what_a_model_is_called_cannot_end_a_script(exported: Exported):
    named = replace(exported, recipe={"name": "</script><script>alert(1)</script>"}, triplet=Triplet(0.5, 3, 0.25))
    page = html_of(b"graph", named).decode()
    assert "<script>alert" not in page
    assert json.loads(Parts(page).of("pleura-page"))["model"]["name"].endswith("alert(1)</script>")


def test_a_viewer_that_no_page_can_be_made_of_is_refused(exported: Exported, monkeypatch, tmp_path: Path):
    for file in html.VIEWER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(html, "VIEWER", tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><html><body></body></html>", encoding="utf-8")
    with pytest.raises(ValueError, match="has no script, no charset"):
        html_of(b"graph", exported)
    (tmp_path / "viewer.css").write_text("a { } </style>", encoding="utf-8")
    with pytest.raises(ValueError, match="ends itself"):
        html_of(b"graph", exported)


def test_works_of_others_are_those_that_were_fetched():
    listed = dict(line.split()[::-1] for line in (VENDOR / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    there = {path.name for path in VENDOR.iterdir()} - {"SHA256SUMS", "README.md", "LICENSES.txt"}
    assert set(listed) == there
    for name, digest in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
    said = (VENDOR / "README.md").read_text(encoding="utf-8")
    for name in listed:
        assert f"`{name}`" in said
        if name.endswith(".gz"):
            inside = hashlib.sha256(gzip.decompress((VENDOR / name).read_bytes())).hexdigest()
            assert f"{inside}  {name.removesuffix('.gz')}" in said
    assert f"| onnxruntime-web | {runtime_version()} |" in said


def test_every_module_is_used_by_a_page(page: str):
    used = worker_script() + page
    files = sorted(BROWSER.glob("*.js"))
    assert [path.name for path in files if f"// {path.name}\n" not in used] == []
    assert [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []
