"""`pleura export`: a model as a file that runs without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pleura.cli.options import SplitName, Tta
from pleura.cli.printing import show
from pleura.extras import need
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.export.export import Export

FormatName = Literal["onnx", "openvino", "html"]


def export(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, the folder of one, or default.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")],
    form: Annotated[
        FormatName,
        typer.Option(
            "--format",
            help="onnx: one file, for ONNX Runtime and others. openvino: .xml and .bin. "
            "html: a page that runs it in a browser, without a server.",
        ),
    ] = "onnx",
    images: Annotated[
        list[str] | None,
        typer.Option(help="Radiographs to compare on: a file, folder or pattern; repeatable. Default: phantoms."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A dataset to compare on.")] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(
            help="Of --data. val: the cases that the model was chosen on. Default: val, or all if it has none."
        ),
    ] = None,
    tta: Annotated[
        Tta | None, typer.Option(help="flip: mean with the mirrored image, in the file. Default: as in the recipe.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8 bits where masks stay the same; layers that hurt stay float32.")
    ] = False,
    calibration: Annotated[
        list[str] | None,
        typer.Option(help="Radiographs, or a dataset, by which int8 ranges are set; none that it is compared on."),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Write it though it differs; each prediction by it says so.")
    ] = False,
) -> None:
    """Write a model as a file that runs without PyTorch, with a certificate that it says the same."""
    need("onnx", "pleura export")  # whose extra has PyTorch too
    from pleura.export.export import ExportSettings
    from pleura.export.export import export as run

    _check_together(images, data, split, int8, calibration)
    settings = ExportSettings(
        out=out,
        format=form,
        tta=tta,
        images=tuple(images or ()),
        data=data,
        split=split,
        int8=int8,
        calibration=tuple(calibration or ()),
        accept=accept,
    )
    show(messages(run(model, settings)))


def _check_together(
    images: list[str] | None, data: Path | None, split: str | None, int8: bool, calibration: list[str] | None
) -> None:
    if images and data is not None:
        raise typer.BadParameter("is for images without truth; leave out one of --images and --data", None, None)
    if split is not None and data is None:
        raise typer.BadParameter("is for --data", param_hint="--split")
    if int8 and not calibration:
        raise typer.BadParameter("takes --calibration, radiographs to set its ranges by", param_hint="--int8")
    if calibration and not int8:
        raise typer.BadParameter("is for --int8", param_hint="--calibration")


def messages(done: Export) -> Iterator[str]:
    """Yield what was compared and how it came out, and the files."""
    from pleura.export.certificate import worth

    certificate, found = done.certificate, done.certificate.comparison
    most, seconds = max(found.probability.values()), found.seconds
    yield f"{done.source}: compared with PyTorch in float32 on {certificate.what}"
    yield f"  largest difference of a probability: {most:.2g}"
    yield f"  decisions changed: {found.decisions_changed} of {found.images}"
    yield f"  Dice between the masks: mean {found.mask_dice.mean():.5f}, least {found.mask_dice.min():.5f}"
    yield f"  {seconds.export:.3f} s an image, PyTorch {seconds.torch:.3f} s ({certificate.threads} threads)"
    if int8 := certificate.int8:
        floats = f"{len(int8.int8_layers)} layers in int8, {len(int8.float_layers)} in float32"
        yield f"  {floats}: {int8.gain:.2f} times as fast as all in float32 ({int8.calibration})"
    yield f"  {worth(certificate.kind, found)}"
    if not certificate.holds:
        yield f"accepted, though {'; '.join(certificate.reasons)}: every prediction by it says so"
    if certificate.not_run:
        yield certificate.not_run[0].lower() + certificate.not_run[1:]
    for file in done.files:
        yield f"wrote {file} ({file.stat().st_size / 1e6:.2f} MB), sha256 {certificate.files[file.name]}"
    yield f"certificate: {done.page}"
