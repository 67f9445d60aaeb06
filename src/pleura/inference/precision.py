"""In how many bits a net computes: as asked for, or as its device does it fastest.

A net predicts in bfloat16 by itself only where its checkpoint shows what that changes in its results.

Weights, sums and what comes out of a net are float32 always; in 16 bits are what its convolutions and matrix products
take and give. bfloat16 has float32's range, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from pleura.errors import InputError
from pleura.inference.cpu import bfloat16_gain, bfloat16_units
from pleura.models.header import ModelHeader

if TYPE_CHECKING:  # an engine that computes in float32 alone needs no torch
    import torch

Asked = Literal["auto", "float32", "bfloat16"]
LEAST_GAIN = 1.1
"""Below it `auto` stays with float32: what is gained on a small net may be nothing on another."""
EXACT = "--precision float32 gives the same on every machine, but for rounding"
FAST = "--precision bfloat16 computes in it all the same"
AS_EXPORTED = "as it was exported"

_asked: str | None = None


@dataclass(frozen=True)
class Precision:
    """What a net computes in: `float32`, `bfloat16`, `float16`, or an exported one in `int8`."""

    name: str
    why: str
    """In words, for the log."""
    way_out: str = ""
    """To the other one, where a user may want it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" + (f"; {self.way_out}" if self.way_out else "")

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which a net's passes have this precision."""
        if self.name == "float32":
            return nullcontext()
        import torch

        return torch.autocast(device.type, getattr(torch, self.name))


def in_words(precisions: Sequence[Precision]) -> str:
    """Return what the nets of a model compute in, and why; one sentence where it is the same for all."""
    return ". ".join(dict.fromkeys(map(str, precisions)))


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


def asked_for(header: ModelHeader) -> str:
    """Return what `use_precision` was given, else float32 where a model's recipe asks for that, else `auto`.

    A recipe's bfloat16 is for the machine that trains.
    """
    return _asked or ("float32" if header.recipe.get("precision") == "float32" else "auto")


def precision_of_predictor(
    asked: str | None, header: ModelHeader, weights_sha256: str, tta: str, device: torch.device
) -> Precision:
    """Return what a checkpoint's net predicts in.

    asked: None for `asked_for`. `auto` is bfloat16 where the header's `bfloat16` shows, for these weights, decision
    rule, tta (none or flip) and kind of device, that it changes little, and the device is faster in it.
    Raises: as `choose_precision`.
    """
    asked, change = asked or asked_for(header), header.bfloat16
    # Before speed, which may take half a second to measure.
    if asked == "auto" and has_bfloat16(device) and (objection := _objection(header, weights_sha256, tta, device)):
        return objection
    chosen = choose_precision(asked, device, training=False)
    if chosen.name != "bfloat16":
        return chosen
    amount = f"which {change.in_words}; " if change and asked == "auto" else ""
    return replace(chosen, why=amount + chosen.why, way_out=EXACT)


def _objection(header: ModelHeader, weights_sha256: str, tta: str, device: torch.device) -> Precision | None:
    """Return float32 and why, unless a header shows that bfloat16 changes little."""
    change, measure = header.bfloat16, f"pleura tune measures it, {FAST}"
    if change is None:
        return Precision("float32", "what bfloat16 changes in its results was not measured", measure)
    same = {
        "other weights": change.weights_sha256 == weights_sha256,
        "another triplet": change.triplet == asdict(header.triplet),
        "another tta": change.tta == tta,
        "another kind of device": change.device == device.type,
    }
    if other := next((name for name, is_same in same.items() if not is_same), None):
        return Precision("float32", f"what bfloat16 changes in its results was measured with {other}", measure)
    return Precision("float32", change.verdict, FAST) if change.excess else None


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself, however fast."""
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(bfloat16_units())


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
        if has_bfloat16(device):
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
