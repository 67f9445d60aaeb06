"""The certificate: what it measures, what it lets pass, and exports that are broken in each way are refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, OutputError
from pleura.export import export as verb
from pleura.export.certificate import Certificate
from pleura.export.certificate_page import render
from pleura.export.comparison import Comparison, Difference, Pair, Sides, compare
from pleura.export.export import ExportSettings, certify, export
from pleura.export.onnx import Graph, bytes_of, graph_of
from pleura.export.sample import Sample, of_phantoms
from pleura.inference.engines import onnxruntime as onnxruntime_engine
from pleura.models.checkpoint import net_of
from pleura.models.exported import load_exported

SIDE = 16


@pytest.fixture(scope="session")
def graph(made) -> bytes:
    return graph_of(made.checkpoint, "flip", "tiny")


def nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change(model: onnx.ModelProto, name: str, by) -> None:
    tensor = initializer(model, name)
    numbers = np.ascontiguousarray(by(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(numbers, name))


def transposed(model: onnx.ModelProto) -> None:
    square = (t for t in model.graph.initializer if len(t.dims) == 4 and t.dims[0] == t.dims[1] > 1 and t.dims[2] == 3)
    change(model, next(square).name, lambda numbers: numbers.swapaxes(0, 1))


def normalised_otherwise(model: onnx.ModelProto) -> None:
    change(model, nodes(model, "Sub")[0].input[1], lambda mean: mean + np.float32(0.02))


def without_sigmoid(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Sigmoid"):
        node.op_type = "Identity"


def without_mirrored_view(model: onnx.ModelProto) -> None:
    half = next(node for node in reversed(nodes(model, "Div")))
    mean = next(node for node in nodes(model, "Add") if node.output[0] == half.input[0])
    mean.input[1] = mean.input[0]


def damaged(model: onnx.ModelProto) -> None:
    change(model, nodes(model, "Sub")[0].input[1], lambda mean: mean * np.float32(np.nan))


def not_read(model: onnx.ModelProto) -> None:
    nodes(model, "Sigmoid")[0].op_type = "Sigmoidal"


def in_training_mode(checkpoint) -> bytes:
    net = net_of(checkpoint).train()
    return bytes_of(Graph(net, checkpoint.preprocessing, True), checkpoint.preprocessing.prepared_px, "tiny")


DIFFERS = r"a probability differs by [0-9.e-]+ \(.*at a time\), allowed are [0-9.e-]+"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (transposed, DIFFERS),
        (normalised_otherwise, DIFFERS),
        (without_sigmoid, r"its output lies within -[0-9.]+ and [0-9.]+, a probability within 0 and 1"),
        (without_mirrored_view, DIFFERS),
        (damaged, "its probabilities are not finite"),
    ],
)
def test_a_broken_export_is_refused_by_what_it_does(made, graph, fault, reason, tmp_path, monkeypatch):
    model = onnx.load_from_string(graph)
    fault(model)
    monkeypatch.setattr(verb, "graph_of", lambda *_: model.SerializeToString())
    with pytest.raises(
        OutputError, match=f"tiny.safetensors: its export is refused, and nothing is written: .*{reason}"
    ):
        export(made.export.source, ExportSettings(out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_an_export_of_a_net_in_training_mode_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "graph_of", lambda *_: in_training_mode(made.checkpoint))
    with pytest.raises(OutputError, match=DIFFERS):
        export(made.export.source, ExportSettings(out=tmp_path / "out"))


def test_a_graph_that_the_engine_cannot_build_is_refused_by_the_name_it_would_have(made, graph, tmp_path, monkeypatch):
    model = onnx.load_from_string(graph)
    not_read(model)
    monkeypatch.setattr(verb, "graph_of", lambda *_: model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"out/tiny\.onnx: ONNX Runtime .* cannot build its graph") as refused:
        export(made.export.source, ExportSettings(out=tmp_path / "out"))
    assert "/pleura-" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_accepted_is_written_with_its_failed_certificate(made, graph, tmp_path, monkeypatch):
    model = onnx.load_from_string(graph)
    normalised_otherwise(model)
    monkeypatch.setattr(verb, "graph_of", lambda *_: model.SerializeToString())
    done = export(made.export.source, ExportSettings(out=tmp_path / "out", accept=True))
    inside = load_exported(done.files[0]).certificate
    beside = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert (inside["holds"], beside["holds"]) == (False, False)
    assert inside["reasons"] == beside["reasons"] == done.certificate.reasons
    assert "Refused: a probability differs by" in done.page.read_text()


def test_the_certificate_of_a_good_export_has_every_number(made):
    folder = made.export.files[0].parent
    assert sorted(path.name for path in folder.iterdir()) == ["certificate.html", "certificate.json", "tiny.onnx"]
    document = json.loads((folder / "certificate.json").read_text())
    assert (document["holds"], document["reasons"], document["engine"]) == (True, [], "onnxruntime")
    assert document["images"]["count"] == 40
    assert set(document["probability_difference"]) == {"1", "3", "8"}
    assert 0 < max(document["probability_difference"].values()) < 1e-5
    assert 5 < document["found"]["torch"] == document["found"]["export"] < 35
    assert document["worst_image"]["allowed"] == 1e-4
    assert document["decisions_changed"] == 0
    assert document["mask_dice"]["least"] > 0.99
    assert document["truth"]["auroc"]["torch"] == document["truth"]["auroc"]["export"]
    assert min(document["seconds"].values()) > 0
    assert "no radiographs" in document["images"]["worth"]
    assert set(document["files"]) == {"tiny.safetensors", "tiny.onnx"}
    inside = load_exported(made.export.files[0]).certificate
    assert inside == {key: value for key, value in document.items() if key not in ("seconds", "files")}


def test_the_hashes_are_those_of_the_files(made):
    from pleura.files import hash_files

    files = made.export.certificate.files
    assert files == {path.name: hash_files(path) for path in (made.export.source, made.export.files[0])}


def test_a_certificate_is_of_the_engine_that_serves_and_at_its_settings(made, graph, monkeypatch):
    served, asked = onnxruntime_engine.session_options(), []
    monkeypatch.setattr(onnxruntime_engine, "session_options", lambda: asked.append(served) or served)
    exported = replace(load_exported(made.export.files[0]), certificate=None)
    assert certify("onnx", (graph,), exported, made.checkpoint, of_phantoms(made.checkpoint)).holds
    assert asked == [served]


class Stub:
    """An engine that gives a constant plus what is added to some images."""

    name, size_px, tta, device, weights_sha256 = "stub", SIDE, "none", "cpu", "a" * 64

    def __init__(self, level: float, added: dict[int, float] | None = None) -> None:
        self.level, self.added = level, added or {}

    def probabilities(self, squares: np.ndarray) -> np.ndarray:
        rows = [np.full((SIDE, SIDE), self.level + self.added.get(int(one[0, 0]), 0.0)) for one in squares]
        return np.stack(rows).astype(np.float32)


def sample(count: int = 40, has_truth: bool = True) -> Sample:
    def case(number: int):
        return np.full((SIDE, SIDE), number, np.uint8), np.full((SIDE, SIDE), number % 2, np.uint8)

    return Sample("dataset" if has_truth else "radiographs", "stubs", count, has_truth, case)


FLAT = Stub(0.25)


def compared(export: Stub, together=None, exact: Stub = FLAT, has_truth: bool = True) -> Comparison:
    sides = Sides(Stub(0.25), exact.probabilities, export, together or export.probabilities)
    return compare(sides, Triplet(0.5, 0, 0.5), sample(has_truth=has_truth))


def certificate(found: Comparison, precision="float32") -> Certificate:
    return Certificate(
        precision=precision,
        format="onnx",
        engine="onnxruntime",
        tta="none",
        decision_rule="any",
        kind="dataset",
        what="stubs",
        comparison=found,
        cpu="a CPU",
        threads=1,
    )


def test_equal_probabilities_hold():
    found = compared(Stub(0.25))
    assert (max(found.probability.values()), found.decisions_changed, found.dice_change) == (0, 0, 0)
    assert certificate(found).holds
    assert certificate(found, "int8").holds
    assert found.found == Pair(0, 0)


def test_a_pixel_that_differs_more_than_rounding_does_not_hold():
    found = compared(Stub(0.25, {7: 2e-4}))
    assert certificate(found).reasons == ["a probability differs by 0.0002 (an image at a time), allowed are 0.0001"]
    assert certificate(found, "int8").holds


def test_where_float32_itself_is_coarse_an_export_may_be_as_coarse_and_no_more():
    coarse = Stub(0.25, {7: 6e-5})  # PyTorch in float64 on that image
    found = compared(Stub(0.25, {7: 2e-4}), exact=coarse)
    assert found.worst == Difference(pytest.approx(2e-4, rel=1e-3), 1, pytest.approx(6e-5, rel=1e-3))
    assert certificate(found).holds
    assert certificate(compared(Stub(0.25, {7: 3e-4}), exact=coarse)).reasons == [
        "a probability differs by 0.0003 (an image at a time), allowed are 0.00024"
    ]
    assert not certificate(compared(Stub(0.25, {8: 2e-4}), exact=coarse)).holds  # an image on which it is not
    assert "0.0001, or 4 times PyTorch’s own rounding on an image" in render(certificate(found))
    assert "or 4 times" not in render(certificate(compared(Stub(0.25))))
    hopeless = Stub(0.25, {7: 0.1})
    assert certificate(compared(Stub(0.25, {7: 2e-3}), exact=hopeless)).reasons == [
        "a probability differs by 0.002 (an image at a time), allowed are 0.0001"
    ]


def test_a_graph_that_differs_in_batches_alone_does_not_hold():
    good, bad = Stub(0.25), Stub(0.25, {2: 1e-3})
    found = compared(good, lambda squares: (bad if len(squares) == 3 else good).probabilities(squares))
    assert certificate(found).reasons == ["a probability differs by 0.001 (3 images at a time), allowed are 0.0001"]


def test_a_changed_decision_does_not_hold_in_float32_and_one_in_a_hundred_does_in_int8():
    near = replace(compared(Stub(0.25)), decisions_changed=1)
    assert certificate(near).reasons == ["1 of 40 decisions changed, allowed is none"]
    assert certificate(near, "int8").reasons == ["1 of 40 decisions changed, allowed are 1 %"]
    assert certificate(replace(near, images=100), "int8").holds


def test_changed_masks_are_counted_and_scored_against_truth():
    found = compared(Stub(0.25, {1: 0.5, 4: 0.5}))
    assert (found.decisions_changed, found.found) == (2, Pair(0, 2))
    assert found.mask_dice.mean() == pytest.approx(38 / 40)
    assert found.truth["siim_dice"] == Pair(0.5, 0.5)  # the one that is gained outweighs the one that is lost
    assert found.truth["dice_on_positives"] == Pair(0, pytest.approx(1 / 20))
    assert found.dice_change == pytest.approx(1 / 20)
    assert certificate(found, "int8").reasons[0] == "Dice changes by 0.0500, allowed are 0.005"


def test_without_truth_every_change_of_a_mask_counts():
    found = compared(Stub(0.25, {1: 0.5, 4: 0.5}), has_truth=False)
    assert found.truth is None
    assert found.dice_change == pytest.approx(2 / 40)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_never_hold(number):
    for precision in ("float32", "int8"):
        assert "its probabilities are not finite" in certificate(compared(Stub(0.25, {5: number})), precision).reasons
