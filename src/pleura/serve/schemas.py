"""What the JSON of the API's answers holds, as schemas. Source: JSON Schema 2020-12, OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from pleura.serve.problems import KINDS


def object_of(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others; all but `optional` are there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def value_of(kind: str, description: str, *, null: bool = False, **more: Any) -> dict[str, Any]:
    """Return the schema of a value of a JSON type; null: or of null."""
    return {"type": [kind, "null"] if null else kind, "description": description, **more}


def reference(name: str) -> dict[str, str]:
    """Return a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_UID: dict[str, Any] = {"null": True, "examples": ["1.2.826.0.1.3680043.8.498.1"]}
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
_COUNT: dict[str, Any] = {"minimum": 0}
_PREDICTION = object_of(
    {
        "image_id": value_of("string", "SOP Instance UID; `file` of a picture"),
        "is_positive": value_of("boolean", "Whether a pneumothorax was found: the mask is not empty"),
        "score": value_of("number", "Orders images; not a probability of disease", **_SHARE),
        "probability": value_of("number", "Of a pneumothorax, if the model is calibrated", null=True, **_SHARE),
        "ruled_out": value_of("boolean", "Whether the score is below the threshold of few misses", null=True),
        "area_px": value_of("integer", "Pixels of the mask", **_COUNT),
        "area_mm2": value_of("number", "By the pixel spacing, where the file has one", null=True, **_COUNT),
        "side": value_of(
            "string", "Of the patient: R, L, or B for both; null if nothing is found or it is not known", null=True
        ),
        "rows": value_of("integer", "Of the mask, as of the file", minimum=1),
        "columns": value_of("integer", "Of the mask, as of the file", minimum=1),
        "mask_rle": value_of(
            "string",
            "The mask on rows x columns, column by column (top to bottom, then left to right): pairs of the gap since "
            "the end of the last run and the run's length; -1 if it is empty. As in SIIM-ACR 2019",
        ),
        "sop_instance_uid": value_of("string", "Of the radiograph", **_UID),
        "series_instance_uid": value_of("string", "Of the radiograph", **_UID),
        "study_instance_uid": value_of("string", "Of the radiograph", **_UID),
        "notes": value_of(
            "array", "Reasons to doubt the result, although the file could be read", items={"type": "string"}
        ),
        "found": value_of("string", "The result in words"),
        "prevalence": value_of("number", "The share of positives that `probability` is for", null=True, **_SHARE),
    }
)
_MODEL = object_of(
    {
        "name": value_of("string", "The model"),
        "pleura_version": value_of("string", "Of the software"),
        "weights_sha256": value_of("string", "Which weights", pattern="^[0-9a-f]{64}$"),
        "settings": value_of("object", "What else decides the result", additionalProperties={"type": "string"}),
    }
)
_PROBLEM = object_of(
    {
        "type": value_of("string", "urn:pleura:problem: and the code"),
        "title": value_of("string", "The code in words"),
        "status": value_of("integer", "As of the answer"),
        "detail": value_of("string", "What is wrong here, and the way out; it may quote the file"),
        "instance": value_of("string", "urn:uuid: and the request's id"),
        "code": value_of("string", "For programs", enum=list(KINDS)),
        "retry_after_s": value_of("integer", "When to try again", minimum=1),
    },
    "retry_after_s",
)
_HEAD = {
    "request_id": value_of("string", "Of this request", format="uuid"),
    "disclaimer": value_of("string", "What this software is not"),
    "model": reference("Model"),
}
_NUMBERS = {"type": "number"}
_VIEW = object_of(
    {
        "grey_bits": value_of("integer", "Of each grey value", enum=[8, 16]),
        "window_center": value_of("number", "In grey values: how the file asks to show them"),
        "window_width": value_of("number", "From black to white", exclusiveMinimum=0),
        "window_curve": value_of(
            "array",
            "Brightness, 0 to 255, at even steps from one end of the window to the other; null: a straight line",
            null=True,
            items={"type": "integer", "minimum": 0, "maximum": 255},
        ),
        "rescale_slope": value_of("number", "slope * grey value + intercept is the value after the modality LUT"),
        "rescale_intercept": value_of("number", "See rescale_slope"),
        "pixel_aspect": value_of("number", "How many times as high as wide a pixel is", exclusiveMinimum=0),
        "pixel_spacing_mm": value_of(
            "array", "Between rows and between columns, where the file has it", null=True, items=_NUMBERS
        ),
        "patient_orientation": value_of(
            "array", "Of the patient, along a row and down a column", null=True, items={"type": "string"}
        ),
        "is_dicom": value_of("boolean", "Whether it can have DICOM objects"),
        "square_area_px": value_of(
            "integer", "Of the square by which min_pixels is scaled, in pixels of the file", minimum=1
        ),
        "triplet": object_of(
            {
                "top_threshold": value_of("number", "Which min_pixels have to reach", **_SHARE),
                "min_pixels": value_of("integer", "Of 1024 x 1024; else nothing is found", **_COUNT),
                "bottom_threshold": value_of("number", "What reaches it is the mask", **_SHARE),
            }
        ),
    }
)
_ITEM = object_of(
    {
        "index": value_of("integer", "Of the file in the request", **_COUNT),
        "name": value_of("string", "As the client named the file", null=True),
        "prediction": reference("Prediction"),
        "problem": reference("Problem"),
    },
    *("prediction", "problem"),
)
_JOB = {
    "job_id": value_of("string", "Of the job"),
    "status": value_of("string", "Results come with finished", enum=["queued", "running", "finished"]),
    "files": value_of("integer", "That were sent", **_COUNT),
    "done": value_of("integer", "That have a result or a problem", **_COUNT),
    "failed": value_of("integer", "That have a problem", **_COUNT),
}
SCHEMAS: dict[str, Any] = {
    "Prediction": _PREDICTION,
    "Model": _MODEL,
    "Problem": _PROBLEM,
    "Answer": object_of({**_HEAD, "prediction": reference("Prediction")}),
    "ViewAnswer": object_of({**_HEAD, "prediction": reference("Prediction"), "view": _VIEW}),
    "Job": object_of(
        {**_HEAD, **_JOB, "results": value_of("array", "In the order of the files", items=reference("Item"))}, "results"
    ),
    "Item": _ITEM,
    "JobTaken": object_of({**_JOB, "location": value_of("string", "Where its progress and its results are")}),
    "State": object_of({"status": value_of("string", "ok or ready")}),
    "About": object_of(
        {
            "disclaimer": _HEAD["disclaimer"],
            "model": reference("Model"),
            "objects": value_of("object", "Media type -> what `object` may be"),
            "limits": value_of("object", "What is taken at a time", additionalProperties={"type": "integer"}),
        }
    ),
}
