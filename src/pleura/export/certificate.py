"""The certificate of an export: what was measured, what is allowed, and whether it holds.

`certificate.json` beside the export has all of it. The same is in the export's own metadata, without what no file can
say of itself (its hash) and what differs from run to run (seconds), so that equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pleura import __version__
from pleura.export.comparison import DIFFERENCE, Comparison, Difference, Pair
from pleura.export.sample import Kind

FORMAT = 1
Precision = Literal["float32", "int8"]
DICE, DECISIONS = 0.005, 0.01
"""The most that may change in int8: Dice, and the share of decisions."""
ROUNDING = 1e-6
"""How far a probability may lie outside 0 and 1."""
PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True, kw_only=True)
class Int8:
    """What is said of an int8 export besides."""

    calibration: str
    """The images that the ranges of numbers were found on, in words."""
    int8_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    """Those that stay float32."""
    machine: str
    """The kind of CPU, as `platform.machine` names it."""
    units: tuple[str, ...] | None
    """Of the CPU, as `cpu.int8_units` names them."""
    gain: float
    """How many times as fast as the same graph in float32 on the same engine, the median."""

    @property
    def true_for(self) -> str:
        """On which machines the certificate is true, in words."""
        units = "units for int8 not known" if self.units is None else ", ".join(self.units) or "without VNNI"
        return (
            f"Measured on {self.machine}, {units}. Weights have 7 bits, so that on no CPU a sum of two products "
            f"overflows 16 bits: on {self.machine} with VNNI and without it the sums are the same. On other kinds of "
            "machines nothing was measured."
        )


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is known of an export."""

    precision: Precision
    format: str
    """`onnx`, `openvino` or `html`."""
    engine: str
    """What runs it, by name."""
    tta: str
    decision_rule: str
    """In words."""
    kind: Kind
    what: str
    """The images, in words."""
    comparison: Comparison
    cpu: str
    threads: int
    made_by: str = __version__
    files: dict[str, str] = field(default_factory=dict)
    """Name -> sha256, of the checkpoint and of the export."""
    versions: dict[str, str] = field(default_factory=dict)
    int8: Int8 | None = None

    @property
    def not_run(self) -> str:
        """What was not measured though it is what runs the export, in words; empty where that was measured."""
        if self.format != "html" or self.engine != "onnxruntime":
            return ""
        return (
            "Measured with ONNX Runtime: there is no node here to run ONNX Runtime Web, which the page has. "
            "Export again where there is one"
        )

    @property
    def reasons(self) -> list[str]:
        """Why it does not hold, with each number and what is allowed; none where it holds."""
        return list(_exceeded(self.comparison, self.precision))

    @property
    def holds(self) -> bool:
        """Whether the export may stand for its checkpoint."""
        return not self.reasons

    def document(self) -> dict[str, Any]:
        """Return the content of certificate.json."""
        comparison, dice, worst = self.comparison, self.comparison.mask_dice, self.comparison.worst
        return {
            "format": FORMAT,
            "holds": self.holds,
            "reasons": self.reasons,
            "precision": self.precision,
            "export": self.format,
            "engine": self.engine,
            "not_run": self.not_run,
            "compared_with": "PyTorch, float32",
            "tta": self.tta,
            "decision_rule": self.decision_rule,
            "images": {
                "kind": self.kind,
                "what": self.what,
                "count": comparison.images,
                "sha256": comparison.images_sha256,
                "worth": worth(self.kind, comparison),
            },
            "allowed": allowed(self.precision),
            "probability_difference": {str(size): _rounded(most) for size, most in comparison.probability.items()},
            "worst_image": {
                "probability_difference": _rounded(worst.value),
                "batch_size": worst.batch_size,
                "rounding_of_pytorch": None if worst.rounding is None else _rounded(worst.rounding),
                "allowed": _rounded(worst.allowed),
            },
            "probabilities_within": [_rounded(comparison.least), _rounded(comparison.most)],
            "mask_dice": {"mean": _rounded(float(dice.mean())), "least": _rounded(float(dice.min()))},
            "dice_change": _rounded(comparison.dice_change),
            "found": {"torch": int(comparison.found.torch), "export": int(comparison.found.export)},
            "decisions_changed": comparison.decisions_changed,
            "truth": None if comparison.truth is None else {key: _pair(two) for key, two in comparison.truth.items()},
            "seconds": _pair(comparison.seconds),
            "cpu": self.cpu,
            "threads": self.threads,
            "int8": self.int8
            and {**asdict(self.int8), "gain": _rounded(self.int8.gain), "true_for": self.int8.true_for},
            "files": self.files,
            "pleura": self.made_by,
            "versions": self.versions,
        }

    def inside(self) -> dict[str, Any]:
        """Return what the export's own metadata have of it."""
        said = {key: value for key, value in self.document().items() if key not in ("seconds", "files")}
        if self.int8:
            said["int8"] = {key: value for key, value in said["int8"].items() if key != "gain"}
        return said


def allowed(precision: Precision) -> dict[str, float]:
    """Return what may change, by the names of certificate.json."""
    if precision == "float32":
        return {"probability_difference": DIFFERENCE, "decisions_changed": 0}
    return {"dice_change": DICE, "decisions_changed_share": DECISIONS}


def _exceeded(found: Comparison, precision: Precision) -> Iterator[str]:
    # NaN is within no limit: each of these asks for what is good.
    worst, changed, images = found.worst, found.decisions_changed, found.images
    if not math.isfinite(worst.value):
        yield "its probabilities are not finite"
    elif not -ROUNDING <= found.least <= found.most <= 1 + ROUNDING:
        yield f"its output lies within {found.least:.4g} and {found.most:.4g}, a probability within 0 and 1"
    if precision == "float32":
        if math.isfinite(worst.value) and not worst.excess <= 1:
            yield f"a probability differs by {worst.value:.2g} ({_at_a_time(worst)}), allowed are {worst.allowed:.2g}"
        if changed:
            yield f"{changed} of {images} decisions changed, allowed is none"
        return
    if not found.dice_change <= DICE:
        yield f"Dice changes by {found.dice_change:.4f}, allowed are {DICE:g}"
    if changed > DECISIONS * images:
        yield f"{changed} of {images} decisions changed, allowed are {100 * DECISIONS:g} %"


def _at_a_time(worst: Difference) -> str:
    return "an image at a time" if worst.batch_size == 1 else f"{worst.batch_size} images at a time"


def worth(kind: Kind, found: Comparison) -> str:
    """Return what a comparison on such images shows, and what not, in words."""
    nothing = (
        "Neither finds anything on any of them, so that no two masks were compared. "
        if not found.found.torch + found.found.export
        else ""
    )
    if kind == "phantoms":
        return (
            f"{nothing}Phantoms are drawings of chests and no radiographs. They show that the graph computes what "
            "PyTorch computes; how many decisions change on the radiographs of a hospital they do not show. Export "
            "again with --images or --data, and radiographs such as the model is used on."
        )
    if kind == "radiographs":
        return f"{nothing}No truth is known of them: how masks and decisions change is measured, not whether for worse."
    return f"{nothing}Truth is known of them: scores of both are measured by the same decision rule."


def versions() -> dict[str, str]:
    """Return the versions of what made an export and of what ran it, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _pair(two: Pair) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in asdict(two).items()}


def _rounded(value: float) -> float | None:
    """To six digits: those after them differ with the threads of a machine. None for what is no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
