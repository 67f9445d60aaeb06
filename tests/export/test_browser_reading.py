"""Files in a page and in Python: the same grey values, notes and sizes, or both refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_cases import BOTH_REFUSE, NEARLY, PAGE_REFUSES, READ
from browsers import FACTS, in_browser, needs_node

from pleura.data.radiograph import read_radiograph
from pleura.errors import InputError

pytestmark = needs_node
SAME_WORDS = (
    "two frames", "colour", "a palette", "bits that do not fit", "no sign", "another size", "all alike",
    "a window beside the values", "a negative window", "an unknown function", "a slope that is none",
    "a LUT too short", "JPEG of another size", "two JPEGs", "JPEG under native", "PNG, colour",
    "PNG, transparent", "JPEG picture, of colours", "PNG, all alike", "RLE, cut", "RLE, more",
    "RLE of 8 bits under 16", "JPEG lossless of 7 bits in 8", "JPEG lossless of 12 bits under 14",
    "JPEG-LS of 7 bits", "JPEG 2000, cut", "two JPEG 2000", "two JPEG-LS in one fragment",
    "JPEG 2000 under JPEG-LS", "JPEG 2000 under RLE", "RLE under JPEG 2000", "JPEG lossless under JPEG",
    "lossy beyond Bits Stored", "no end of fragments",
)  # fmt: skip
Answers = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Case -> its file, and what a page makes of it."""
    folder = tmp_path_factory.mktemp("browser")
    contents = READ | NEARLY | BOTH_REFUSE | {name: content for name, (content, _) in PAGE_REFUSES.items()}
    files = {name: folder / f"{number:03}" for number, name in enumerate(contents)}
    for name, file in files.items():
        file.write_bytes(contents[name])
    tasks = [{"kind": "read", "path": str(file), "name": file.name, "facts": FACTS} for file in files.values()]
    return dict(zip(files, zip(files.values(), in_browser(tasks, folder), strict=True), strict=True))


def same_but_for_pixels(file: Path, answer: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Both images, once all else was found the same."""
    radiograph, found = read_radiograph(file, with_grey=True), answer["found"]
    uids = [radiograph.sop_instance_uid, radiograph.series_instance_uid, radiograph.study_instance_uid]
    assert [found[key] for key in ("sopInstanceUid", "seriesInstanceUid", "studyInstanceUid")] == uids
    assert (found["rows"], found["columns"]) == radiograph.shape
    assert (found["imageId"], tuple(found["notes"])) == (radiograph.image_id, radiograph.notes)
    assert found["aspect"] == radiograph.pixel_aspect
    assert found["spacing"] == (radiograph.pixel_spacing_mm and list(radiograph.pixel_spacing_mm))
    assert found["orientation"] == (radiograph.patient_orientation and list(radiograph.patient_orientation))
    return np.fromfile(f"{file}.image", np.float32).reshape(radiograph.image.shape), radiograph.image


@pytest.mark.parametrize("name", list(READ))
def test_a_radiograph_has_the_same_grey_values_bit_for_bit(answers: Answers, name: str):
    file, answer = answers[name]
    found, wanted = same_but_for_pixels(file, answer)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", list(NEARLY))
def test_a_radiograph_through_a_curve_has_the_same_grey_values_but_for_rounding(answers: Answers, name: str):
    file, answer = answers[name]
    found, wanted = same_but_for_pixels(file, answer)
    assert np.abs(found - wanted).max() <= 2**-23


@pytest.mark.parametrize("name", [*READ, *NEARLY])
def test_a_reader_of_the_page_is_shown_what_a_reader_of_the_service_is(answers: Answers, name: str):
    file, answer = answers[name]
    grey, found = read_radiograph(file, with_grey=True).grey, answer["found"]
    assert grey is not None
    values = np.fromfile(f"{file}.grey", np.uint16).reshape(grey.values.shape)
    assert (found["greyBits"], np.array_equal(values, grey.values)) == (8 * grey.values.itemsize, True)
    assert (found["real"]["slope"], found["real"]["intercept"]) == (grey.slope, grey.intercept)
    assert (found["window"]["center"], found["window"]["width"]) == pytest.approx((grey.center, grey.width))
    curve = found["window"].get("curve")
    assert (curve is None) == (grey.curve is None)
    if grey.curve is not None:
        assert np.abs(np.array(curve) - grey.curve).max() <= 1  # a step half-way between two levels


@pytest.mark.parametrize("name", list(BOTH_REFUSE))
def test_what_is_no_radiograph_is_refused_by_both_in_one_line(answers: Answers, name: str):
    file, answer = answers[name]
    with pytest.raises(InputError) as refused:
        read_radiograph(file)
    assert set(answer) == {"refused"}
    assert re.search(r"; (export|copy|give|save|convert|remove)", answer["refused"])
    assert "\n" not in answer["refused"]
    if name in SAME_WORDS:
        assert str(refused.value).removeprefix(f"cannot read {file}: ") == answer["refused"]


@pytest.mark.parametrize("name", list(PAGE_REFUSES))
def test_what_python_alone_reads_is_refused_by_its_name(answers: Answers, name: str):
    file, answer = answers[name]
    read_radiograph(file)
    assert answer["refused"].startswith(PAGE_REFUSES[name][1])


def test_decoder_that_did_not_start_is_started_for_the_next_file(tmp_path):
    (answer,) = in_browser([{"kind": "start"}], tmp_path)
    assert answer["found"] == {"answers": ["out of memory", "decoded", "decoded"], "tries": 2}
