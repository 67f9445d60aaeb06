"""A model as one page of HTML that needs no server: the viewer, ONNX Runtime Web, and the exported graph inside.

A page that is opened from a disk may load nothing beside it, so that everything is in it, as text: binaries in base64,
the largest of them gzipped, and scripts inline, by whose hashes the page names all that may run. Its policy lets it
reach nothing: what is dropped on it stays where it is.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pleura.decision.calibration import Calibration, prevalence_of
from pleura.dicom.frontal import uid_names
from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID
from pleura.export.modules import common_js, es_module, joined
from pleura.inference.algorithm import algorithm_of
from pleura.inference.overlay import DISCLAIMER
from pleura.models.exported import Exported

ENGINE = "onnxruntime-web"
BROWSER = Path(__file__).with_name("browser")
VENDOR = BROWSER / "vendor"
VIEWER = Path(__file__).parents[1] / "serve" / "web"
RUNTIME = VENDOR / "ort-wasm-simd-threaded.wasm.gz"
CODECS = {"jpeg": "libjpegturbowasm_decode", "jpegLs": "charlswasm_decode", "jpeg2000": "openjpegwasm_decode"}
"""Decoder -> its module and its binary in `VENDOR`, without `.js` and `.wasm.gz`."""
_PACKED_LEVEL = 9
_COLUMNS = 1 << 16
"""Letters in a line of base64: editors and tools of version control give up on one line of millions."""
_NOT_FOR_DIAGNOSIS = "research software, not for diagnosis"


def runtime_version() -> str:
    """Return the version of ONNX Runtime Web that comes with pleura."""
    match = re.search(r"ONNX Runtime Web v([0-9.]+)", (VENDOR / "ort.wasm.bundle.min.mjs").read_text(encoding="utf-8"))
    return match[1] if match else "of an unknown version"


@cache
def worker_script() -> str:
    """Return the script of a page's worker: the libraries, and the modules that read files and run the graph."""
    libraries = (
        es_module((VENDOR / "ort.wasm.bundle.min.mjs").read_text(encoding="utf-8"), "ort"),
        common_js((VENDOR / "dicomParser.min.js").read_text(encoding="utf-8"), "dicomParser"),
        *(
            common_js((VENDOR / f"{file}.js").read_text(encoding="utf-8"), f"{name}Module")
            for name, file in CODECS.items()
        ),
    )
    modules = ", ".join(f"{name}: {name}Module" for name in CODECS)
    last = (
        f"const library = {{ ort, dicomParser, modules: {{ {modules} }} }};\n"
        'if (typeof WorkerGlobalScope === "undefined") globalThis.pleuraWorker = { ...worker, library };\n'
        "else worker.serve(globalThis, library);\n"
    )
    return "".join((*libraries, joined(BROWSER / "worker.js", "worker"), last))


def page_facts(exported: Exported) -> dict[str, Any]:
    """Return what a page says of its model, and what it has to know of DICOM, as JSON has it."""
    triplet, preprocessing = exported.triplet, exported.preprocessing
    calibration = Calibration.of(exported.calibration) if exported.calibration else None
    algorithm = algorithm_of(
        [exported], exported.weights_sha256, np.ones(1), triplet, calibration,
        tta=exported.tta, precision="float32", engine=ENGINE,
    )  # fmt: skip
    rule = calibration.conformal if calibration else None
    doubt = exported.doubt(ENGINE, "float32")
    return {
        "disclaimer": DISCLAIMER,
        "implementationClass": IMPLEMENTATION_CLASS_UID,
        "uidNames": uid_names(),
        "model": {
            "name": algorithm.name,
            "version": algorithm.version,
            "weights": algorithm.weights_sha256,
            "rule": triplet.in_words(),
            "tta": exported.tta,
            "preparedPx": preprocessing.prepared_px,
            "sizePx": preprocessing.size_px,
            "triplet": {
                "topThreshold": triplet.top_threshold,
                "minPixels": triplet.min_pixels,
                "bottomThreshold": triplet.bottom_threshold,
            },
            "calibration": calibration
            and {"image": list(calibration.image), "conformal": rule and {"threshold": rule.threshold}},
            "prevalence": prevalence_of(exported.calibration) if calibration else None,
            "doubts": [doubt] if doubt else [],
        },
    }


def html_of(graph: bytes, exported: Exported) -> bytes:
    """Return the page of an exported model. graph: its ONNX file.

    Raises: ValueError for a viewer that is written in a form that no page can be made of.
    """
    facts = page_facts(exported)
    script = joined(BROWSER / "page.js", "page")
    page, style = (VIEWER / "index.html").read_text(encoding="utf-8"), _styles()
    if re.search(r"</script|<!--", script, re.IGNORECASE) or "</style" in style:
        raise ValueError("a script or a style of the viewer ends itself inside a page")
    policy = (
        f"default-src 'none'; script-src {_source(script)} 'wasm-unsafe-eval'; worker-src blob:; "
        f"style-src {_source(style)}; img-src blob: data:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="description" content="{escape(_described(facts["model"]))}">\n'
        f"<style>{style}</style>\n"
    )
    parts = {
        "page": ("application/json", json.dumps(facts, ensure_ascii=True, sort_keys=True).replace("<", "\\u003c")),
        "runtime": (_BASE64, _base64(RUNTIME.read_bytes())),
        **{name: (_BASE64, _base64((VENDOR / f"{file}.wasm.gz").read_bytes())) for name, file in CODECS.items()},
        "graph": (_BASE64, _base64(gzip.compress(graph, _PACKED_LEVEL, mtime=0))),
        "worker": (_BASE64, _base64(worker_script().encode())),
    }
    blocks = "".join(
        f'<script type="{kind}" id="pleura-{name}">\n{text}\n</script>\n' for name, (kind, text) in parts.items()
    )
    body = f'{_notice(facts["model"])}{blocks}<script type="module">{script}</script>\n'
    return _assembled(page, head, body).encode()


_BASE64 = "application/octet-stream;base64"


def _described(model: dict[str, Any]) -> str:
    return f"{model['name']}, pleura {model['version']}, weights {model['weights']}: {_NOT_FOR_DIAGNOSIS}"


def _notice(model: dict[str, Any]) -> str:
    """For a reader without scripts, and of the source: what the page is, and whose work is in it."""
    licences = (VENDOR / "LICENSES.txt").read_text(encoding="utf-8")
    said = f"This page runs a model in the browser, and needs JavaScript. {escape(_described(model))}."
    return f'<noscript><p>{said}</p></noscript>\n<script type="text/plain" id="pleura-licences">\n{licences}</script>\n'


def _styles() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in sorted(VIEWER.glob("*.css")))


def _assembled(page: str, head: str, body: str) -> str:
    """The viewer's page with its own style and script exchanged for those that are inside.

    Raises: ValueError where it has none, or several.
    """
    page, scripts = re.subn(r"[ \t]*<script\b[^>]*\bsrc=[^>]*></script>\n?", "", page)
    page = re.sub(r"[ \t]*<link\b[^>]*\brel=\"?(?:stylesheet|modulepreload)\b[^>]*>\n?", "", page)
    page = re.sub(r'\bhref="web/([\w.-]+\.svg)"', lambda match: f'href="{_picture(match[1])}"', page)
    charset = re.search(r"<meta charset[^>]*>\n?", page)
    if not scripts or charset is None or page.count("</body>") != 1:
        raise ValueError("the viewer's page has no script, no charset, or no end of its body")
    page = page[: charset.end()] + head + page[charset.end() :]
    before, after = page.split("</body>")
    return f"{before}{body}</body>{after}"


def _picture(name: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode((VIEWER / name).read_bytes()).decode()}"


def _base64(content: bytes) -> str:
    text = base64.b64encode(content).decode()
    return "\n".join(text[first : first + _COLUMNS] for first in range(0, len(text), _COLUMNS))


def _source(text: str) -> str:
    """How a policy names an inline script or style. Source: CSP 3, 6.7.2.2."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
