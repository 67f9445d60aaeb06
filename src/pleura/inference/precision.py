"""In how many bits a net computes: as asked for, or as its device does it fastest.

Weights, sums and what comes out of a net are float32 always; in 16 bits are what its convolutions and matrix products
take and give. bfloat16 has float32's range, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pleura.errors import InputError
from pleura.inference.cpu import bfloat16_gain

if TYPE_CHECKING:  # an engine that computes in float32 alone needs no torch
    import torch

Asked = Literal["auto", "float32", "bfloat16"]
LEAST_GAIN = 1.1
"""Below it `auto` stays with float32: what is gained on a small net may be nothing on another."""

_asked: str | None = None


@dataclass(frozen=True)
class Precision:
    """What a net computes in: `float32`, `bfloat16` or `float16`."""

    name: str
    why: str
    """In words, for the log."""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which a net's passes have this precision."""
        if self.name == "float32":
            return nullcontext()
        import torch

        return torch.autocast(device.type, getattr(torch, self.name))


def use_precision(name: str | None) -> None:
    """Set the precision of this process for predictors that are given none; None: as their checkpoints say.

    Raises: InputError if it is none of auto, float32 and bfloat16.
    """
    global _asked
    _asked = name if name is None else _checked(name)


def named_precision(name: str | None = None) -> str | None:
    """Return the precision that was named, here or by `use_precision`; None for `auto`, or where none was.

    Raises: InputError if it is none of auto, float32 and bfloat16.
    """
    named = name or _asked
    return None if named is None or _checked(named) == "auto" else named


def precision_of_predictor(
    asked: str | None, recipe: Mapping[str, Any], device: torch.device, cancels: bool
) -> Precision:
    """Return what a checkpoint's net predicts in.

    asked: None for what `use_precision` was given, else float32 where the checkpoint's recipe asks for that, else
    `auto`: a recipe's bfloat16 is for the machine that trains. cancels: whether `keep_cancelling` found a layer in the
    net; `auto` is float32 then, because in bfloat16 single masks change. Raises: as `choose_precision`.
    """
    asked = asked or _asked or ("float32" if recipe.get("precision") == "float32" else "auto")
    if cancels and asked == "auto":
        return Precision("float32", "bfloat16 would change its masks: one of its layers cancels")
    return choose_precision(asked, device, training=False)


def choose_precision(asked: str, device: torch.device, training: bool) -> Precision:
    """Return the precision that was asked for, or for `auto` the one that a device is fastest in.

    A GPU without bfloat16 of its own (a T4, a V100) trains in float16, with a scaler, and predicts in float32.
    Raises: InputError for another word, or a device on which pleura has no bfloat16.
    """
    if _checked(asked) == "float32":
        return Precision("float32", "as asked for")
    if asked == "bfloat16":
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"precision bfloat16 is for CPUs and CUDA, not for {device}; take float32 there")
        return Precision("bfloat16", "as asked for")
    if device.type == "cuda":
        import torch

        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bfloat16", "this GPU computes in it")
        return Precision("float16" if training else "float32", "this GPU only emulates bfloat16")
    if device.type != "cpu":
        return Precision("float32", f"the only one here for {device.type}")
    return _of_cpu(training)


def _of_cpu(training: bool) -> Precision:
    gain = bfloat16_gain(training)
    if gain is None:
        return Precision("float32", "this CPU has no AMX or AVX512_BF16 for bfloat16")
    what = "step" if training else "prediction"
    measured = f"a {what} in bfloat16 was measured {gain:.2f} times as fast on this CPU"
    return Precision("bfloat16", measured) if gain >= LEAST_GAIN else Precision("float32", measured)


def _checked(name: str) -> str:
    if name not in get_args(Asked):
        raise InputError(f"precision is {', '.join(get_args(Asked))}, not {name!r:.40}")
    return name
