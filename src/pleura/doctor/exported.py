"""Exported models: whether they run here, what their certificate says, and what doctor/models.py looks for in any."""

from __future__ import annotations

from pathlib import Path

from pleura.doctor.examination import Against, Examination
from pleura.doctor.models import check_on_data, check_past, check_rule, check_scaling
from pleura.inference.predictor import Predictor


def examine_exported(path: Path, against: Against) -> Examination:
    """Examine an exported model. Raises: CheckpointError, InputError, MissingExtraError if its engine is missing."""
    predictor = Predictor.load(path)
    [header], [engine] = predictor.headers, predictor.engines
    found = Examination("an exported model of pleura")
    found.facts += [
        f"{header.model.architecture} with {header.model.encoder}, tta {engine.tta}",
        f"here it is run by {engine.name} in {engine.precision}",
        f"its weights have the sha256 {engine.weights_sha256[:12]}",
    ]
    if not predictor.doubts:
        found.facts.append("its certificate says that it computes what its checkpoint does")
    for doubt in predictor.doubts:
        found.warn(doubt, "run its checkpoint, or export that again")
    check_rule(header, found)
    check_scaling(header, found)
    check_past(header, found)
    check_on_data(path, header, against.data, found)
    return found
