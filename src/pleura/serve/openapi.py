"""The description of the API for readers and generators of clients; its examples are run by tests.

Source: OpenAPI 3.1; `x-codeSamples` is what most viewers of such descriptions show as examples.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response

from pleura.inference.overlay import DISCLAIMER
from pleura.inference.writers import DICOM_OBJECTS, PICTURES
from pleura.serve.problems import KINDS, MEDIA_TYPE
from pleura.serve.schemas import SCHEMAS, object_of, reference

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
    "content": {MEDIA_TYPE: {"schema": reference("Problem"), "example": _EXAMPLE_PROBLEM}},
}


def _json(schema: str, description: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    media = {"schema": reference(schema), **({} if example is None else {"example": example})}
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
    "schema": object_of(
        {
            "answer": reference("ViewAnswer"),
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
