"""What a viewer gets in one answer: the grey values of the file, the probabilities, and how to show them."""

from __future__ import annotations

import asyncio
import email
import io
import json
import tracemalloc
from dataclasses import dataclass
from typing import Any

import jsonschema
import numpy as np
import pydicom
import pytest
from served import Answer, Seen, Served, serving

from pleura.data.in_memory import radiograph_of
from pleura.data.probability_png import read_probabilities
from pleura.data.radiograph import read_radiograph
from pleura.decision.triplet import Triplet
from pleura.inference.predictor import Predictor
from pleura.serve.answers import negotiate, render
from pleura.serve.service import Service
from pleura.serve.settings import ServeSettings

VIEW = "multipart/form-data"


@dataclass
class View:
    """The parts of an answer."""

    answer: Any
    grey: bytes
    probabilities: bytes


def view_of(answer: Answer) -> View:
    assert answer.status == 200, answer.body
    kind = answer.headers["content-type"]
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body)
    parts = {str(part.get_param("name", header="content-disposition")): part for part in message.get_payload()}
    assert [part.get_content_type() for part in parts.values()] == [
        *("application/json", "application/octet-stream", "image/png")
    ]
    found = {name: part.get_payload(decode=True) for name, part in parts.items()}
    return View(json.loads(found["answer"]), found["grey"], found["probabilities"])


@pytest.mark.parametrize("kind", ["dicom", "png", "jpeg"])
def test_the_parts_are_the_answer_the_grey_values_of_the_file_and_the_probabilities(
    served: Served, predictor: Predictor, files, kind: str, tmp_path
) -> None:
    view, expected = view_of(served.predict(files[kind], VIEW)), predictor.predict(files[kind])
    plain = served.predict(files[kind]).json
    assert {**view.answer, "request_id": ""} == {**plain, "request_id": "", "view": view.answer["view"]}
    (tmp_path / "file").write_bytes(files[kind])
    grey = read_radiograph(tmp_path / "file", with_grey=True).grey
    assert grey is not None
    shown = view.answer["view"]
    sent = np.frombuffer(view.grey, f"<u{shown['grey_bits'] // 8}").reshape(expected.predicted_mask.shape)
    np.testing.assert_array_equal(sent, grey.values)
    assert (shown["window_center"], shown["window_width"]) == (grey.center, grey.width)
    assert shown["is_dicom"] is (kind == "dicom")
    (tmp_path / "map.png").write_bytes(view.probabilities)
    levels = read_probabilities(tmp_path / "map.png")
    assert shown["square_area_px"] == levels.square_area_px
    np.testing.assert_array_equal(levels.mask(Triplet(**shown["triplet"])), expected.predicted_mask)
    assert Triplet(**shown["triplet"]) == predictor.triplet


def test_the_answer_in_it_fits_its_schema(served: Served, files) -> None:
    components = served.ask("GET", "/openapi.json").json["components"]
    whole = {"$ref": "#/components/schemas/ViewAnswer", "components": components}
    for content in files.values():
        jsonschema.Draft202012Validator(whole).validate(view_of(served.predict(content, VIEW)).answer)


def test_spacing_and_orientation_are_those_of_the_file(served: Served, files) -> None:
    radiograph = radiograph_of(files["dicom"])
    shown = view_of(served.predict(files["dicom"], VIEW)).answer["view"]
    assert radiograph.pixel_spacing_mm is not None
    assert shown["pixel_spacing_mm"] == list(radiograph.pixel_spacing_mm)
    orientation = radiograph.patient_orientation
    assert shown["patient_orientation"] == (None if orientation is None else list(orientation))
    assert view_of(served.predict(files["png"], VIEW)).answer["view"]["pixel_spacing_mm"] is None


def test_only_who_names_the_media_type_gets_it(served: Served, files) -> None:
    assert served.predict(files["png"], "*/*").headers["content-type"] == "application/json"
    assert served.predict(files["png"], "multipart/*").status == 406
    assert served.predict(files["png"], f"application/json;q=0.5, {VIEW}").headers["content-type"].startswith(VIEW)


def test_a_rule_that_eight_bits_do_not_keep_is_refused(predictor: Predictor, files, monkeypatch) -> None:
    monkeypatch.setattr(predictor, "triplet", Triplet(1.0, 1, 0.5))
    with serving(Seen(predictor)) as served:
        answer = served.predict(files["png"], VIEW)
        assert (answer.status, answer.json["code"]) == (422, "no-object")
        assert served.predict(files["png"]).status == 200


def large(content: bytes, side_px: int) -> bytes:
    """A square phantom of more pixels, of 16 bits each, with its spacing left out."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    times = -(-side_px // min(dataset.Rows, dataset.Columns))
    pixels = np.repeat(np.repeat(dataset.pixel_array, times, 0), times, 1)[:side_px, :side_px].astype(np.uint16)
    dataset.Rows, dataset.Columns, dataset.PixelData = side_px, side_px, pixels.tobytes()
    dataset.BitsAllocated, dataset["PixelData"].VR = 16, "OW"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_a_large_radiograph_is_never_there_more_often_than_it_has_to_be(predictor: Predictor, files) -> None:
    # In bytes of a pixel. While it is decoded: 2 each of the body, the file, and where in the table of tones it is, 4
    # of what was decoded or of the image, 2 of grey values. When it is written: 4 of the image, 2 of grey values, 4 of
    # probabilities, and 1 each of the mask, levels, and what the PNG is made from.
    side_px, wanted = 3000, negotiate(VIEW, None)
    content = large(files["dicom"], side_px)

    async def answered(content: bytes) -> Any:
        def write(prediction):
            return render(prediction, wanted, predictor.algorithm, predictor.triplet, "")[0]

        service = Service(Seen(predictor), ServeSettings())
        async with service.running():
            return await service.answer(bytearray(content), write, with_grey=True)

    asyncio.run(answered(files["dicom"]))
    tracemalloc.start()
    try:
        pieces = asyncio.run(answered(content))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, pieces)) > 2 * side_px**2
    assert most < 15 * side_px**2
