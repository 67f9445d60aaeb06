"""Claim: on 2 cores an exported model is 1.6 times as fast as eager PyTorch with the same masks, in int8 3 times.

Two nets at 512 px, each from a square of grey values to probabilities: the default model with its mirrored view, and
the U-Net of the recipe densenet121 with random weights. In turn, an image at a time: PyTorch as published (eager,
float32, NCHW), with BatchNorm folded and channels_last (what `--engine torch` runs), in bfloat16 where the CPU has
units for it, by torch.compile where there is a C++ compiler, ONNX Runtime and OpenVINO in float32, and both in int8, in
which all layers are int8 that can be: the most that `pleura export --int8` could gain. Beside each the mean Dice
between its masks and those of eager PyTorch, of the default model alone: random weights find nothing. `--exported` adds
files of `pleura export`, such as one in int8, to the default model's rows. The images are of a dataset, or phantoms.

`--clock cpu` is for a machine that has other work: the ratios are then of the processor time of all threads.
Run: python benchmarks/inference.py [--data DATA] [--exported FILE ...] [--threads 2] [--rounds 9] [--clock wall]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from paired import in_turn, machine, milliseconds, ratio, table

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.triplet import Triplet
from pleura.evaluation.metrics.siim import siim_dice
from pleura.export import int8_onnx, int8_openvino
from pleura.export.export import FORMS
from pleura.export.float_layers import Likeness
from pleura.export.onnx import graph_of
from pleura.inference.cpu import bfloat16_units, int8_units, processor
from pleura.inference.engines.onnxruntime import OnnxEngine
from pleura.inference.engines.openvino import OpenVinoEngine
from pleura.inference.engines.torch import TorchEngine, infer
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, load_checkpoint, net_of
from pleura.models.default import default_model
from pleura.models.exported import Exported, load_exported
from pleura.models.identity import weights_hash
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
SIZE_PX, CALIBRATED_ON = 512, 8
ENGINES = {"onnx": OnnxEngine, "openvino": OpenVinoEngine}
Run: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def random_unet() -> Checkpoint:
    """The net of the recipe densenet121 with random weights."""
    torch.manual_seed(0)
    config = load_recipe(RECIPES / "densenet121.yaml").model.model_copy(update={"pretrained": False})
    return Checkpoint(
        weights=build_model(config).state_dict(),
        model=config,
        preprocessing=Preprocessing(SIZE_PX, SIZE_PX, config.in_channels, 0.449, 0.226, "area"),
        triplet=Triplet(0.5, 0, 0.5),
        recipe={"name": "densenet121", "tta": "none"},
    )


def squares_of(data: Path | None, count: int) -> NDArray[np.uint8]:
    """Images (count, 512, 512): every so many of a dataset, or phantoms."""
    if data is None:
        drawn = (make_phantom(seed, SIZE_PX, seed % 2 == 0).image for seed in range(count))
        return np.stack([np.rint(image * 255).astype(np.uint8) for image in drawn])
    images = Dataset(data).images
    return np.array(images[:: max(1, len(images) // count)][:count])


@torch.inference_mode()
def eager(net: torch.nn.Module, preprocessing: Preprocessing, flip: bool, squares: NDArray[np.uint8]) -> np.ndarray:
    """What anybody writes: the net as it was trained, float32, NCHW."""
    images = resize_images(torch.from_numpy(squares)[:, None], preprocessing.size_px, preprocessing.reduction)
    inputs = normalise(images, preprocessing)
    found = net.probabilities(inputs)  # type: ignore[operator]
    if flip:
        found = (found + net.probabilities(inputs.flip(-1)).flip(-1)) / 2  # type: ignore[operator]
    return np.asarray(found[:, 0].numpy())


def compiled(engine: TorchEngine) -> Run:
    """torch.compile of the folded net, in channels_last; it compiles in its first pass."""
    engine.net.probabilities = torch.compile(engine.net.probabilities)  # type: ignore[method-assign]

    def run(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(squares)[:, None]
        return np.asarray(infer(engine.net, images, engine.preprocessing, engine.tta == "flip").numpy())

    return run


def exported(form: str, parts: tuple[bytes, ...], checkpoint: Checkpoint, tta: str, folder: Path) -> Run:
    """A graph on the engine that serves it."""
    said = Exported(
        **vars(checkpoint.header),
        tta=tta,
        weights_sha256=weights_hash(checkpoint.weights),
        checkpoint_sha256="0" * 64,
        certificate=None,
        path=folder / f"model{FORMS[form].suffix}",
    )
    folder.mkdir(parents=True)
    for suffix, content in FORMS[form].files(parts, said).items():
        said.path.with_suffix(suffix).write_bytes(content)
    return ENGINES[form](load_exported(said.path)).probabilities


def int8_of(form: str, graph: bytes, squares: NDArray[np.uint8], folder: Path) -> tuple[bytes, ...]:
    """A graph of which all layers are int8 that can be, as `pleura export` would make it if none of them hurt."""
    nothing = Likeness(squares, np.zeros((len(squares), 1, 1), np.float32), Triplet())
    if form == "onnx":
        folder.mkdir(parents=True)
        return (int8_onnx.Maker(folder, graph, nothing.squares).made(()),)
    return int8_openvino.quantised(graph, nothing, "the net", most_lost=1.0).parts


def sides_of(checkpoint: Checkpoint, squares: NDArray[np.uint8], folder: Path) -> dict[str, Run]:
    """The ways to run a net, by their names."""
    tta = checkpoint.recipe.get("tta", "none")
    engine = TorchEngine(checkpoint, tta, "cpu", "float32")
    ways: dict[str, Run] = {
        "PyTorch, eager float32": partial(eager, net_of(checkpoint).eval(), checkpoint.preprocessing, tta == "flip"),
        "PyTorch, BatchNorm folded": engine.probabilities,
    }
    if bfloat16_units():
        ways["PyTorch, bfloat16"] = TorchEngine(checkpoint, tta, "cpu", "bfloat16").probabilities
    if shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        ways["torch.compile"] = compiled(TorchEngine(checkpoint, tta, "cpu", "float32"))
    else:
        print("torch.compile: left out, there is no C++ compiler")
    graph = graph_of(checkpoint, tta, "the net")
    for form, name in (("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")):
        parts = {"float32": FORMS[form].convert(graph, "the net")}
        parts["int8, all layers"] = int8_of(form, graph, squares[:CALIBRATED_ON], folder / f"making-{form}")
        for precision, each in parts.items():
            ways[f"{name}, {precision}"] = exported(form, each, checkpoint, tta, folder / f"{form}-{precision[:4]}")
    return ways


def likeness(run: Run, before: NDArray[np.float32], squares: NDArray[np.uint8], triplet: Triplet) -> str:
    """Mean Dice between masks, and decisions that differ."""
    found = np.concatenate([run(square[None]) for square in squares])
    masks = [np.stack([triplet.apply(each, SIZE_PX**2) for each in one]) for one in (before, found)]
    changed = int((masks[0].any(axis=(1, 2)) != masks[1].any(axis=(1, 2))).sum())
    return f"{siim_dice(*masks).mean():.5f}, {changed} of {len(squares)}"


def rows_of(name: str, ways: dict[str, Run], squares: NDArray[np.uint8], given: argparse.Namespace) -> list[list[str]]:
    """Time the ways to run a net in turn; returns rows of the table without the last column."""
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    number = iter(range(10**6))
    calls = {
        key: partial(lambda run: run(squares[next(number) % len(squares)][None]), run) for key, run in ways.items()
    }
    took = in_turn(calls, given.rounds, clock=clock)
    first = next(iter(ways))
    return [[f"{name}: {key}", milliseconds(took[key]), ratio(took[first], took[key])] for key in ways]


def main() -> None:
    parser = argparse.ArgumentParser(description="The net alone, by every way to run it.")
    parser.add_argument("--data", type=Path, help="A dataset of 512 px instead of phantoms.")
    parser.add_argument("--exported", type=Path, nargs="+", default=[], help="Exports of the default model.")
    parser.add_argument("--images", type=int, default=16, help="How many images masks are compared on.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # the engines' threads
    torch.set_num_threads(given.threads)
    squares = squares_of(given.data, given.images)
    units = "units for int8 not known" if int8_units() is None else ", ".join(int8_units() or ()) or "no VNNI"
    print(f"{processor()}, {', '.join(bfloat16_units()) or 'no units for bfloat16'}, {units}; {machine()}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        default = load_checkpoint(default_model())
        ways = sides_of(default, squares, Path(folder))
        for file in given.exported:
            model = load_exported(file)
            form = "onnx" if file.suffix == ".onnx" else "openvino"
            ways[f"{file.parent.name}/{file.name}, {model.precision}"] = ENGINES[form](model).probabilities
        timed = rows_of("default model", ways, squares, given)
        before = np.concatenate([next(iter(ways.values()))(square[None]) for square in squares])
        rows += [
            [*row, likeness(run, before, squares, default.triplet)]
            for row, run in zip(timed, ways.values(), strict=True)
        ]
        random = sides_of(random_unet(), squares, Path(folder) / "random")
        rows += [[*row, ""] for row in rows_of("DenseNet121 U-Net", random, squares, given)]
    table(["net, way", given.clock, "against eager", "Dice between masks, decisions changed"], rows)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
