"""An ONNX graph in int8 for OpenVINO: nncf's post-training quantisation, which gives layers back that hurt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.errors import CheckpointError
from pleura.export.float_layers import LEAST_LIKENESS, RANKED_ON, Likeness, Quantised, Run, gain_of, none_left
from pleura.export.onnx import in_silence
from pleura.export.openvino import as_stored, read
from pleura.inference.engines.openvino import compiled_with, reason
from pleura.inference.engines.telemetry import import_openvino, without_telemetry
from pleura.models.exported import INPUT, OUTPUT

LAYERS, NUMBERS = ("Convolution", "GroupConvolution", "MatMul"), "FakeQuantize"
"""OpenVINO's kinds of layers with weights, and what rounds to int8 until a graph is compiled."""
SCALES = ("Convert", "Multiply", "Reshape", "Subtract")
"""What may stand between weights that are stored in int8 and their layer."""


def quantised(graph: bytes, like: Likeness, what: str, most_lost: float = 1 - LEAST_LIKENESS) -> Quantised:
    """Return a graph with int8 layers, calibrated on the images of `like`. what: it is, for a refusal.

    most_lost: of the mean Dice between masks in float32 and int8, in [0, 1]; 1 leaves no layer in float32.

    Raises: CheckpointError if nncf cannot do it, or no layer bears it.
    """
    without_telemetry()
    with in_silence():  # it draws bars of its own, and warns of other frameworks
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedAccuracyRestorerParameters,
            AdvancedQuantizationParameters,
            OverflowFix,
        )

        count = len(like.squares)
        images = nncf.Dataset(range(count), lambda index: {INPUT: like.squares[index][None]})
        try:
            model = nncf.quantize_with_accuracy_control(
                read(graph, what),
                calibration_dataset=images,
                validation_dataset=images,
                validation_fn=validation(like),
                max_drop=most_lost,
                target_device=nncf.TargetDevice.CPU,
                subset_size=count,
                # Weights of 7 bits in every layer, see export/float_layers.py.
                advanced_quantization_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
                advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(count, RANKED_ON)
                ),
            )
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{what} cannot be made int8 ({reason(error)}); leave out --int8") from error
    layers = [one for one in model.get_ordered_ops() if one.get_type_name() in LAYERS]
    int8 = tuple(one.get_friendly_name() for one in layers if _is_int8(one))
    if not int8:
        raise none_left(what)
    floats = tuple(one.get_friendly_name() for one in layers if not _is_int8(one))
    gain = gain_of(_run_of(read(graph, what)), _run_of(model), like.squares)
    return Quantised(as_stored(model), int8, floats, gain)


def validation(like: Likeness) -> Any:
    """Return what nncf asks a model: how like float32 its masks are, and what it gives, by which layers are ranked.

    It asks with what a dataset is made of, here the numbers of images.
    """

    def validate(model: Any, indices: Iterable[Any]) -> tuple[float, list[list[NDArray[np.float32]]]]:
        chosen = [int(index) for index in indices]
        found = [np.array(model({INPUT: like.squares[index][None]})[OUTPUT]) for index in chosen]
        return float(like.of(np.concatenate(found), chosen).mean()), [[one] for one in found]

    return validate


def _run_of(model: Any) -> Run:
    request = import_openvino().Core().compile_model(model, "CPU", compiled_with("float32")).create_infer_request()

    def run(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = [np.array(request.infer({INPUT: square[None]})[OUTPUT]) for square in squares]
        return np.concatenate(found)

    return run


def _is_int8(layer: Any) -> bool:
    """Whether the weights of a layer are int8, behind what scales them; its other input may be int8 through others."""
    source = layer.input_value(1).get_node()
    while source.get_type_name() in SCALES:
        source = source.input_value(0).get_node()
    kind = source.get_type_name()
    return bool(kind == NUMBERS or (kind == "Constant" and source.get_element_type().get_type_name() in ("i8", "u8")))
