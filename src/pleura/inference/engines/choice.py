"""Which engine runs a model: the one that was asked for, or the one that starts soonest with the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pleura.errors import CheckpointError, InputError
from pleura.extras import is_installed, need
from pleura.inference.device import CPU, is_cpu, named_device
from pleura.inference.engines.engine import Engine
from pleura.inference.precision import named_precision
from pleura.models.default import default_export, is_default
from pleura.models.exported import Exported, is_exported, load_exported

if TYPE_CHECKING:  # an exported model needs no torch
    from pleura.models.checkpoint import Checkpoint

Asked = Literal["auto", "torch", "onnxruntime", "openvino"]
Runnable: TypeAlias = "Checkpoint | Exported"

_asked = "auto"


def use_engine(name: str) -> None:
    """Set the engine of this process for predictors that are given none.

    Raises: InputError if there is no engine of that name.
    """
    global _asked
    _asked = _checked(name)


def named_engine() -> str | None:
    """Return the engine of `use_engine`; None for `auto`, or where none was named."""
    return None if _asked == "auto" else _asked


@dataclass(frozen=True)
class Wanted:
    """How a model is to run, as far as somebody has said; None: by its recipe, `use_device` and the like, or `auto`."""

    tta: str | None = None
    device: str | None = None
    precision: str | None = None
    engine: str | None = None

    def __post_init__(self) -> None:
        """Raises: InputError for a word that is none of those that it takes."""
        if self.tta is not None:
            _check_tta(self.tta)
        if self.engine is not None:
            _checked(self.engine)

    @property
    def engine_name(self) -> str:
        """The engine that was asked for, or `auto`."""
        return self.engine or _asked


def load_model(file: Path, wanted: Wanted) -> Runnable:
    """Read what is to run: a checkpoint, or an exported model; of the default model the one that `wanted` is for.

    Raises: CheckpointError if it is missing or damaged, or the engine that was asked for cannot run it.
    """
    if is_exported(file):
        return load_exported(file)
    if is_default(file) and (exported := _default_export(wanted)) is not None:
        return exported
    if wanted.engine_name not in ("auto", "torch"):
        raise CheckpointError(
            f"{file}: is a checkpoint, and {wanted.engine_name} runs exported models; export it, or take --engine torch"
        )
    need("torch", f"{file}: is a checkpoint, and running it")
    from pleura.models.checkpoint import load_checkpoint

    return load_checkpoint(file)


def _default_export(wanted: Wanted) -> Exported | None:
    """The default model for an engine without torch; None where torch is asked for, or what only torch can do."""
    if wanted.engine_name == "torch":
        return None
    file = default_export()
    if wanted.engine_name == "auto":
        exact = named_precision(wanted.precision) in (None, "float32")
        if not (file.is_file() and exact and is_cpu(wanted.device)):
            return None
        exported = load_exported(file)
        return exported if wanted.tta in (None, exported.tta) or not is_installed("torch") else None
    return load_exported(file)


def engine_of(model: Runnable, wanted: Wanted, size_px: int) -> Engine:
    """Return what runs a model, and gives probabilities of that side.

    Raises: CheckpointError if the model is damaged, or cannot be run in the way that was asked for; InputError for a
    device or a precision that is not there, or another tta.
    """
    if isinstance(model, Exported):
        return _engine_of_export(model, wanted)
    from pleura.inference.engines.torch import TorchEngine

    tta = wanted.tta or _check_tta(model.recipe.get("tta", "none"))
    return TorchEngine(model, tta, wanted.device, wanted.precision, size_px)


def _engine_of_export(exported: Exported, wanted: Wanted) -> Engine:
    name = wanted.engine_name
    if name == "auto":
        name = "openvino" if exported.path.suffix.lower() == ".xml" else "onnxruntime"
    precision = named_precision(wanted.precision)
    _refuse_what_a_graph_has_not(exported, wanted, name, precision or exported.precision)
    if name == "openvino":
        need("openvino", f"{exported.path}: running it by OpenVINO")
        from pleura.inference.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(exported, precision or "float32")
    from pleura.inference.engines.onnxruntime import OnnxEngine

    return OnnxEngine(exported)


def _refuse_what_a_graph_has_not(exported: Exported, wanted: Wanted, engine: str, precision: str) -> None:
    """Raises: CheckpointError, with the way out."""
    device, refusal = named_device(wanted.device), None
    way_out = "name the checkpoint that it was exported from"
    if engine == "torch":
        refusal = "is an exported model, which torch does not run"
    elif engine == "onnxruntime" and exported.path.suffix.lower() == ".xml":
        refusal, way_out = "is OpenVINO's, and onnxruntime runs ONNX files", "take --engine openvino"
    elif wanted.tta not in (None, exported.tta):
        refusal = f"computes with tta {exported.tta} inside, not {wanted.tta}"
    elif device is not None and device not in CPU:
        refusal = f"is run on the CPU, not on {device}"
    elif exported.precision == "int8" and precision != "int8":
        refusal = f"computes in int8, not in {precision}"
    elif engine == "onnxruntime" and precision == "bfloat16":
        refusal = f"is computed in float32 by onnxruntime, not in {precision}"
    if refusal:
        raise CheckpointError(f"{exported.path}: {refusal}; {way_out}")


def _checked(name: str) -> str:
    if name not in get_args(Asked):
        raise InputError(f"engine is {', '.join(get_args(Asked))}, not {name!r:.40}")
    return name


def _check_tta(tta: object) -> str:
    if tta not in ("none", "flip"):
        raise InputError(f"tta is none or flip, not {tta!r}")
    return str(tta)
