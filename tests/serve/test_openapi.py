"""The description of the API: its examples are run, and answers are what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from places import ROOT
from served import Answer, Served, form, wait_for
from test_api import BAD

from pleura.serve.openapi import URL
from pleura.serve.problems import KINDS


@pytest.fixture(scope="module")
def description(served: Served) -> dict[str, Any]:
    return served.ask("GET", "/openapi.json").json


def operations(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, methods in description["paths"].items() for method, each in methods.items()]


def check(description: dict[str, Any], path: str, method: str, answer: Answer) -> None:
    """Hold an answer against what the description says of its status and media type."""
    responses = description["paths"][path][method]["responses"]
    said = responses.get(str(answer.status), responses["default"])
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    assert media_type in said.get("content", {"": None}), (path, answer.status)
    if media_type.endswith("json"):
        validate(description, said["content"][media_type]["schema"], answer.json)


def validate(description: dict[str, Any], schema: dict[str, Any], document: Any) -> None:
    whole = {**schema, "components": description["components"]}
    jsonschema.Draft202012Validator(whole).validate(document)


def test_every_address_is_described_with_a_summary_and_a_refusal(served: Served, description) -> None:
    from pleura.serve.guard import ROUTES
    from pleura.serve.pages import PAGES

    described = set(description["paths"])
    assert described == {*ROUTES, "/v1/jobs/{job_id}"} - {"/openapi.json", *PAGES}
    for path, method, operation in operations(description):
        assert operation["summary"], (path, method)
        assert "application/problem+json" in operation["responses"]["default"]["content"]


def test_every_example_fits_its_schema(description) -> None:
    found = 0
    for _, _, operation in operations(description):
        for response in operation["responses"].values():
            for media in response.get("content", {}).values():
                if "example" in media:
                    validate(description, media["schema"], media["example"])
                    found += 1
    assert found >= 6


def test_the_codes_of_problems_are_those_of_the_service(description) -> None:
    assert description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(KINDS)


def test_the_service_has_no_code_that_it_never_gives_and_the_reference_has_all() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/pleura/serve").glob("*.py"))
    given = set(re.findall(r'ProblemError\(\s*"([a-z-]+)"', source))
    assert given == set(KINDS)
    reference = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    # Nobody gets the answer to a connection that is closed.
    assert [code for code in KINDS if f"`{code}`" not in reference] == ["client-gone"]


def test_answers_are_what_the_description_says(served: Served, description, files) -> None:
    for accept in (None, "image/png", "application/dicom", "multipart/related", "multipart/form-data"):
        check(description, "/v1/predict", "post", served.predict(files["dicom"], accept))
    job = served.ask("POST", "/v1/predict:batch", *form(("a", files["png"]), ("b", b"x")))
    check(description, "/v1/predict:batch", "post", job)
    wait_for(lambda: served.ask("GET", job.json["location"]).json["status"] == "finished")
    check(description, "/v1/jobs/{job_id}", "get", served.ask("GET", job.json["location"]))
    check(description, "/v1/jobs/{job_id}", "delete", served.ask("DELETE", job.json["location"]))
    for path in ("/v1/model", "/healthz", "/readyz", "/metrics"):
        check(description, path, "get", served.ask("GET", path))


def test_refusals_are_what_the_description_says(served: Served, description) -> None:
    checked = 0
    for method, path, body, headers, _, _ in BAD:
        address = path.partition("?")[0]
        if method.lower() in description["paths"].get(address, {}):
            check(description, address, method.lower(), served.ask(method, path, body, headers))
            checked += 1
    assert checked > 20


def samples(description: dict[str, Any], lang: str) -> list[str]:
    each = [operation.get("x-codeSamples", []) for _, _, operation in operations(description)]
    return [sample["source"] for found in each for sample in found if sample["lang"] == lang]


@pytest.fixture
def folder(tmp_path: Path, files) -> Path:
    (tmp_path / "image.dcm").write_bytes(files["dicom"])
    (tmp_path / "image.png").write_bytes(files["png"])
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_example_for_the_shell_runs(served: Served, description, folder: Path) -> None:
    found = samples(description, "Shell")
    assert len(found) == 2
    for source in found:
        script = "set -eu\n" + source.replace(URL, f"http://127.0.0.1:{served.port}")
        done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in folder.iterdir()}
    assert made == {"image.dcm", "image.png", "mask.png", "seg.dcm", "sr.dcm", "objects.multipart", "job.json"}
    assert json.loads((folder / "job.json").read_text())["done"] == 2


def test_every_example_for_python_runs(served: Served, description, folder: Path, predictor, files) -> None:
    found = samples(description, "Python")
    assert len(found) == 1
    source = found[0].replace(URL, f"http://127.0.0.1:{served.port}")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    expected = predictor.predict(files["dicom"])
    assert done.stdout.strip() == f"{expected.found()} {predictor.algorithm.weights_sha256}"
