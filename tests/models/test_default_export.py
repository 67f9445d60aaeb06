"""The default model as the file that runs without PyTorch: it belongs to its checkpoint, and finds the same."""

from __future__ import annotations

import numpy as np
import pytest

from pleura.data.phantoms.radiographs import make_phantom
from pleura.files import hash_files
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint
from pleura.models.default import DEFAULT, FILE, default_export
from pleura.models.exported import load_exported
from pleura.models.identity import weights_hash

REMAKE = "the default model has changed: run make onnx DATA=path/to/dataset"
PHANTOMS = ((5, True), (6, False), (7, True))
MOST_BYTES = 6_500_000


@pytest.fixture(scope="module")
def exported():
    return load_exported(default_export())


def test_it_belongs_to_the_checkpoint_beside_it(exported):
    checkpoint = load_checkpoint(FILE)
    assert exported.weights_sha256 == weights_hash(checkpoint.weights), REMAKE
    assert exported.header == checkpoint.header, REMAKE
    assert exported.checkpoint_sha256 == hash_files(FILE), REMAKE
    assert exported.tta == checkpoint.recipe["tta"]


def test_its_certificate_holds_on_radiographs(exported):
    certificate = exported.certificate
    assert (certificate["holds"], certificate["engine"], certificate["images"]["kind"]) == (
        True,
        "onnxruntime",
        "dataset",
    )
    assert certificate["images"]["count"] == len(exported.seen.val)
    assert certificate["decisions_changed"] == 0
    assert certificate["decision_rule"] == exported.triplet.in_words()
    assert certificate["tta"] == exported.tta


def test_it_is_small(exported):
    assert exported.path.stat().st_size <= MOST_BYTES


def test_both_files_give_equal_masks():
    ours, theirs = (Predictor.load(DEFAULT, device="cpu", engine=name) for name in ("torch", "onnxruntime"))
    assert (ours.engine, theirs.engine) == ("torch", "onnxruntime")
    found = []
    for seed, positive in PHANTOMS:
        image = make_phantom(seed, ours.prepared_px, positive).image
        one, other = (predictor.predict(np.rint(image * 255).astype(np.uint8)) for predictor in (ours, theirs))
        np.testing.assert_array_equal(one.predicted_mask, other.predicted_mask)
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=3e-4)
        found.append(one.is_positive)
    assert any(found)  # else two empty masks were compared


def test_no_result_of_it_has_a_doubt():
    assert Predictor.load(DEFAULT, device="cpu", engine="onnxruntime").doubts == ()
