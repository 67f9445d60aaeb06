"""`pleura export --int8`: weights of 7 bits, a certificate of its own, and images that are not measured on twice."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoints import PREPARED_PX
from onnx import numpy_helper
from PIL import Image

from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, InputError
from pleura.export import export as verb
from pleura.export import int8, int8_openvino
from pleura.export.certificate_page import render
from pleura.export.export import Export, ExportSettings, export
from pleura.export.float_layers import Likeness, Quantised
from pleura.export.sample import MOST_CALIBRATION, of_calibration
from pleura.inference.cpu import int8_units
from pleura.inference.predictor import Predictor
from pleura.models.exported import load_exported, onnx_of

COUNT = 12


def radiographs(folder: Path, seeds: range) -> str:
    folder.mkdir()
    for seed in seeds:
        image = np.rint(make_phantom(seed, PREPARED_PX, seed % 2 == 0).image * 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"secret-{seed}.png")
    return str(folder)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    return radiographs(tmp_path_factory.mktemp("calibration") / "in", range(COUNT))


@pytest.fixture
def quick(made, monkeypatch) -> None:
    """The exporter is not asked again for what it has made."""
    graph = made.export.files[0].read_bytes()
    monkeypatch.setattr(verb, "graph_of", lambda *_: graph)


@pytest.fixture(scope="module")
def in_onnx(made, calibration, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """tiny.onnx in int8, not to be written to."""
    settings = ExportSettings(out=tmp_path_factory.mktemp("int8") / "out", int8=True, calibration=(calibration,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "graph_of", lambda *_: made.export.files[0].read_bytes())
        return export(made.export.source, settings)


def test_an_int8_export_holds_its_certificate_and_predicts_in_int8(made, in_onnx):
    certificate = in_onnx.certificate
    assert (certificate.precision, certificate.holds, certificate.engine) == ("int8", True, "onnxruntime")
    assert certificate.int8.int8_layers
    predictor = Predictor.load(in_onnx.files[0])
    assert (predictor.engine, predictor.precision, predictor.doubts) == ("onnxruntime", "int8", ())
    assert load_exported(in_onnx.files[0]).header == made.checkpoint.header
    square = np.rint(make_phantom(0, PREPARED_PX).image * 255).astype(np.uint8)[None]
    exact = Predictor.load(made.export.files[0]).probabilities(square)
    difference = np.abs(predictor.probabilities(square) - exact).max()
    assert 0 < difference < 0.2


def test_weights_have_seven_bits_so_that_no_cpu_overflows(in_onnx):
    model = onnx.load(in_onnx.files[0])
    producers = {node.output[0]: node for node in model.graph.node}
    numbers = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        source = producers.get(node.input[1]) if node.op_type == "Conv" else None
        if source is not None and source.op_type == "DequantizeLinear":
            found.append(numpy_helper.to_array(numbers[source.input[0]]))
    assert len(found) == sum(name.startswith("node_conv") for name in in_onnx.certificate.int8.int8_layers) > 0
    assert all(weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= 64 for weights in found)
    # The largest sum of two products, of a number of 8 bits without sign and a weight, in 16 bits with one.
    assert np.iinfo(np.int16).max >= 2 * 255 * 64


def test_the_certificate_says_what_it_was_calibrated_on_and_where_it_is_true(in_onnx):
    text = (in_onnx.page.parent / "certificate.json").read_text()
    document = json.loads(text)
    said = document["int8"]
    assert (document["precision"], said["calibration"]) == ("int8", f"{COUNT} of {COUNT} radiographs without truth")
    units = int8_units()
    assert (said["machine"], said["units"]) == (platform.machine(), None if units is None else list(units))
    assert "On other kinds of machines nothing was measured." in said["true_for"]
    assert said["gain"] > 0
    assert document["allowed"] == {"dice_change": 0.005, "decisions_changed_share": 0.01}
    inside = load_exported(in_onnx.files[0]).certificate
    assert "gain" not in inside["int8"]  # differs from run to run
    assert "secret" not in text + in_onnx.page.read_text()
    assert said["true_for"] in render(in_onnx.certificate)


def test_the_same_in_openvino(made, quick, calibration, monkeypatch, tmp_path):
    # With every layer in int8: to give layers back nncf takes minutes even for so small a net.
    monkeypatch.setitem(int8.MAKERS, "openvino", partial(int8_openvino.quantised, most_lost=1.0))
    settings = ExportSettings(
        out=tmp_path / "out", format="openvino", int8=True, calibration=(calibration,), accept=True
    )
    done = export(made.export.source, settings)
    assert (done.certificate.precision, done.certificate.engine) == ("int8", "openvino")
    assert done.certificate.int8.int8_layers
    assert b'type="FakeQuantize"' in done.files[0].read_bytes()
    predictor = Predictor.load(done.files[0])
    assert (predictor.engine, predictor.precision) == ("openvino", "int8")
    square = np.rint(make_phantom(0, PREPARED_PX).image * 255).astype(np.uint8)[None]
    exact = Predictor.load(made.export.files[0]).probabilities(square)
    assert 0 < np.abs(predictor.probabilities(square) - exact).max() < 0.5


def test_nncf_is_told_how_like_float32_the_masks_are_and_what_to_rank_by():
    probabilities = np.full((3, 4, 4), 0.1, np.float32)
    probabilities[:2] = 0.9
    like = Likeness(np.arange(48, dtype=np.uint8).reshape(3, 4, 4), probabilities, Triplet(0.5, 0, 0.5))

    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        number = int(inputs["squares"][0, 0, 0]) // 16
        return {"probabilities": probabilities[number][None] * np.float32(number != 1)}  # misses the second

    metric, each = int8_openvino.validation(like)(model, range(3))
    assert metric == pytest.approx(2 / 3)
    assert [len(one) for one in each] == [1, 1, 1]
    np.testing.assert_array_equal(each[0][0][0], probabilities[0])
    assert int8_openvino.validation(like)(model, [0, 2])[0] == 1


def test_a_graph_that_decides_otherwise_is_refused_and_accepted_only_with_a_doubt(
    made, quick, calibration, monkeypatch, tmp_path
):
    def shifted(graph: bytes, *_: object) -> Quantised:
        model = onnx.load_from_string(graph)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("head.bias") or tensor.name.endswith("presence.linear.bias"):
                numbers = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(numbers - np.float32(3), tensor.name))
        return Quantised((model.SerializeToString(),), ("a",), (), 1.0)

    monkeypatch.setitem(int8.MAKERS, "onnx", shifted)
    settings = ExportSettings(out=tmp_path / "out", int8=True, calibration=(calibration,))
    with pytest.raises(verb.OutputError, match=r"nothing is written: .*decisions changed, allowed are 1 %"):
        export(made.export.source, settings)
    assert not (tmp_path / "out").exists()
    done = export(made.export.source, replace(settings, accept=True))
    doubts = Predictor.load(done.files[0]).doubts
    assert len(doubts) == 1
    assert "was accepted all the same" in doubts[0]


def test_images_to_calibrate_on_are_none_that_it_is_certified_on(made, quick, tmp_path):
    both = radiographs(tmp_path / "both", range(40))
    some = radiographs(tmp_path / "some", range(36, 48))
    settings = ExportSettings(out=tmp_path / "out", images=(both,), int8=True, calibration=(some,))
    with pytest.raises(InputError, match=r"^4 of the 40 radiographs without truth are images of --calibration too"):
        export(made.export.source, settings)
    assert not (tmp_path / "out").exists()


def test_a_page_has_no_int8(made, calibration, tmp_path):
    settings = ExportSettings(out=tmp_path / "out", format="html", int8=True, calibration=(calibration,))
    with pytest.raises(InputError, match="--int8 is for --format onnx and openvino, not for html"):
        export(made.export.source, settings)


def test_few_images_are_refused_and_of_many_an_even_part_is_taken(made, tmp_path):
    with pytest.raises(InputError, match="takes at least 8 images, and these are 7 radiographs"):
        of_calibration([radiographs(tmp_path / "few", range(7))], made.checkpoint)
    sample = of_calibration([radiographs(tmp_path / "many", range(MOST_CALIBRATION * 2))], made.checkpoint)
    assert sample.count == MOST_CALIBRATION
    assert sample.what == f"{MOST_CALIBRATION} of {MOST_CALIBRATION * 2} radiographs without truth"
    assert len({sample.case(number)[0].tobytes() for number in range(sample.count)}) == MOST_CALIBRATION


def test_of_a_dataset_no_case_is_taken_that_the_model_was_chosen_on(made, dataset):
    from pleura.data.dataset import Dataset
    from pleura.models.seen import SeenCases, case_key

    opened = Dataset(dataset)
    keys = [case_key(case.image_id) for case in opened.cases]
    chosen = replace(made.checkpoint, seen=SeenCases(val=tuple(keys[:4])))
    sample = of_calibration([str(dataset)], chosen)
    assert sample.count == min(MOST_CALIBRATION, len(keys) - 4)
    np.testing.assert_array_equal(sample.case(0)[0], opened.images[4])
    learned = replace(made.checkpoint, seen=SeenCases(train=tuple(keys[3:12]), val=tuple(keys[:3])))
    assert of_calibration([str(dataset)], learned).count == 9


@pytest.mark.parametrize(
    ("words", "reason"),
    [(("--int8",), "takes --calibration"), (("--calibration", "a"), "is for --int8")],
)
def test_one_option_without_the_other_is_wrong_usage(pleura, made, tmp_path, words, reason):
    done = pleura("export", made.export.source, "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.replace("│", " ").split())


def test_a_precision_that_the_file_has_not_is_refused_with_the_way_out(in_onnx):
    for precision in ("float32", "bfloat16"):
        with pytest.raises(CheckpointError, match=f"computes in int8, not in {precision}; name the checkpoint"):
            Predictor.load(in_onnx.files[0], precision=precision)
    assert Predictor.load(in_onnx.files[0], precision="auto").precision == "int8"


def test_a_certificate_of_another_kind_of_machine_is_doubted(in_onnx, tmp_path):
    exported = load_exported(in_onnx.files[0])
    certificate = {**exported.certificate, "int8": {**exported.certificate["int8"], "machine": "another"}}
    file = tmp_path / "far.onnx"
    file.write_bytes(onnx_of(in_onnx.files[0].read_bytes(), replace(exported, certificate=certificate)))
    doubt = f"the exported model was certified in int8 on another, and runs on {platform.machine()}"
    assert Predictor.load(file).doubts == (doubt,)
