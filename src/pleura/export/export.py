"""checkpoint -> a file that runs without PyTorch, with the certificate that it says the same; else no file at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pleura.data.dataset import Split
from pleura.decision.levels import refuse_unless_kept
from pleura.errors import CheckpointError, OutputError, PleuraError
from pleura.export.browser_engine import browser_engine, browser_versions, node
from pleura.export.certificate import Certificate, versions
from pleura.export.certificate_page import render
from pleura.export.comparison import Run, Sides, compare
from pleura.export.html import html_of
from pleura.export.int8 import calibration_of, in_int8
from pleura.export.onnx import graph_of
from pleura.export.openvino import ir_of
from pleura.export.sample import Sample, of_dataset, of_phantoms, of_radiographs
from pleura.files import hash_files, refuse_unwritable, write_atomically, write_json
from pleura.inference.cpu import processor, threads
from pleura.inference.engines.choice import Wanted
from pleura.inference.engines.engine import Engine
from pleura.inference.engines.onnxruntime import OnnxEngine
from pleura.inference.engines.openvino import OpenVinoEngine
from pleura.inference.engines.torch import TorchEngine, infer
from pleura.inference.model_files import find_checkpoint
from pleura.models.checkpoint import Checkpoint, load_checkpoint, net_of
from pleura.models.exported import Exported, is_exported, load_exported, onnx_of, openvino_of
from pleura.models.identity import weights_hash

CERTIFICATE, PAGE = "certificate.json", "certificate.html"
FormatName = Literal["onnx", "openvino", "html"]


class GraphEngine(Engine, Protocol):
    """An engine of exported graphs."""

    def in_one_pass(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what `probabilities` does, by one pass of all images through the graph."""


@dataclass(frozen=True)
class Form:
    """What a model can be exported as."""

    suffix: str
    """Of the file that is named to run it."""
    convert: Callable[[bytes, str], tuple[bytes, ...]]
    """An ONNX graph and what it is, in words -> the graph in this form."""
    files: Callable[[tuple[bytes, ...], Exported], dict[str, bytes]]
    """That graph and what is said of it -> the content of each file, by its suffix."""
    engine: Callable[[Exported], AbstractContextManager[GraphEngine]]
    """What serves it, for a while."""
    measured: FormatName
    """The form whose files that engine loads."""
    in_batches: bool = True
    """Whether other programs can run it, with several images at a time."""


def _engine_of_page(exported: Exported) -> AbstractContextManager[GraphEngine]:
    """The engine of a page where there is node to run it; else the one of an ONNX file."""
    return browser_engine(exported) if node() else nullcontext(OnnxEngine(exported))


FORMS: dict[FormatName, Form] = {
    "onnx": Form(
        ".onnx",
        lambda graph, _: (graph,),
        lambda parts, exported: {".onnx": onnx_of(parts[0], exported)},
        lambda exported: nullcontext(OnnxEngine(exported)),
        "onnx",
    ),
    "openvino": Form(
        ".xml",
        ir_of,
        lambda parts, exported: {".xml": openvino_of(parts[0], parts[1], exported), ".bin": parts[1]},
        lambda exported: nullcontext(OpenVinoEngine(exported)),
        "openvino",
    ),
    "html": Form(
        ".html",
        lambda graph, _: (graph,),
        lambda parts, exported: {".html": html_of(onnx_of(parts[0], exported), exported)},
        _engine_of_page,
        "onnx",
        in_batches=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The options of `pleura export`, besides the model."""

    out: Path
    format: FormatName = "onnx"
    tta: str | None = None
    """`none` or `flip`; by default as the recipe says."""
    images: tuple[str, ...] = ()
    """Files, folders and patterns of radiographs to measure on."""
    data: Path | None = None
    """A dataset to measure on."""
    split: Split | None = None
    int8: bool = False
    calibration: tuple[str, ...] = ()
    """Radiographs, or a dataset, that the ranges of int8 numbers are found on."""
    accept: bool = False
    """Write it though its certificate does not hold."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    source: Path
    files: list[Path]
    """Of the model, the one that is named to run it first."""
    certificate: Certificate
    page: Path


def export(model: Path, settings: ExportSettings) -> Export:
    """Export one checkpoint, and certify it on images: those given, or phantoms.

    Raises: CheckpointError if the model is several checkpoints, none, or one that cannot be exported; InputError for
    images that cannot be measured on; OutputError if a file is there already, or the certificate does not hold: then
    nothing is written.
    """
    source, form = find_checkpoint(model), FORMS[settings.format]
    if is_exported(source):
        raise CheckpointError(f"{source}: is an exported model; name the checkpoint that it was exported from")
    file = settings.out / f"{source.stem}{form.suffix}"
    for path in (file, settings.out / CERTIFICATE, settings.out / PAGE):
        if path.exists():
            raise OutputError(f"{path}: is there already; choose another --out")
    checkpoint = load_checkpoint(source)
    if settings.format == "html":
        refuse_unless_kept(checkpoint.triplet)  # a page decides by levels of 8 bits
    tta = Wanted(settings.tta or checkpoint.recipe.get("tta", "none")).tta or "none"
    sample = _sample(checkpoint, settings)
    calibration = calibration_of(settings.format, checkpoint, sample, settings.calibration, settings.int8)
    with _folder(settings.out):
        graph, what = graph_of(checkpoint, tta, source), f"{source}: its net ({checkpoint.model.encoder})"
        made = None if calibration is None else in_int8(settings.format, graph, checkpoint, tta, calibration, what)
        parts = form.convert(graph, what) if made is None else made.parts
        exported = _described(checkpoint, tta, source, file)
        certificate = certify(settings.format, parts, exported, checkpoint, sample)
        if made is not None:
            certificate = replace(certificate, precision="int8", int8=made.said)
        if not certificate.holds and not settings.accept:
            raise OutputError(
                f"{source}: its export is refused, and nothing is written: {'; '.join(certificate.reasons)} "
                f"(on {sample.what}); run the checkpoint itself, or --accept to write it all the same"
            )
        contents = {
            file.with_suffix(suffix): content
            for suffix, content in form.files(parts, replace(exported, certificate=certificate.inside())).items()
        }
        hashes = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        certificate = replace(certificate, files={source.name: exported.checkpoint_sha256, **hashes})
        for path, content in reversed(contents.items()):  # last the one that is named: it is never there alone
            write_atomically(path, content)
        write_json(settings.out / CERTIFICATE, certificate.document(), end="\n")
        write_atomically(settings.out / PAGE, render(certificate).encode())
    return Export(source, list(contents), certificate, settings.out / PAGE)


def certify(
    form: FormatName, parts: tuple[bytes, ...], exported: Exported, checkpoint: Checkpoint, sample: Sample
) -> Certificate:
    """Compare a graph with its checkpoint, on the engine that serves it.

    parts: the graph, of `Form.convert`. exported: what is said of it. Raises: CheckpointError if the engine cannot
    run it, or what is said of it cannot be read; InputError for an image that cannot.
    """
    measured = FORMS[FORMS[form].measured]
    with TemporaryDirectory(prefix="pleura-") as folder:
        file = (Path(folder) / exported.path.name).with_suffix(measured.suffix)
        for suffix, content in measured.files(parts, replace(exported, path=file)).items():
            file.with_suffix(suffix).write_bytes(content)
        try:
            with FORMS[form].engine(load_exported(file)) as engine:
                reference = TorchEngine(checkpoint, exported.tta, "cpu", "float32")
                together = engine.in_one_pass if FORMS[form].in_batches else None
                sides = Sides(reference, _in_float64(checkpoint, exported.tta), engine, together)
                comparison = compare(sides, checkpoint.triplet, sample)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(file), str(exported.path))) from error
    return Certificate(
        precision="float32",
        format=form,
        engine=engine.name,
        tta=exported.tta,
        decision_rule=checkpoint.triplet.in_words(),
        kind=sample.kind,
        what=sample.what,
        comparison=comparison,
        cpu=processor(),
        threads=threads(),
        versions=versions() | (browser_versions() if form == "html" else {}),
    )


def _in_float64(checkpoint: Checkpoint, tta: str) -> Run:
    """The same computation with twice the digits, for what is left of it in float32."""
    net, preprocessing = net_of(checkpoint).eval().double(), checkpoint.preprocessing

    def run(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(squares)[:, None].double() / 255
        found: NDArray[np.float32] = infer(net, images, preprocessing, tta == "flip").numpy()
        return found

    return run


def _sample(checkpoint: Checkpoint, settings: ExportSettings) -> Sample:
    if settings.data is not None:
        return of_dataset(settings.data, settings.split, checkpoint)
    return of_radiographs(settings.images, checkpoint) if settings.images else of_phantoms(checkpoint)


def _described(checkpoint: Checkpoint, tta: str, source: Path, file: Path) -> Exported:
    """What the export says of itself: all that its checkpoint says, and whose it is."""
    return Exported(
        **vars(checkpoint.header),
        tta=tta,
        weights_sha256=weights_hash(checkpoint.weights),
        checkpoint_sha256=hash_files(source),
        certificate=None,
        path=file,
    )


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Find out at once whether a folder can be written to; one that was made and stays empty goes again."""
    was_there = out.exists()
    refuse_unwritable(out)
    try:
        yield
    except PleuraError:
        if not was_there:
            with suppress(OSError):
                out.rmdir()
        raise
