"""Options that several commands share, and the words that they take.

The words repeat those of the verbs' types, because --help imports no verb.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from pleura.cli.copies import local

if TYPE_CHECKING:  # --help imports no verb
    from pleura.cluster.connection import ClusterOptions

SplitName = Literal["train", "val", "all"]
Tta = Literal["none", "flip"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
SegType = Literal["binary", "occupancy", "fractional"]
ScCompression = Literal["none", "jpeg-lossless"]
ObjectiveName = Literal["siim_dice", "dice_on_positives", "youden", "expected_cost"]

Segments = Annotated[
    list[str] | None,
    typer.Option(help="For DICOM-SEG: number or label of what outlines a pneumothorax; repeatable."),
]
Resamples = Annotated[int, typer.Option(min=10, help="Resamples of the bootstrap.")]
Goal = Annotated[ObjectiveName, typer.Option(help="The score that the triplet maximizes.")]
Specificity = Annotated[float | None, typer.Option(help="The least specificity, for dice_on_positives. Default: 0.95.")]
MissCost = Annotated[
    float | None, typer.Option(help="Cost of a missed pneumothorax in false alarms, for expected_cost. Default: 10.")
]
Alpha = Annotated[float, typer.Option(help="When ruling out: the share of positive patients that may be missed.")]
Confidence = Annotated[float, typer.Option(help="When ruling out: the confidence that no more are missed.")]


def check_goal(objective: ObjectiveName, specificity: float | None, miss_cost: float | None) -> tuple[float, float]:
    """Return the specificity and the cost of a miss; refuse one that the objective does not use."""
    for given, of, option in (
        (specificity, "dice_on_positives", "--specificity"),
        (miss_cost, "expected_cost", "--miss-cost"),
    ):
        if given is not None and objective != of:
            raise typer.BadParameter(f"does nothing for {objective}; add --objective {of}", param_hint=option)
    return 0.95 if specificity is None else specificity, 10.0 if miss_cost is None else miss_cost


def check_out(out: Path | None, suffix: str) -> None:
    """Refuse another suffix, so that a card replaces no model and a model no card."""
    if out is not None and out.suffix != suffix:
        raise typer.BadParameter(f"{out} does not end in {suffix}; name a file that does", param_hint="--out")


Device = Annotated[str, typer.Option("--device", envvar="PLEURA_DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        "--precision",
        envvar="PLEURA_PRECISION",
        help="auto: bfloat16 where the model shows that it changes little and this machine is faster in it; to tune "
        "and recalibrate, float32. Default: auto, or float32 if the recipe says so.",
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        envvar="PLEURA_ENGINE",
        help="What runs the net. auto: torch for a checkpoint, onnxruntime for .onnx, openvino for .xml.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print results and refusals only, no progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="After a refusal, print its cause, for a bug report.")]


Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="<cluster>",
        help="Work on a Ray cluster: local, auto (of this machine), or HOST:PORT; needs pleura[cluster].",
    ),
]
RayWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="With --ray: workers. Default: as many as there is room for.")
]
RayCpus = Annotated[float | None, typer.Option("--ray-cpus", help="With --ray: processors of each worker. Default: 1.")]
RayGpus = Annotated[
    float | None,
    typer.Option("--ray-gpus", help="With --ray: GPUs of each worker; 0.25: four share one. Default: 0."),
]


def cluster_options(
    ray: str | None, workers: int | None, cpus: float | None, gpus: float | None
) -> ClusterOptions | None:
    """Return where and on how much of it a command works; None without --ray, where the others mean nothing."""
    if ray is None:
        for given, option in ((workers, "--workers"), (cpus, "--ray-cpus"), (gpus, "--ray-gpus")):
            if given is not None:
                raise typer.BadParameter("does nothing alone; add --ray local, or a cluster", param_hint=option)
        return None
    from pleura.cluster.connection import ClusterOptions

    return ClusterOptions(ray, workers or 0, 1 if cpus is None else cpus, gpus or 0)


NET: dict[str, tuple[Any, Any]] = {
    "device": (Device, "auto"),
    "precision": (Precision, None),
    "engine": (Engine, "auto"),
}
"""The options of how a net runs -> their type, and their default."""
ALL: dict[str, tuple[Any, Any]] = {"quiet": (Quiet, False), "verbose": (Verbose, False)}
"""Those of every command."""


def with_shared_options(command: Callable[..., None], names: Sequence[str]) -> Callable[..., None]:
    """Add to a command the options that all have, --quiet and --verbose, and some of `NET`, by their names."""

    @wraps(command)
    def run(
        *,
        quiet: bool,
        verbose: bool,
        device: str = "auto",
        precision: PrecisionName | None = None,
        engine: EngineName = "auto",
        **options: Any,
    ) -> None:
        logging.getLogger("pleura").setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        if names:
            _use(device, precision, engine)
        with local(options, command.__name__) as local_options:
            command(**local_options)

    shared = {name: NET[name] for name in names} | ALL
    hints = get_type_hints(command, include_extras=True)
    own = [each.replace(annotation=hints[name]) for name, each in inspect.signature(command).parameters.items()]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in shared.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return run


def _use(device: str, precision: PrecisionName | None, engine: EngineName) -> None:
    from pleura.inference.device import use_device
    from pleura.inference.engines.choice import use_engine
    from pleura.inference.precision import use_precision

    use_device(device)
    use_precision(precision)
    use_engine(engine)
