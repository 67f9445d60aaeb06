"""The description of the API for readers and generators of clients; its examples are run by tests.

Source: OpenAPI 3.1; `x-codeSamples` is what most viewers of such descriptions show as examples.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response

from pleura.inference.overlay import DISCLAIMER
from pleura.inference.writers import DICOM_OBJECTS, PICTURES
from pleura.serve.problems import KINDS, MEDIA_TYPE

URL = "http://127.0.0.1:8080"
"""Of the examples: where `pleura serve` listens if nothing else is said."""
DESCRIPTION = f"""Finds and outlines pneumothorax on frontal chest radiographs: {DISCLAIMER}.

Nothing that is sent is kept: files are in memory until they are answered, results of jobs until they are fetched.
Every refusal is `{MEDIA_TYPE}` (RFC 9457) with a `code` that stays as it is. Every answer has an `X-Request-ID`, by
which the service's log finds it; a UUID that the client sends as `X-Request-ID` is taken. If the service has keys, give
one as `X-API-Key` or as `Authorization: Bearer`."""
OBJECT = (
    "What an answer that is no JSON holds, if not its default: for image/png "
    f"{', '.join(PICTURES)}; for application/dicom {', '.join(DICOM_OBJECTS)}; several of these, with commas, for "
    "multipart/related. It may also be a parameter of the media type: `Accept: application/dicom; object=sr`."
)
OBJECT_PATTERN = "^({0})(,({0}))*$".format("|".join((*PICTURES, *DICOM_OBJECTS)))


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _is(kind: str, description: str, *, null: bool = False, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"] if null else kind, "description": description, **more}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_UID: dict[str, Any] = {"null": True, "examples": ["1.2.826.0.1.3680043.8.498.1"]}
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
_COUNT: dict[str, Any] = {"minimum": 0}
_PREDICTION = _object(
    {
        "image_id": _is("string", "SOP Instance UID; `file` of a picture"),
        "is_positive": _is("boolean", "Whether a pneumothorax was found: the mask is not empty"),
        "score": _is("number", "Orders images; not a probability of disease", **_SHARE),
        "probability": _is("number", "Of a pneumothorax, if the model is calibrated", null=True, **_SHARE),
        "ruled_out": _is("boolean", "Whether the score is below the threshold of few misses", null=True),
        "area_px": _is("integer", "Pixels of the mask", **_COUNT),
        "area_mm2": _is("number", "By the pixel spacing, where the file has one", null=True, **_COUNT),
        "side": _is(
            "string", "Of the patient: R, L, or B for both; null if nothing is found or it is not known", null=True
        ),
        "rows": _is("integer", "Of the mask, as of the file", minimum=1),
        "columns": _is("integer", "Of the mask, as of the file", minimum=1),
        "mask_rle": _is(
            "string",
            "The mask on rows x columns, column by column (top to bottom, then left to right): pairs of the gap since "
            "the end of the last run and the run's length; -1 if it is empty. As in SIIM-ACR 2019",
        ),
        "sop_instance_uid": _is("string", "Of the radiograph", **_UID),
        "series_instance_uid": _is("string", "Of the radiograph", **_UID),
        "study_instance_uid": _is("string", "Of the radiograph", **_UID),
        "notes": _is("array", "Reasons to doubt the result, although the file could be read", items={"type": "string"}),
        "found": _is("string", "The result in words"),
        "prevalence": _is("number", "The share of positives that `probability` is for", null=True, **_SHARE),
    }
)
_MODEL = _object(
    {
        "name": _is("string", "The model"),
        "pleura_version": _is("string", "Of the software"),
        "weights_sha256": _is("string", "Which weights", pattern="^[0-9a-f]{64}$"),
        "settings": _is("object", "What else decides the result", additionalProperties={"type": "string"}),
    }
)
_PROBLEM = _object(
    {
        "type": _is("string", "urn:pleura:problem: and the code"),
        "title": _is("string", "The code in words"),
        "status": _is("integer", "As of the answer"),
        "detail": _is("string", "What is wrong here, and the way out; it may quote the file"),
        "instance": _is("string", "urn:uuid: and the request's id"),
        "code": _is("string", "For programs", enum=list(KINDS)),
        "retry_after_s": _is("integer", "When to try again", minimum=1),
    },
    "retry_after_s",
)
_HEAD = {
    "request_id": _is("string", "Of this request", format="uuid"),
    "disclaimer": _is("string", "What this software is not"),
    "model": _ref("Model"),
}
_NUMBERS = {"type": "number"}
_VIEW = _object(
    {
        "grey_bits": _is("integer", "Of each grey value", enum=[8, 16]),
        "window_center": _is("number", "In grey values: how the file asks to show them"),
        "window_width": _is("number", "From black to white", exclusiveMinimum=0),
        "window_curve": _is(
            "array",
            "Brightness, 0 to 255, at even steps from one end of the window to the other; null: a straight line",
            null=True,
            items={"type": "integer", "minimum": 0, "maximum": 255},
        ),
        "rescale_slope": _is("number", "slope * grey value + intercept is the value after the modality LUT"),
        "rescale_intercept": _is("number", "See rescale_slope"),
        "pixel_aspect": _is("number", "How many times as high as wide a pixel is", exclusiveMinimum=0),
        "pixel_spacing_mm": _is(
            "array", "Between rows and between columns, where the file has it", null=True, items=_NUMBERS
        ),
        "patient_orientation": _is(
            "array", "Of the patient, along a row and down a column", null=True, items={"type": "string"}
        ),
        "is_dicom": _is("boolean", "Whether it can have DICOM objects"),
        "square_area_px": _is(
            "integer", "Of the square by which min_pixels is scaled, in pixels of the file", minimum=1
        ),
        "triplet": _object(
            {
                "top_threshold": _is("number", "Which min_pixels have to reach", **_SHARE),
                "min_pixels": _is("integer", "Of 1024 x 1024; else nothing is found", **_COUNT),
                "bottom_threshold": _is("number", "What reaches it is the mask", **_SHARE),
            }
        ),
    }
)
_ITEM = _object(
    {
        "index": _is("integer", "Of the file in the request", **_COUNT),
        "name": _is("string", "As the client named the file", null=True),
        "prediction": _ref("Prediction"),
        "problem": _ref("Problem"),
    },
    *("prediction", "problem"),
)
_JOB = {
    "job_id": _is("string", "Of the job"),
    "status": _is("string", "Results come with finished", enum=["queued", "running", "finished"]),
    "files": _is("integer", "That were sent", **_COUNT),
    "done": _is("integer", "That have a result or a problem", **_COUNT),
    "failed": _is("integer", "That have a problem", **_COUNT),
}
SCHEMAS: dict[str, Any] = {
    "Prediction": _PREDICTION,
    "Model": _MODEL,
    "Problem": _PROBLEM,
    "Answer": _object({**_HEAD, "prediction": _ref("Prediction")}),
    "ViewAnswer": _object({**_HEAD, "prediction": _ref("Prediction"), "view": _VIEW}),
    "Job": _object(
        {**_HEAD, **_JOB, "results": _is("array", "In the order of the files", items=_ref("Item"))}, "results"
    ),
    "Item": _ITEM,
    "JobTaken": _object({**_JOB, "location": _is("string", "Where its progress and its results are")}),
    "State": _object({"status": _is("string", "ok or ready")}),
    "About": _object(
        {
            "disclaimer": _HEAD["disclaimer"],
            "model": _ref("Model"),
            "objects": _is("object", "Media type -> what `object` may be"),
            "limits": _is("object", "What is taken at a time", additionalProperties={"type": "integer"}),
        }
    ),
}
_EXAMPLE_MODEL = {
    "name": "pleura default",
    "pleura_version": "0.1.0",
    "weights_sha256": "c444adbe9c1aeb588aacd9a9cd462be9849cc15128fac6f6dd49187eea80b8d0",
    "settings": {"test-time augmentation": "flip", "precision": "float32"},
}
_EXAMPLE_ID = "7f0c5c0e-6b7e-4c5f-9a3e-0d8f6f0f4a11"
_EXAMPLE_PREDICTION = {
    "image_id": "1.2.826.0.1.3680043.8.498.1",
    "is_positive": True,
    "score": 0.83,
    "probability": 0.71,
    "ruled_out": False,
    "area_px": 7,
    "area_mm2": 1.4,
    "side": "R",
    "rows": 1024,
    "columns": 1024,
    "mask_rle": "300213 3 1021 4",
    "sop_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "series_instance_uid": "1.2.826.0.1.3680043.8.498.2",
    "study_instance_uid": "1.2.826.0.1.3680043.8.498.3",
    "notes": [],
    "found": "pneumothorax, right, 0.0 sq cm by its pixel spacing, score 0.83",
    "prevalence": 0.2215,
}
_EXAMPLE_ANSWER = {
    "request_id": _EXAMPLE_ID,
    "disclaimer": DISCLAIMER,
    "model": _EXAMPLE_MODEL,
    "prediction": _EXAMPLE_PREDICTION,
}
_EXAMPLE_JOB = {"job_id": "q6cYt1bV7mXo2sJd0aKf3g", "status": "queued", "files": 2, "done": 0, "failed": 0}
_EXAMPLE_PROBLEM = {
    "type": "urn:pleura:problem:unreadable",
    "title": KINDS["unreadable"][1],
    "status": 422,
    "detail": "cannot read the file: the file is truncated; copy or export it again",
    "instance": f"urn:uuid:{_EXAMPLE_ID}",
    "code": "unreadable",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "additionalProperties": False,
    "required": ["file"],
}
PROBLEM: dict[str, Any] = {
    "description": "Refused; see `code`",
    "content": {MEDIA_TYPE: {"schema": _ref("Problem"), "example": _EXAMPLE_PROBLEM}},
}


def _json(schema: str, description: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    media = {"schema": _ref(schema), **({} if example is None else {"example": example})}
    return {"description": description, "content": {"application/json": media}}


def _samples(**sources: str) -> dict[str, Any]:
    return {"x-codeSamples": [{"lang": lang, "source": source} for lang, source in sources.items()]}


def _operation(summary: str, responses: dict[int, Any], description: str = "", **extra: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        "description": description or summary,
        "responses": responses,
        "response_class": Response,
        "openapi_extra": extra,
    }


_answer = _json("Answer", "What was found", _EXAMPLE_ANSWER)
_answer["content"] |= {"image/png": _BINARY, "application/dicom": _BINARY, "multipart/related": _BINARY}
_answer["content"]["multipart/form-data"] = {
    "schema": _object(
        {
            "answer": _ref("ViewAnswer"),
            "grey": {
                "type": "string",
                "format": "binary",
                "description": "rows x columns grey values before any window, row by row, larger = brighter, 8 or 16 "
                "bits each, little-endian; padding is 0",
            },
            "probabilities": {
                "type": "string",
                "format": "binary",
                "description": "A PNG: floor(256 p) of each pixel, 255 for p = 1",
            },
        }
    ),
    "encoding": {
        "answer": {"contentType": "application/json"},
        "grey": {"contentType": "application/octet-stream"},
        "probabilities": {"contentType": "image/png"},
    },
}
PREDICT = _operation(
    "Find pneumothorax on one radiograph",
    {200: _answer},
    "The body is the file, or multipart/form-data with it; its content decides what it is, whatever its type says. "
    "The answer is what `Accept` asks for: JSON by default, the mask as a PNG, or DICOM objects, of DICOM files only. "
    "`Accept: multipart/form-data` gives all that a viewer shows in one answer: JSON, grey values, probabilities.",
    requestBody={
        "required": True,
        "content": {
            "application/dicom": _BINARY,
            "image/png": _BINARY,
            "image/jpeg": _BINARY,
            "multipart/form-data": {"schema": _FORM},
        },
    },
    **_samples(
        Shell=f"""curl --fail-with-body -F file=@image.dcm {URL}/v1/predict
curl --fail-with-body --data-binary @image.png -H 'Accept: image/png' {URL}/v1/predict -o mask.png
curl --fail-with-body --data-binary @image.dcm -H 'Accept: application/dicom' {URL}/v1/predict -o seg.dcm
curl --fail-with-body --data-binary @image.dcm -H 'Accept: application/dicom; object=sr' {URL}/v1/predict -o sr.dcm
curl --fail-with-body --data-binary @image.dcm '{URL}/v1/predict?object=seg,sc,sr' -o objects.multipart""",
        Python=f"""import json
import urllib.request
from pathlib import Path

request = urllib.request.Request(
    "{URL}/v1/predict",
    data=Path("image.dcm").read_bytes(),
    headers={{"Content-Type": "application/dicom", "Accept": "application/json"}},
)
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
print(answer["prediction"]["found"], answer["model"]["weights_sha256"])""",
    ),
)
BATCH = _operation(
    "Find pneumothorax on several radiographs: a job",
    {
        202: _json(
            "JobTaken",
            "Taken; ask for it at `location`",
            {**_EXAMPLE_JOB, "location": "/v1/jobs/q6cYt1bV7mXo2sJd0aKf3g"},
        )
    },
    "The body is multipart/form-data, or multipart/related, with the files. They are predicted in turn, after single "
    "ones, and are in memory alone: a job does not outlast the service.",
    requestBody={
        "required": True,
        "content": {"multipart/form-data": {"schema": _FORM}, "multipart/related": _BINARY},
    },
    **_samples(
        Shell=f"""location=$(curl --fail-with-body -F file=@image.dcm -F file=@image.png {URL}/v1/predict:batch \\
    | sed -n 's/.*"location": "\\(.*\\)".*/\\1/p')
until curl --fail-with-body "{URL}$location" -o job.json && grep -q '"status": "finished"' job.json; do sleep 0.2; done
curl --fail-with-body -X DELETE "{URL}$location\"""",
    ),
)
JOB = _operation(
    "The progress of a job, and once it is finished its results",
    {200: _json("Job", "Its progress", {**_EXAMPLE_ANSWER, **_EXAMPLE_JOB})},
    "A finished job is kept for a minute after its results were first fetched, and for a quarter of an hour if they "
    "are not. No other key sees it.",
)
JOB["responses"][200]["content"]["application/json"]["example"].pop("prediction")
DELETE_JOB = _operation("Forget a job, finished or not", {204: {"description": "Forgotten"}})
MODEL = _operation("The model, what it can give, and the limits", {200: _json("About", "About this service")})
HEALTH = _operation("Whether the service works", {200: _json("State", "It does", {"status": "ok"})})
READY = _operation("Whether it takes requests", {200: _json("State", "It does", {"status": "ready"})})
METRICS = _operation(
    "Counters, in the text format of Prometheus",
    {200: {"description": "Counters", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a description with the schemas that its operations refer to, and the ways to give a key."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(SCHEMAS)
    components["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    document["security"] = [{}, {"key": []}, {"bearer": []}]
    return document
