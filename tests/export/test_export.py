"""`pleura export`: what it refuses, what it writes, and that the file is a model like its checkpoint."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from checkpoints import PREPARED_PX, tiny_checkpoint
from PIL import Image

from pleura.cli.export import messages
from pleura.data.dataset import Dataset
from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.evaluation.evaluate import evaluate
from pleura.export import export as verb
from pleura.export.certificate_page import render
from pleura.export.export import ExportSettings, export
from pleura.export.openvino import ir_of
from pleura.export.sample import of_dataset, of_phantoms, of_radiographs
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import save_checkpoint
from pleura.models.exported import load_exported, onnx_of
from pleura.models.seen import SeenCases, case_key


@pytest.fixture
def quick(made, monkeypatch) -> None:
    """The exporter is not asked again for what it has made."""
    graph = made.export.files[0].read_bytes()
    monkeypatch.setattr(verb, "graph_of", lambda *_: graph)


def described_anew(made, path: Path, **changes) -> Path:
    """The exported file with other metadata."""
    file = made.export.files[0]
    path.write_bytes(onnx_of(file.read_bytes(), replace(load_exported(file), **changes)))
    return path


def radiographs(folder: Path, count: int) -> str:
    folder.mkdir()
    for seed in range(count):
        image = np.rint(make_phantom(seed, PREPARED_PX, seed % 2 == 0).image * 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"secret-{seed}.png")
    return str(folder)


def test_openvino_gives_what_pytorch_gives_and_equal_bytes(made, quick, tmp_path):
    done = export(made.export.source, ExportSettings(out=tmp_path / "out", format="openvino"))
    assert [path.name for path in done.files] == ["tiny.xml", "tiny.bin"]
    assert set(done.certificate.files) == {"tiny.safetensors", "tiny.xml", "tiny.bin"}
    assert (done.certificate.engine, done.certificate.holds) == ("openvino", True)
    predictor = Predictor.load(done.files[0])
    assert (predictor.engine, predictor.tta, predictor.doubts) == ("openvino", "flip", ())
    exported = load_exported(done.files[0])
    assert exported.header == made.checkpoint.header
    assert ElementTree.parse(done.files[0]).getroot().tag == "net"
    again = ir_of(made.export.files[0].read_bytes(), "tiny")
    assert again == ir_of(made.export.files[0].read_bytes(), "tiny")
    assert done.files[1].read_bytes() == again[1]
    assert b"OpenVINO Runtime" not in done.files[0].read_bytes()


def test_a_page_is_measured_on_its_own_engine_where_there_is_node(made, quick, tmp_path):
    done = export(made.export.source, ExportSettings(out=tmp_path / "out", format="html"))
    assert [path.name for path in done.files] == ["tiny.html"]
    has_node = shutil.which("node") is not None
    certificate = done.certificate
    assert (certificate.format, certificate.holds) == ("html", True)
    assert certificate.engine == ("onnxruntime-web" if has_node else "onnxruntime")
    assert bool(certificate.not_run) is not has_node
    assert list(certificate.comparison.probability) == [1]  # a page runs one image at a time
    document = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert set(document["files"]) == {"tiny.safetensors", "tiny.html"}
    page = done.files[0].read_text(encoding="utf-8")
    facts = json.loads(re.search(r'id="pleura-page">\n(.*?)\n</script>', page, re.DOTALL)[1])
    assert facts["model"]["weights"] == load_exported(made.export.files[0]).weights_sha256
    assert bool(facts["model"]["doubts"]) is not has_node


def test_a_page_says_where_its_own_engine_was_not_run(made, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "node", lambda: None)
    done = export(made.export.source, ExportSettings(out=tmp_path / "out", format="html"))
    assert done.certificate.engine == "onnxruntime"
    assert "there is no node here to run ONNX Runtime Web" in done.certificate.not_run
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["not_run"] == done.certificate.not_run
    assert done.certificate.not_run in done.page.read_text(encoding="utf-8")
    assert done.certificate.not_run[1:] in "\n".join(messages(done))
    assert "runs on onnxruntime-web" in done.files[0].read_text(encoding="utf-8")


def test_a_rule_that_a_page_cannot_keep_is_refused_before_anything_is_done(tmp_path):
    checkpoint = replace(tiny_checkpoint(), triplet=Triplet(1.0, 0, 0.5))
    save_checkpoint(tmp_path / "sure.safetensors", checkpoint)
    with pytest.raises(InputError, match="asks for a probability of 1"):
        export(tmp_path / "sure.safetensors", ExportSettings(out=tmp_path / "out", format="html"))
    assert not (tmp_path / "out").exists()


def test_a_graph_that_openvino_cannot_read_is_refused_in_one_line():
    with pytest.raises(CheckpointError, match=r"^run: its net \(odd\) cannot be exported to OpenVINO") as refused:
        ir_of(b"no graph", "run: its net (odd)")
    assert "\n" not in str(refused.value)


def test_the_command_says_what_it_measured_and_what_it_wrote(pleura, made, quick, tmp_path):
    done = pleura("export", made.export.source, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert "decisions changed: 0 of 40" in done.stdout
    assert "Phantoms are drawings of chests and no radiographs" in done.stdout
    assert f"sha256 {document['files']['tiny.onnx']}" in done.stdout
    assert "certificate.html" in done.stdout


def test_the_command_refuses_a_broken_export_in_one_line(pleura, made, monkeypatch, tmp_path):
    monkeypatch.setattr(verb, "graph_of", lambda *_: made.export.files[0].read_bytes())
    monkeypatch.setattr(
        verb, "load_checkpoint", lambda _: replace(made.checkpoint, preprocessing=replace(PREPROCESSING, mean=0.4))
    )
    done = pleura("export", made.export.source, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "its export is refused, and nothing is written: a probability differs by" in done.stderr
    assert not (tmp_path / "out").exists()
    done = pleura("export", made.export.source, "--out", tmp_path / "out", "--accept")
    assert done.returncode == 0
    assert "accepted, though a probability differs by" in done.stdout


PREPROCESSING = tiny_checkpoint().preprocessing


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--images", "a", "--data", "b"), "leave out one of --images and --data"),
        (("--split", "val"), "is for --data"),
        (("--format", "caffe"), "Invalid value for '--format'"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(pleura, made, tmp_path, words, reason):
    done = pleura("export", made.export.source, "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.replace("│", " ").split())


def test_a_file_that_is_there_is_kept(made, tmp_path):
    for name in ("tiny.onnx", "certificate.json", "certificate.html"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name}: is there already; choose another --out"):
            export(made.export.source, ExportSettings(out=out))
        assert [path.read_text() for path in out.iterdir()] == ["mine"]


def test_several_checkpoints_and_an_exported_model_are_refused_with_the_way_out(made, tmp_path):
    for fold in (0, 1):
        (tmp_path / "run" / f"fold-{fold}").mkdir(parents=True)
        shutil.copy(made.export.source, tmp_path / "run" / f"fold-{fold}" / "best.safetensors")
    with pytest.raises(CheckpointError, match=r"is several checkpoints, or an ensemble; name one checkpoint, such as"):
        export(tmp_path / "run", ExportSettings(out=tmp_path / "out"))
    with pytest.raises(CheckpointError, match=r"is an exported model; name the checkpoint that it was exported from"):
        export(made.export.files[0], ExportSettings(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_images_are_those_given_and_their_names_are_nowhere(made, quick, tmp_path):
    images = radiographs(tmp_path / "in", 33)
    done = export(made.export.source, ExportSettings(out=tmp_path / "out", images=(images,)))
    document = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert (document["images"]["kind"], document["images"]["count"], document["truth"]) == ("radiographs", 33, None)
    assert "No truth is known of them" in document["images"]["worth"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"secret" not in written
    assert str(tmp_path).encode() not in written
    assert done.certificate.holds


def test_fewer_images_than_32_are_refused(made, quick, tmp_path):
    images = radiographs(tmp_path / "in", 31)
    with pytest.raises(InputError, match=r"takes at least 32 images, and these are 31 radiographs"):
        export(made.export.source, ExportSettings(out=tmp_path / "out", images=(images,)))
    assert not (tmp_path / "out").exists()


def test_a_dataset_has_truth_and_must_be_of_the_models_size(made, dataset, monkeypatch):
    monkeypatch.setattr("pleura.export.sample.LEAST_IMAGES", 8)
    sample = of_dataset(dataset, "all", made.checkpoint)
    opened = Dataset(dataset)
    assert (sample.count, sample.has_truth, sample.kind) == (len(opened), True, "dataset")
    for number, (square, mask) in enumerate(map(sample.case, range(3))):
        np.testing.assert_array_equal(square, opened.images[number])
        np.testing.assert_array_equal(mask, opened.masks([number])[0])
    other = replace(made.checkpoint, preprocessing=replace(PREPROCESSING, prepared_px=128))
    with pytest.raises(InputError, match="was prepared at 64 px, the model at 128 px; prepare it with --size 128"):
        of_dataset(dataset, "all", other)


def test_phantoms_are_half_with_a_pneumothorax_and_the_same_every_time(made):
    sample = of_phantoms(made.checkpoint)
    assert sample.count >= 32
    assert [bool(sample.case(number)[1].any()) for number in range(4)] == [True, False, True, False]
    np.testing.assert_array_equal(sample.case(3)[0], sample.case(3)[0])
    chunks = list(sample.chunks(16))
    assert [len(squares) for squares, _ in chunks] == [16, 16, 8]


def test_radiographs_are_prepared_as_predict_prepares_them(made, tmp_path, monkeypatch):
    monkeypatch.setattr("pleura.export.sample.LEAST_IMAGES", 1)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.tile(np.arange(100, dtype=np.uint8), (50, 1))).save(tmp_path / "in" / "wide.png")
    square, mask = of_radiographs([str(tmp_path / "in")], made.checkpoint).case(0)
    assert square.shape == (PREPARED_PX, PREPARED_PX)
    assert not square[0].any()  # a border above what is wide
    assert not mask.any()


def test_an_evaluation_of_the_file_finds_leaks_as_one_of_the_checkpoint_does(made, dataset, tmp_path):
    ids = [case.image_id for case in Dataset(dataset).cases]
    seen = SeenCases(train=tuple(case_key(one) for one in ids[:5]), val=tuple(case_key(one) for one in ids[5:12]))
    source = tmp_path / "leaky.safetensors"
    save_checkpoint(source, replace(made.checkpoint, seen=seen))
    file = described_anew(made, tmp_path / "leaky.onnx", seen=seen)
    ours, theirs = (
        evaluate(path, dataset, "all", resamples=10, out=tmp_path / path.suffix[1:]).report for path in (source, file)
    )
    assert theirs.split == ours.split
    assert "5 of which the model has learned from" in theirs.split
    assert theirs.findings == ours.findings
    assert theirs.weights_sha256 == ours.weights_sha256
    assert theirs.metrics["siim_dice"].value == pytest.approx(ours.metrics["siim_dice"].value, abs=1e-3)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (
            {"holds": False, "reasons": ["3 of 40 decisions changed"]},
            "differs from its checkpoint, .* 3 of 40 decisions",
        ),
        ({"holds": False}, "it does not say why"),
        (None, "has no certificate"),
        (
            {"holds": True, "engine": "openvino", "precision": "float32"},
            "was certified on openvino in float32, and runs",
        ),
    ],
)
def test_every_prediction_by_a_file_without_a_good_certificate_says_so(pleura, made, tmp_path, certificate, words):
    file = described_anew(made, tmp_path / "doubtful.onnx", certificate=certificate)
    images = radiographs(tmp_path / "in", 2)
    prediction = Predictor.load(file).predict(f"{images}/secret-0.png")
    assert len(prediction.radiograph.notes) == 1
    assert prediction.to_dict()["notes"] == list(prediction.radiograph.notes)
    done = pleura("predict", images, "--out", tmp_path / "found", "--model", file, "--json")
    document = json.loads(done.stdout)
    every = [*document["notes"], *(row["notes"] for row in document["predictions"])]
    assert len(every) == 3
    assert all(re.search(words, note) for note in every)


def test_a_report_on_a_file_without_a_good_certificate_says_so(made, dataset, tmp_path):
    file = described_anew(made, tmp_path / "doubtful.onnx", certificate={"holds": False, "reasons": ["of a reason"]})
    report = evaluate(file, dataset, "all", resamples=10, out=tmp_path / "report").report
    assert [finding.way_out for finding in report.findings if "of a reason" in finding.what] == [
        "export it again, or evaluate the checkpoint"
    ]


class Tags(HTMLParser):
    """Counts tags that need an end."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0

    def handle_starttag(self, tag, attrs):
        self.open += tag in ("table", "div", "h1", "h2", "code", "span", "strong")

    def handle_endtag(self, tag):
        self.open -= tag in ("table", "div", "h1", "h2", "code", "span", "strong")


def test_the_page_is_whole_and_escapes_what_it_is_given(made):
    certificate = replace(made.export.certificate, what="<b>40</b>", cpu="a & b", files={"<i>.onnx": "0" * 64})
    text = render(certificate)
    tags = Tags()
    tags.feed(text)
    assert tags.open == 0
    assert "It says the same as its checkpoint on &lt;b&gt;40" in text
    assert "&lt;b&gt;40&lt;/b&gt;" in text
    assert "a &amp; b" in text
    assert "<i>.onnx" not in text
    assert "http" not in text.replace("http-equiv", "")
