"""What the API gives for a radiograph: the same as the Predictor, in every form that it can be asked for."""

from __future__ import annotations

import email
import io
import struct
import uuid
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from served import Seen, Served, form, serving

from pleura.data import rle
from pleura.inference.overlay import DISCLAIMER
from pleura.inference.predictor import Predictor


@pytest.mark.parametrize("kind", ["dicom", "png", "jpeg"])
@pytest.mark.parametrize("way", ["raw", "form", "related"])
def test_json_is_what_the_predictor_finds(served: Served, predictor: Predictor, files, kind: str, way: str) -> None:
    expected = predictor.predict(files[kind])
    if way == "raw":
        answer = served.predict(files[kind], "application/json")
    elif way == "form":
        answer = served.ask("POST", "/v1/predict", *form(("../../etc/Smith^John.dcm", files[kind])))
    else:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + files[kind] + b"\r\n--b--"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        answer = served.ask("POST", "/v1/predict", body, headers)
    assert answer.status == 200, answer.body
    found = answer.json["prediction"]
    own = {**expected.to_dict(), "found": expected.found(), "prevalence": expected.prevalence}
    own["image_id"] = expected.radiograph.sop_instance_uid or "file"
    assert found == own
    mask = rle.decode(found["mask_rle"], (found["rows"], found["columns"]))
    np.testing.assert_array_equal(mask, expected.predicted_mask)
    assert mask.any(), "a test of an empty mask shows little"


def test_every_answer_says_by_what_model_and_that_it_is_research_software(served: Served, predictor, files) -> None:
    model = predictor.algorithm
    document = served.predict(files["dicom"]).json
    assert document["disclaimer"] == DISCLAIMER
    assert document["model"]["weights_sha256"] == model.weights_sha256
    assert document["model"]["settings"] == dict(model.settings)
    for accept in ("application/json", "image/png", "application/dicom", "application/dicom; object=sc"):
        headers = served.predict(files["dicom"], accept).headers
        assert headers["pleura-model"] == model.name
        assert headers["pleura-weights-sha256"] == model.weights_sha256
        assert headers["pleura-version"] == model.version
        assert headers["pleura-disclaimer"] == DISCLAIMER
        assert headers["cache-control"] == "no-store"


def test_an_answer_and_a_refusal_have_the_id_of_a_client_where_it_is_a_uuid(served: Served, files) -> None:
    own = str(uuid.uuid4())
    headers = {"Content-Type": "image/png", "X-Request-ID": own.upper()}
    good = served.ask("POST", "/v1/predict", files["png"], headers)
    bad = served.ask("POST", "/v1/predict", b"no picture", headers)
    assert (good.headers["x-request-id"], good.json["request_id"]) == (own, own)
    assert (bad.headers["x-request-id"], bad.json["instance"]) == (own, f"urn:uuid:{own}")
    other = served.ask("POST", "/v1/predict", files["png"], headers | {"X-Request-ID": "Smith^John"})
    assert uuid.UUID(other.headers["x-request-id"])


@pytest.mark.parametrize(
    ("accept", "path"), [("image/png", ""), ("image/*;q=0.9, text/html", ""), ("*/*", "?object=mask")]
)
def test_png_is_the_mask(served: Served, predictor: Predictor, files, accept: str, path: str) -> None:
    answer = served.predict(files["jpeg"], accept, f"/v1/predict{path}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    pixels = np.asarray(Image.open(io.BytesIO(answer.body)))
    np.testing.assert_array_equal(pixels, predictor.predict(files["jpeg"]).predicted_mask * 255)


def test_png_may_be_the_overlay(served: Served, predictor: Predictor, files) -> None:
    answer = served.predict(files["dicom"], "image/png; object=overlay")
    pixels = np.asarray(Image.open(io.BytesIO(answer.body)))
    np.testing.assert_array_equal(pixels, np.asarray(predictor.predict(files["dicom"]).overlay()))


@pytest.mark.parametrize(
    ("accept", "path", "modality"),
    [
        ("application/dicom", "", "SEG"),
        ("application/dicom; object=sr", "", "SR"),
        ('application/dicom; object="sc"', "", "OT"),
        ("*/*", "?object=gsps", "PR"),
        ("application/dicom", "?object=seg-fractional", "SEG"),
        ("image/png;q=0.2, application/dicom;q=0.8", "", "SEG"),
    ],
)
def test_dicom_is_the_object_that_is_asked_for(served: Served, files, accept: str, path: str, modality: str) -> None:
    answer = served.predict(files["dicom"], accept, f"/v1/predict{path}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/dicom")
    made = pydicom.dcmread(io.BytesIO(answer.body))
    source = pydicom.dcmread(io.BytesIO(files["dicom"]))
    assert (made.Modality, made.StudyInstanceUID) == (modality, source.StudyInstanceUID)
    assert made.PatientID == source.PatientID


def test_segmentation_has_the_pixels_of_the_mask(served: Served, predictor: Predictor, files) -> None:
    made = pydicom.dcmread(io.BytesIO(served.predict(files["dicom"], "application/dicom").body))
    np.testing.assert_array_equal(made.pixel_array, predictor.predict(files["dicom"]).predicted_mask)


def test_several_objects_come_in_one_answer_and_the_report_refers_to_the_segmentation(served: Served, files) -> None:
    answer = served.predict(files["dicom"], "*/*", "/v1/predict?object=seg,sr")
    kind = answer.headers["content-type"]
    assert kind.startswith('multipart/related; type="application/dicom"; boundary=')
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body)
    parts = [pydicom.dcmread(io.BytesIO(part.get_payload(decode=True))) for part in message.get_payload()]
    assert [part.Modality for part in parts] == ["SEG", "SR"]
    assert parts[0].SOPInstanceUID in str(parts[1])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BOMB = b"".join(
    [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(bytes(8001 * 8000), 9)),
        _chunk(b"IEND", b""),
    ]
)
"""62 kB that would be 64 million pixels."""
FORM = "multipart/form-data; boundary=b"
BAD = [
    ("GET", "/v1/predict", None, {}, 405, "method-not-allowed"),
    ("PUT", "/v1/predict:batch", b"", {}, 405, "method-not-allowed"),
    ("GET", "/v1/predictions", None, {}, 404, "not-found"),
    ("GET", "/docs", None, {}, 404, "not-found"),
    ("POST", "/v1/predict", b"", {}, 400, "no-file"),
    ("POST", "/v1/predict", b"Smith^John", {}, 422, "unreadable"),
    ("POST", "/v1/predict", b"{}", {"Content-Type": "application/json"}, 415, "unsupported-type"),
    ("POST", "/v1/predict", b"x", {"Content-Encoding": "gzip"}, 415, "unsupported-type"),
    ("POST", "/v1/predict", b"x", {"Content-Type": "image/tiff"}, 415, "unsupported-type"),
    ("POST", "/v1/predict", b"x", {"Accept": "text/html"}, 406, "not-acceptable"),
    ("POST", "/v1/predict", b"x", {"Accept": "application/json; object=sr"}, 406, "not-acceptable"),
    ("POST", "/v1/predict", b"x", {"Accept": "application/json;q=0"}, 406, "not-acceptable"),
    ("POST", "/v1/predict", b"x", {"Accept": ";;,/,\xff"}, 406, "not-acceptable"),
    ("POST", "/v1/predict?object=jpeg", b"x", {}, 400, "bad-parameter"),
    ("POST", "/v1/predict?object=", b"x", {}, 400, "bad-parameter"),
    ("POST", "/v1/predict?object=seg,seg", b"x", {}, 406, "not-acceptable"),
    ("POST", "/v1/predict?object=seg,mask", b"x", {}, 406, "not-acceptable"),
    ("POST", "/v1/predict?object=seg", b"x", {"Accept": "application/dicom; object=sr"}, 400, "bad-parameter"),
    ("POST", "/v1/predict?object=seg", b"x", {"Accept": "image/png"}, 406, "not-acceptable"),
    ("POST", "/v1/predict?object=mask", b"x", {"Accept": "multipart/form-data"}, 406, "not-acceptable"),
    ("POST", "/v1/predict", b"x", {"Accept": "multipart/form-data; object=seg"}, 406, "not-acceptable"),
    ("POST", "/v1/predict", b"Smith^John", {"Accept": "multipart/form-data"}, 422, "unreadable"),
    ("POST", "/", b"x", {}, 405, "method-not-allowed"),
    ("GET", "/web/", None, {}, 404, "not-found"),
    ("GET", "/web/../settings.py", None, {}, 404, "not-found"),
    ("POST", "/v1/predict", BOMB, {}, 422, "too-many-pixels"),
    ("POST", "/v1/predict", b"", {"Content-Type": FORM}, 400, "bad-multipart"),
    ("POST", "/v1/predict", b"--b--\r\n", {"Content-Type": FORM}, 400, "no-file"),
    ("POST", "/v1/predict", b"--b\r\n", {"Content-Type": FORM}, 400, "bad-multipart"),
    ("POST", "/v1/predict", b"--b--\r\n", {"Content-Type": "multipart/form-data"}, 400, "bad-multipart"),
    ("POST", "/v1/predict", b"--b\r\nnonsense\r\n--b--", {"Content-Type": FORM}, 400, "bad-multipart"),
    (
        "POST",
        "/v1/predict",
        b'--b\r\nContent-Disposition: form-data; name="object"\r\n\r\nsr\r\n--b--\r\n',
        {"Content-Type": FORM},
        400,
        "bad-parameter",
    ),
    ("POST", "/v1/predict:batch", b"", {}, 400, "no-file"),
    ("POST", "/v1/predict:batch", b"x", {"Content-Type": "text/plain"}, 415, "unsupported-type"),
    ("GET", "/v1/jobs/none", None, {}, 404, "no-such-job"),
    ("DELETE", "/v1/jobs/none", None, {}, 404, "no-such-job"),
    ("GET", "/v1/jobs/../predict", None, {}, 404, "not-found"),
    ("POST", "/v1/jobs/none", b"", {}, 405, "method-not-allowed"),
    ("POST", "/v1/model", b"", {}, 405, "method-not-allowed"),
    ("DELETE", "/healthz", None, {}, 405, "method-not-allowed"),
    ("POST", "/readyz", b"x", {}, 405, "method-not-allowed"),
    ("POST", "/metrics", b"x", {}, 405, "method-not-allowed"),
    ("POST", "/v1/predict", b"x", {"Sec-Fetch-Site": "cross-site"}, 403, "other-site"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_as_a_problem(served: Served, method, path, body, headers, status, code) -> None:
    if "Content-Type" not in headers and body is not None:
        headers = headers | {"Content-Type": "application/octet-stream"}
    answer = served.ask(method, path, body, headers)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    assert answer.json["type"] == f"urn:pleura:problem:{code}"
    assert answer.json["detail"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json"])
def test_head_is_get_without_the_body(served: Served, path: str) -> None:
    head, get = served.ask("HEAD", path), served.ask("GET", path)
    assert (head.status, head.body, get.status) == (200, b"", 200)
    assert head.headers["content-type"] == get.headers["content-type"]
    assert served.ask("HEAD", "/v1/jobs/x").status == 405, "results that are not sent are not fetched"


def test_an_address_that_is_nearly_right_is_none(served: Served) -> None:
    assert served.ask("GET", "/v1/model/").json["code"] == "not-found"


@pytest.mark.parametrize(("path", "allowed"), [("/v1/predict", "POST"), ("/v1/jobs/x", "DELETE, GET")])
def test_a_method_that_is_not_taken_is_told_those_that_are(served: Served, path: str, allowed: str) -> None:
    assert served.ask("OPTIONS", path).headers["allow"] == allowed


def test_two_files_are_too_many_for_one_prediction(served: Served, files) -> None:
    answer = served.ask("POST", "/v1/predict", *form(("a", files["png"]), ("b", files["png"])))
    assert (answer.status, answer.json["code"]) == (400, "several-files")
    assert "/v1/predict:batch" in answer.json["detail"]


def test_a_picture_has_no_dicom_objects(served: Served, files) -> None:
    answer = served.predict(files["png"], "application/dicom")
    assert (answer.status, answer.json["code"]) == (422, "no-object")


def test_a_fault_of_the_service_is_said_to_be_one_and_quotes_nothing(seen: Seen, files) -> None:
    seen.fail = lambda radiograph: True
    with serving(seen) as served:
        answer = served.predict(files["png"])
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert b"Smith" not in answer.body
        seen.fail = lambda radiograph: False
        assert served.predict(files["png"]).status == 200
        assert served.ask("GET", "/healthz").status == 200
