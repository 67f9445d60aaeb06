"""What an answer holds, as the client accepts it: JSON, a picture, DICOM objects, or all that a viewer shows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pleura.decision.triplet import Triplet
from pleura.dicom.results import Algorithm, DicomObject
from pleura.errors import InputError
from pleura.files import as_json
from pleura.inference.overlay import DISCLAIMER
from pleura.inference.prediction import Prediction
from pleura.inference.writers import DICOM_OBJECTS, PICTURES
from pleura.serve.problems import ProblemError
from pleura.serve.viewing import Part, Piece, view_parts

JSON, PNG, DICOM, RELATED = "application/json", "image/png", "application/dicom", "multipart/related"
VIEW = "multipart/form-data"
"""What a viewer shows, in one answer, which browsers take apart themselves; see `viewing.view_parts`."""
OBJECTS: dict[str, tuple[str, ...]] = {JSON: (), PNG: tuple(PICTURES), DICOM: tuple(DICOM_OBJECTS)}
"""Media type -> the objects that it can be, the default first; multipart/related has several of DICOM."""


@dataclass(frozen=True)
class Wanted:
    """What a client is given."""

    media_type: str
    objects: tuple[str, ...] = ()


def negotiate(accept: str | None, objects: str | None) -> Wanted:
    """Return what to give for an Accept header and the parameter `object`, words of `predict --write` with commas.

    The object may also be a parameter of the media type, as in `application/dicom; object=sr`.
    Raises: ProblemError (not-acceptable, bad-parameter). Source: RFC 9110 12.5.1.
    """
    asked = tuple(word.strip() for word in objects.split(",")) if objects is not None else ()
    _check_objects(asked)
    ranges = _ranges(accept or "*/*")
    refused = {name for name, _, quality in ranges if quality == 0}
    for media_range, parameters, quality in ranges:
        own = tuple(filter(None, (word.strip() for word in parameters.get("object", "").split(","))))
        _check_objects(own)
        if own and asked and own != asked:
            raise ProblemError("bad-parameter", "the object is one thing in the address and another one in Accept")
        for media_type in (JSON, PNG, DICOM, RELATED, VIEW):
            taken = quality > 0 and media_type not in refused and _covers(media_range, media_type)
            if taken and (found := _of_type(media_type, own or asked, media_range)):
                return found
    can = f"{JSON}, {PNG} (object {', '.join(PICTURES)}), {DICOM} (object {', '.join(DICOM_OBJECTS)})"
    raise ProblemError("not-acceptable", f"{can}, {RELATED} of several of these, and {VIEW} can be given")


def _check_objects(words: Sequence[str]) -> None:
    for word in words:
        if word not in (*PICTURES, *DICOM_OBJECTS):
            raise ProblemError("bad-parameter", f"object is one of {', '.join((*PICTURES, *DICOM_OBJECTS))}")


def _ranges(accept: str) -> list[tuple[str, dict[str, str], float]]:
    """The media ranges of an Accept header with their parameters and weights, the most wanted first."""
    found = []
    for part in _split(accept, ","):
        name, *pairs = _split(part, ";")
        parameters = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        weight = parameters.pop("q", "1")
        quality = float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0
        found.append((name.strip().lower(), parameters, quality))
    return sorted(found, key=lambda each: (-each[2], each[0].count("*")))


def _split(text: str, mark: str) -> list[str]:
    """The parts of a header between marks, which do not count inside quotes."""
    parts, start, quoted = [], 0, False
    for position, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif letter == mark and not quoted:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _covers(media_range: str, media_type: str) -> bool:
    return media_range in ("*/*", media_type, f"{media_type.partition('/')[0]}/*")


def _of_type(media_type: str, objects: tuple[str, ...], media_range: str) -> Wanted | None:
    """What a media type gives of these objects, or by default; None where it cannot."""
    if media_type == RELATED:
        several = objects or (("seg", "sr") if media_range == RELATED else ())
        fits = several and set(several) <= set(DICOM_OBJECTS) and len(set(several)) == len(several)
        return Wanted(RELATED, several) if fits else None
    if media_type == JSON:
        return None if objects else Wanted(JSON)
    if media_type == VIEW:  # only where it is named: nobody else wants so much
        return None if objects or media_range != VIEW else Wanted(VIEW, ("probabilities",))
    chosen = objects or OBJECTS[media_type][:1]
    return Wanted(media_type, chosen) if len(chosen) == 1 and chosen[0] in OBJECTS[media_type] else None


def model_document(algorithm: Algorithm) -> dict[str, Any]:
    """Return what every JSON answer says of the model."""
    return {
        "name": algorithm.name,
        "pleura_version": algorithm.version,
        "weights_sha256": algorithm.weights_sha256,
        "settings": dict(algorithm.settings),
    }


def model_headers(algorithm: Algorithm) -> dict[str, str]:
    """Return what every answer with a prediction says of the model, also one that is no JSON."""
    return {
        "Pleura-Model": re.sub(r"[^ -~]", "?", algorithm.name),
        "Pleura-Version": algorithm.version,
        "Pleura-Weights-SHA256": algorithm.weights_sha256,
        "Pleura-Disclaimer": DISCLAIMER,
    }


def result_document(prediction: Prediction) -> dict[str, Any]:
    """Return `to_dict`, what was found in words, and the share of positives that the probability is for."""
    return {**prediction.to_dict(), "found": prediction.found(), "prevalence": prediction.prevalence}


def answer_document(prediction: Prediction, algorithm: Algorithm, request_id: str) -> dict[str, Any]:
    """Return the JSON of one prediction."""
    return {
        "request_id": request_id,
        "disclaimer": DISCLAIMER,
        "model": model_document(algorithm),
        "prediction": result_document(prediction),
    }


def render(
    prediction: Prediction, wanted: Wanted, algorithm: Algorithm, triplet: Triplet, request_id: str
) -> tuple[Sequence[Piece], str]:
    """Return the body, in pieces, and its media type. triplet: the model's rule. Raises: ProblemError (no-object)."""
    if wanted.media_type == JSON:
        return [as_json(answer_document(prediction, algorithm, request_id)).encode()], JSON
    if wanted.media_type == PNG:
        return [PICTURES[wanted.objects[0]][1](prediction)], PNG
    if wanted.media_type == VIEW:
        document = answer_document(prediction, algorithm, request_id)
        return _multipart(VIEW, view_parts(prediction, triplet, document), "")
    files = _dicom_files(prediction, wanted.objects)
    if wanted.media_type == DICOM:
        return files, DICOM
    return _multipart(RELATED, [({"Content-Type": DICOM}, file) for file in files], f' type="{DICOM}";')


def _multipart(kind: str, parts: Sequence[Part], parameters: str) -> tuple[Sequence[Piece], str]:
    boundary = secrets.token_hex(16)
    pieces: list[Piece] = []
    for headers, content in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        pieces += [f"--{boundary}\r\n{lines}\r\n".encode(), content, b"\r\n"]
    return [*pieces, f"--{boundary}--\r\n".encode()], f"{kind};{parameters} boundary={boundary}"


def _dicom_files(prediction: Prediction, words: Sequence[str]) -> list[bytes]:
    from pleura.dicom.instance import bytes_of

    made: list[DicomObject] = []
    try:
        for word in words:
            made.append(DICOM_OBJECTS[word](prediction, made))
    except InputError as error:
        raise ProblemError("no-object", f"{', '.join(words)}: {error}") from error
    return [bytes_of(one) for one in made]
