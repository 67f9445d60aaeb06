"""The viewer in a real browser: dropped files, sliders, window, keys, refusals, saved files, a phone."""

from __future__ import annotations

import base64
import gc
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from browser import Browser, browsing, needs_browser
from PIL import Image
from served import Seen, Served, serving

from pleura.decision.triplet import Triplet
from pleura.dicom.read import Radiograph
from pleura.inference.predictor import Predictor
from pleura.serve.keys import Keys, load_keys

pytestmark = [needs_browser, pytest.mark.slow]
KEY = "a-key-of-this-test-alone"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, served: Served) -> Browser:
    """The viewer, with nothing open."""
    browser.driver.get(f"http://127.0.0.1:{served.port}/")
    browser.wait(lambda: "pleura default" in browser.text("model"))
    browser.console()
    browser.requests()
    return browser


@pytest.fixture(scope="session")
def folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms in two folders, and a file that is none."""
    made = tmp_path_factory.mktemp("study")
    sources = sorted((phantoms / "dicom").iterdir())
    (made / "second").mkdir()
    shutil.copy(sources[0], made / "a1.dcm")
    shutil.copy(sources[1], made / "a10.dcm")
    shutil.copy(sources[2], made / "second" / "a2.dcm")
    (made / "letter.txt").write_text("Smith^John was here")
    (made / ".hidden").write_text("nothing")
    return made


def done(page: Browser) -> str:
    """What the list says once nothing is left to do."""
    return str(page.wait(lambda: (said := page.text("progress")) and "to do" not in said and said))


def numbers(page: Browser) -> dict[str, str]:
    return dict(
        page.run(
            "return [...document.querySelectorAll('#numbers dt')]"
            ".map(one => [one.textContent, one.nextSibling.innerText])"
        )
    )


def area_px(page: Browser) -> int:
    """Of the mask that is shown."""
    area = numbers(page)["Area"]
    found = re.search(r"([\d\u202f]+) px", area)
    assert found or area == "none", area
    return int(found[1].replace("\u202f", "")) if found else 0


def slide(page: Browser, slider: str, value: int) -> None:
    """Move a slider as a reader does it."""
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    page.run(script, page.by(slider), value)
    page.drawn()


def window_of(page: Browser) -> str:
    """The window and the size that the canvas shows."""
    page.drawn()
    return page.text("window-readout")


def shades(page: Browser) -> np.ndarray:
    """The grey of the canvas, (rows, columns)."""
    page.drawn()
    data = page.run("return document.getElementById('canvas').toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_file_that_is_dropped_is_shown_with_what_the_api_finds_and_nothing_of_it_is_kept(
    page: Browser, served: Served, files, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # of the service, which is in this process
    page.drop(folder / "a1.dcm")
    done(page)
    expected = served.predict(files["dicom"]).json["prediction"]
    assert page.text("found") == expected["found"]
    assert page.text("headline") == "Pneumothorax found"
    shown = numbers(page)
    assert shown["Area"].startswith(f"{expected['area_mm2']:,.0f} mm²".replace(",", "\u202f"))
    assert area_px(page) == expected["area_px"]
    assert shown["Score"].startswith(f"{expected['score']:.3f}")
    assert shown["Probability"].startswith(f"{100 * expected['probability']:.3g} %")
    assert f"at a prevalence of {100 * expected['prevalence']:.3g} %" in shown["Probability"]
    assert shown["Ruled out"].startswith("yes" if expected["ruled_out"] else "no")
    assert "Research software, not for diagnosis" in page.text("disclaimer")
    assert len(np.unique(shades(page).reshape(-1, 3), axis=0)) > 50, "a radiograph is on the screen"
    # One request, and nothing stays.
    assert [each for each in page.requests() if "/v1/" in each] == [f"POST http://127.0.0.1:{served.port}/v1/predict"]
    assert (served.api.jobs.waiting, served.api.service.taken, served.api.service.held.bytes) == (0, 0, 0)
    assert os.listdir(tmp_path) == []
    opened = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)]
    assert [name for name in opened if "memfd" in name or "pleura-" in Path(name).name] == []
    gc.collect()
    # By its type: isinstance would ask each object, and some warn of that.
    radiographs = [one for one in gc.get_objects() if type(one) is Radiograph]
    assert [one for one in radiographs if one.grey is not None and one.image_id == expected["image_id"]] == []
    assert page.console() == []


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


RULES = (
    Triplet(0.5, 200, 0.25),
    Triplet(200 / 256, 0, 180 / 256),
    Triplet(1 / 256, 1, 1 / 256),
    Triplet(0.9, 724077, 0.5),
)


def test_a_rule_that_is_moved_finds_what_the_service_finds_by_that_rule(
    page: Browser, predictor: Predictor, files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    counts = [0, *sorted({round(2 ** (step / 8)) for step in range(161)} | {predictor.triplet.min_pixels})]
    sizes = []
    for rule in RULES:
        nearest = min(range(len(counts)), key=lambda place: abs(counts[place] - rule.min_pixels))
        rule = replace(rule, min_pixels=counts[nearest])
        slide(page, "top", round(256 * rule.top_threshold))
        slide(page, "pixels", nearest)
        slide(page, "bottom", round(256 * rule.bottom_threshold))
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "triplet", rule)
            with serving(Seen(predictor)) as other:
                expected = other.predict(files["dicom"]).json["prediction"]
                mask = np.asarray(Image.open(io.BytesIO(other.predict(files["dicom"], "image/png").body)))
        assert page.text("pixels-value") == str(rule.min_pixels)
        assert (area_px(page), page.text("found")) == (expected["area_px"], expected["found"])
        saved = page.saved(page.by("downloads").find_elements("tag name", "button")[0].click)
        assert saved.name == f"a1-mask-rule-{rule.top_threshold:.3f}-{rule.min_pixels}-{rule.bottom_threshold:.3f}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(saved)), mask)
        sizes.append(area_px(page))
        assert page.by("moved").is_displayed()
        assert "not of yours" in page.text("downloads-note")
    assert 0 in sizes
    assert len(set(sizes)) == len(RULES)
    page.by("model-rule").click()
    assert page.text("found") == predictor.predict(files["dicom"]).found()
    assert not page.by("moved").is_displayed()


def test_a_slider_is_moved_by_keys_and_says_its_value(page: Browser, folder: Path) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    slider = page.by("bottom")
    level = int(slider.get_property("value"))
    slider.send_keys("\ue014", "\ue014", "\ue014")  # arrow right
    page.drawn()
    assert int(slider.get_property("value")) == level + 3
    assert slider.get_attribute("aria-valuetext") == f"{(level + 3) / 256:.3f}" == page.text("bottom-value")
    words = page.text("found")
    page.wait(lambda: "by the moved rule" in page.text("status") and words in page.text("status"))


def test_what_is_saved_as_dicom_is_what_the_service_makes(page: Browser, predictor: Predictor, files, folder) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    buttons = {one.text: one for one in page.by("downloads").find_elements("tag name", "button")}
    assert list(buttons) == ["Mask PNG", "SEG", "SC", "SR"]
    found = {label: page.saved(buttons[label].click) for label in buttons}
    assert {path.name for path in found.values()} == {"a1-mask.png", "a1-seg.dcm", "a1-sc.dcm", "a1-sr.dcm"}
    expected = predictor.predict(files["dicom"])
    np.testing.assert_array_equal(np.asarray(Image.open(found["Mask PNG"])), expected.predicted_mask * 255)
    np.testing.assert_array_equal(pydicom.dcmread(found["SEG"]).pixel_array, expected.predicted_mask)
    assert pydicom.dcmread(found["SR"]).Modality == "SR"
    assert pydicom.dcmread(found["SC"]).StudyInstanceUID == expected.radiograph.study_instance_uid


def test_a_folder_is_a_list_in_order_in_which_a_refused_file_says_why_in_the_services_words(
    page: Browser, served: Served, folder: Path
) -> None:
    page.drop(folder)
    assert done(page).startswith("1 of 4; ")
    rows = [row.text.split("\n") for row in page.by("cases").find_elements("tag name", "li")]
    names = [
        row.find_element("tag name", "button").get_attribute("title")
        for row in page.by("cases").find_elements("tag name", "li")
    ]
    assert [Path(name).name for name in names] == ["a1.dcm", "a10.dcm", "letter.txt", "a2.dcm"]
    assert names[3].endswith("second/a2.dcm")
    reason = served.predict((folder / "letter.txt").read_bytes()).json["detail"]
    assert rows[2][1] == f"not analysed: {reason}"
    page.keys("n", "n")
    assert page.text("problem-text") == reason
    assert not page.by("result").is_displayed()
    page.keys("n")
    assert page.by("result").is_displayed()
    assert Path(page.by("name").get_attribute("title")).name == "a2.dcm"
    assert not page.by("next").is_enabled()
    page.by("clear").click()
    assert page.by("empty").is_displayed()


def test_nothing_of_a_radiograph_stays_on_the_screen_when_it_is_not_the_one_that_is_shown(
    page: Browser, folder: Path
) -> None:
    page.drop(folder)
    done(page)
    assert shades(page).any()
    page.keys("n", "n")  # a letter
    assert page.by("problem").is_displayed()
    assert not shades(page).any(), "no picture under the name of another file"
    assert window_of(page) == ""
    page.keys("p")
    assert shades(page).any()
    page.by("clear").click()
    assert not shades(page).any()
    assert window_of(page) == ""


def test_keys_do_what_the_buttons_do(page: Browser, folder: Path) -> None:
    page.drop(folder)
    done(page)
    pressed = lambda name: page.by(name).get_attribute("aria-pressed")  # noqa: E731
    with_outline = shades(page)
    page.keys("o")
    assert pressed("outline") == "false"
    without = shades(page)
    coloured = lambda shown: (np.ptp(shown.astype(int), axis=2) > 40).sum()  # noqa: E731
    assert coloured(with_outline) > 100 > coloured(without) == 0
    page.keys("i")
    inside = without[..., 0] > 0  # beside the radiograph it stays black
    assert inside.mean() > 0.2
    both = shades(page)[inside].astype(int) + without[inside]
    assert (np.abs(both - 255) <= 2).mean() > 0.98, "but for its border, and the rounding of what is scaled"
    page.keys("i", "h")
    assert pressed("heat") == "true"
    assert coloured(shades(page)) > 1000
    assert page.by("legend").is_displayed()
    page.keys("h", "+", "+")
    assert (shades(page) != without).any()
    page.keys("r")
    np.testing.assert_array_equal(shades(page), without)
    page.keys("f")
    assert (shades(page) != without).any()
    page.keys("n")
    page.wait(lambda: "2 of 4" in page.text("progress"))
    page.keys("p")
    page.wait(lambda: "1 of 4" in page.text("progress"))
    page.keys("?")
    assert page.by("help").is_displayed()
    page.keys("\ue00c")  # escape
    page.wait(lambda: not page.by("help").is_displayed())


def test_the_window_acts_on_all_bits_of_the_file(page: Browser, tmp_path: Path) -> None:
    """Forty of 4,096 grey values: a picture of 8 bits would have three of them."""
    columns = np.mgrid[:200, :200][1]
    stored = (2028 + columns // 5).astype(np.uint16)
    stored[0, 0], stored[0, 1] = 0, 4095
    Image.fromarray(stored).save(tmp_path / "faint.png")
    page.drop(tmp_path / "faint.png")
    done(page)
    assert window_of(page).startswith("W 4096 L 2048 ")
    page.keys("o")
    inside = np.s_[150:-150, 200:-200]  # its border is mixed with the black beside it
    assert len(np.unique(shades(page)[inside])) <= 3
    box = page.by("canvas").rect
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    window = lambda: numbers_of(window_of(page))  # noqa: E731
    for _ in range(40):
        if window()["W"] > 60:
            drag(page, middle, (-40, 0))
    assert 20 < window()["W"] <= 60
    drag(page, middle, (0, 100))
    assert window()["L"] > 2049, "down is darker"
    drag(page, middle, (0, -100))
    assert len(np.unique(shades(page)[inside])) >= 25
    page.keys("r")
    assert window_of(page).startswith("W 4096 L 2048 ")


def numbers_of(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"([WL]) ([-\d.]+)", text)}


def drag(
    page: Browser, start: tuple[float, float], by: tuple[float, float], steps: int = 8, modifiers: int = 0
) -> None:
    """Drag the mouse with the left button."""
    event: dict[str, Any] = {"button": "left", "clickCount": 1, "modifiers": modifiers}
    x, y = start
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mousePressed", "x": x, "y": y, **event})
    for step in range(1, steps + 1):
        at = {"x": x + by[0] * step / steps, "y": y + by[1] * step / steps}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **at, **event, "buttons": 1})
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseReleased", **at, **event})
    page.drawn()


def test_the_probability_and_the_grey_value_under_the_cursor_are_those_of_the_pixel(
    page: Browser, predictor: Predictor, files, folder: Path
) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    probabilities = predictor.predict(files["dicom"]).probabilities
    box = page.by("canvas").rect
    seen = set()
    for across, down in ((0.5, 0.5), (0.4, 0.35), (0.6, 0.7), (0.55, 0.2)):
        at = {"x": box["x"] + across * box["width"], "y": box["y"] + down * box["height"]}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})
        said = page.wait(lambda: page.text("readout"))
        probability, column, row = re.fullmatch(
            r"probability (?:at least )?([\d.]+) · grey [-\d.]+ · column (\d+), row (\d+)", said
        ).groups()  # type: ignore[union-attr]
        expected = probabilities[int(row), int(column)]
        assert float(probability) - 0.001 <= expected <= float(probability) + 1 / 256 + 0.001
        seen.add(said)
    assert len(seen) == 4
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 2, "y": 2})
    page.wait(lambda: page.text("readout") == "")


def test_the_wheel_zooms_about_the_cursor_and_shift_moves(page: Browser, folder: Path) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    box = page.by("canvas").rect
    at = {"x": box["x"] + 0.45 * box["width"], "y": box["y"] + 0.4 * box["height"]}
    place = lambda: re.search(r"column (\d+), row (\d+)", page.text("readout")).groups()  # type: ignore[union-attr]  # noqa: E731
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})
    before = page.wait(lambda: page.text("readout") and place())
    size = lambda: int(window_of(page).split("·")[1].strip(" %"))  # noqa: E731
    first = size()
    for _ in range(4):
        wheel = {"type": "mouseWheel", **at, "deltaX": 0, "deltaY": -120}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)
    page.wait(lambda: size() > 1.8 * first)
    assert place() == before
    window = window_of(page).split("·")[0]
    drag(page, (at["x"], at["y"]), (-60, 0), modifiers=8)
    assert window_of(page).split("·")[0] == window
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})
    page.wait(lambda: int(place()[0]) > int(before[0]))


def test_a_key_is_asked_for_when_the_service_wants_one_and_kept_nowhere(
    browser: Browser, seen: Seen, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(KEY + "\n")
    keys: Keys = load_keys(tmp_path / "keys")
    with serving(seen, keys=keys) as served:
        browser.driver.get(f"http://127.0.0.1:{served.port}/")
        browser.wait(lambda: browser.by("key").is_displayed())
        assert not browser.by("key-problem").is_displayed()
        browser.by("key-text").send_keys("another-key-of-that-kind\n")
        browser.wait(lambda: browser.by("key-problem").is_displayed())
        browser.keys("\ue00c")  # not now
        browser.drop(folder / "a1.dcm")
        browser.wait(lambda: browser.by("key").is_displayed())
        assert seen.batches == []
        browser.by("key-text").send_keys(KEY + "\n")
        done(browser)
        assert browser.text("headline") == "Pneumothorax found"
        assert browser.text("model") == "Model: pleura default"
        kept = browser.run(
            "return [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href,"
            " document.documentElement.outerHTML, document.getElementById('key-text').value].join()"
        )
        assert KEY not in kept
        browser.driver.refresh()
        browser.wait(lambda: browser.by("key").is_displayed())


def test_a_service_that_is_gone_is_said_to_be_gone_and_can_be_tried_again(
    browser: Browser, predictor: Predictor, folder: Path
) -> None:
    with serving(Seen(predictor)) as served:
        browser.driver.get(f"http://127.0.0.1:{served.port}/")
        browser.wait(lambda: "pleura default" in browser.text("model"))
    browser.drop(folder / "a1.dcm")
    done(browser)
    assert "cannot be reached" in browser.text("problem-text")
    browser.by("again").click()
    browser.wait(lambda: "1 not analysed" in browser.text("progress"))


def test_a_file_that_is_gone_from_the_disk_is_not_taken_for_a_service_that_is_gone(
    page: Browser, folder: Path, tmp_path: Path
) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    shutil.copy(folder / "a10.dcm", tmp_path / "moved.dcm")
    page.run("window.fetch = (ask => (...given) => new Promise(go => window.go = go).then(() => ask(...given)))(fetch)")
    page.drop(tmp_path / "moved.dcm")
    page.keys("n")
    page.wait(lambda: page.run("return Boolean(window.go)"))
    (tmp_path / "moved.dcm").unlink()
    page.run("window.go()")
    page.wait(lambda: page.text("problem-text"))
    page.by("again").click()
    page.wait(lambda: "the file is gone" in page.text("problem-text"))


def test_everything_a_screen_reader_meets_has_a_name(page: Browser, folder: Path) -> None:
    page.drop(folder / "a1.dcm")
    done(page)
    controls = page.driver.find_elements("css selector", "button, input, canvas[role], nav, aside, dialog, output")
    seen = [one for one in controls if one.is_displayed() or one.get_attribute("class") == "unseen"]
    assert len(seen) > 20
    unnamed = [
        one.get_attribute("outerHTML")[:80] for one in seen if one.tag_name != "output" and not one.accessible_name
    ]
    assert unnamed == []
    assert page.text("found") in page.by("canvas").accessible_name
    assert page.by("top").accessible_name.startswith("Upper threshold")
    page.wait(lambda: page.text("found") in page.text("status"))
    assert (page.by("status").aria_role, page.by("status").get_attribute("aria-live")) == ("status", "polite")


def test_the_focus_stays_where_a_reader_with_a_keyboard_goes_on(page: Browser, folder: Path) -> None:
    focused = "return document.activeElement.id || document.activeElement.title"
    page.drop(folder)
    done(page)
    page.by("next").click()
    while page.by("next").is_enabled():
        page.keys(" ")
    assert page.run(focused) == "previous", "the last one has none after it"
    while page.by("previous").is_enabled():
        page.keys(" ")
    assert page.run(focused) == "next"
    page.run("document.querySelector('#cases .refused').focus()")
    page.keys(" ")
    page.run("document.getElementById('again').focus()")
    page.keys(" ")
    assert page.run(focused).endswith("letter.txt"), "what it was is tried again, and has no such button meanwhile"
    done(page)
    page.run("document.getElementById('clear').focus()")
    page.keys(" ")
    assert page.run(focused) == "files"
    page.wait(lambda: page.text("status") == "All radiographs are closed")
    page.drop(folder / "a1.dcm")
    done(page)
    page.run("document.querySelector('#downloads button').focus()")
    page.saved(lambda: page.keys(" "))
    assert page.run("return document.activeElement.textContent") == "Mask PNG"


def test_the_page_asks_nobody_but_its_own_service(browser: Browser, served: Served, folder: Path) -> None:
    browser.requests()
    browser.driver.get(f"http://127.0.0.1:{served.port}/")
    browser.wait(lambda: "pleura default" in browser.text("model"))
    browser.drop(folder)
    done(browser)
    asked = [each.split()[1] for each in browser.requests()]
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "blob:"))] == []


def test_a_phone_has_the_radiograph_the_tools_and_the_result_one_below_the_other(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    with browsing(tmp_path, 390, 844, is_phone=True) as page:
        page.driver.get(f"http://127.0.0.1:{served.port}/")
        page.by("files").send_keys(f"{folder / 'a1.dcm'}\n{folder / 'a10.dcm'}")
        done(page)
        assert page.run("return document.scrollingElement.scrollWidth") <= 390
        assert page.run("return document.scrollingElement.scrollTop") == 0
        tops = [page.by(name).rect["y"] for name in ("screen", "tools", "headline", "rule", "downloads", "cases")]
        assert tops == sorted(tops)
        assert page.by("tools").rect["y"] + page.by("tools").rect["height"] < 844
        assert page.by("screen").rect["height"] > 350
        heights = [
            one.rect["height"] for one in page.driver.find_elements("css selector", "button") if one.is_displayed()
        ]
        assert min(heights) >= 40
        sizes = page.run(
            "return [...document.querySelectorAll('p, dd, dt, label')]"
            ".map(one => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert min(sizes) >= 13
        page.run("document.querySelectorAll('#cases button')[1].scrollIntoView({block: 'end'})")
        assert page.run("return document.getElementById('screen').getBoundingClientRect().bottom") < 844 / 4
        page.run("document.querySelectorAll('#cases button')[1].click()")
        box = page.run("return document.getElementById('screen').getBoundingClientRect().toJSON()")
        assert -1 <= box["top"] < box["bottom"] <= 844, "what is chosen is seen"
        pinch(page)


def pinch(page: Browser) -> None:
    """Two fingers apart enlarge."""
    box = page.by("canvas").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    size = lambda: int(window_of(page).split("·")[1].strip(" %"))  # noqa: E731
    before = size()

    def touch(kind: str, apart: float) -> None:
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}] if apart else []
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in (40, 55, 75, 90):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    page.wait(lambda: size() > 2 * before)
