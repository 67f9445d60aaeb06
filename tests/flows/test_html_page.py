"""A page of the model that comes with pleura, opened from a disk in chromium: files, results, and nothing reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browsing, needs_browser
from dicom_files import make_dicom
from PIL import Image

from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.levels import levels_of
from pleura.export.html import html_of
from pleura.inference.predictor import Predictor
from pleura.models.default import default_export
from pleura.models.exported import load_exported

pytestmark = [needs_browser, pytest.mark.slow]
PATIENCE_S = 240
"""The first radiograph compiles the runtime and builds the graph."""
CASE = """
const { case: found } = pleura.worklist.current;
return { result: found.result, levels: Array.from(found.levels), rows: found.rows, columns: found.columns };
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    exported = load_exported(default_export())
    (folder / "default.html").write_bytes(html_of(exported.path.read_bytes(), exported))
    (folder / "browser").mkdir()
    with browsing(folder / "browser") as browser:
        browser.driver.get((folder / "default.html").as_uri())
        yield browser


def shown(page: Browser, name: str) -> bool:
    """Whether a radiograph is analysed, or refused."""
    script = (
        "const one = pleura.worklist.current; return one?.name === arguments[0] && Boolean(one.case || one.problem)"
    )
    return bool(page.run(script, name))


def opened(page: Browser, path: Path) -> None:
    """Open one file, as the only one."""
    from selenium.webdriver.support.ui import WebDriverWait

    page.run("document.getElementById('clear').click()")
    page.by("files").send_keys(str(path))
    WebDriverWait(page.driver, PATIENCE_S, 0.1).until(lambda _: shown(page, path.name))


def phantom(folder: Path) -> Path:
    image = np.rint(make_phantom(101, 640, True).image * 255).astype(np.uint8)[:, 50:-41]
    Image.fromarray(image).save(folder / "phantom.png")
    return folder / "phantom.png"


def test_a_page_from_a_disk_says_what_a_predictor_says_and_reaches_nothing(page: Browser, tmp_path: Path):
    path = phantom(tmp_path)
    page.requests()
    opened(page, path)
    found, prediction = page.run(CASE), Predictor([load_exported(default_export())]).predict(path)
    levels = np.array(found["levels"], np.uint8).reshape(found["rows"], found["columns"])
    assert np.abs(levels.astype(int) - levels_of(prediction.probabilities)).max() <= 1
    result = found["result"]
    assert (result["is_positive"], result["side"]) == (prediction.is_positive, prediction.side)
    assert result["score"] == pytest.approx(prediction.score, abs=1e-4)
    assert result["area_px"] == pytest.approx(prediction.area_px, rel=0.002)
    assert "not for diagnosis" in page.text("disclaimer")
    assert [one for one in page.requests() if not one.split()[1].startswith(("blob:", "data:", "file:"))] == []
    assert [line for line in page.console() if "SEVERE" in line or "Refused" in line] == []


def test_what_a_page_cannot_read_is_refused_and_the_next_file_is_read(page: Browser, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("a table, and no image", encoding="utf-8")
    opened(page, tmp_path / "notes.txt")
    assert "give a radiograph" in page.text("problem-text")
    dataset = make_dicom(np.rint(make_phantom(5, 256, False).image * 255).astype(np.uint8))
    dataset.save_as(tmp_path / "phantom.dcm", enforce_file_format=True)
    opened(page, tmp_path / "phantom.dcm")
    assert page.run(CASE)["result"]["image_id"] == "1.2.3"


def test_the_result_can_be_saved(page: Browser, tmp_path: Path):
    opened(page, phantom(tmp_path))
    links = page.driver.find_elements("xpath", "//*[self::button or self::a][contains(., 'JSON')]")
    saved = json.loads(page.saved(links[0].click).read_text(encoding="utf-8"))
    assert saved["prediction"] == page.run(CASE)["result"]
    assert saved["model"]["weights"] == load_exported(default_export()).weights_sha256


def test_a_script_that_gets_into_the_page_reaches_nothing_by_it(page: Browser):
    page.driver.set_script_timeout(20)
    for attempt in ("fetch('http://127.0.0.1:9/')", "fetch('file:///etc/hostname')"):
        script = f"const done = arguments[0]; {attempt}.then(() => done('came'), error => done('refused: ' + error))"
        assert str(page.driver.execute_async_script(script)).startswith("refused")
