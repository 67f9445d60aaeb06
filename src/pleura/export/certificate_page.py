"""The certificate of an export as a page of HTML, in the style of a report."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pleura.evaluation.metrics.titles import METRICS
from pleura.evaluation.report.page import page
from pleura.export.certificate import DECISIONS, DICE, Certificate, worth
from pleura.export.comparison import DIFFERENCE, TIMES_ROUNDING

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "onnxruntime-web": "ONNX Runtime Web"}


def render(certificate: Certificate) -> str:
    """Return the page: the verdict, each number beside what is allowed, and what it was measured with and on."""
    holds, name = certificate.holds, next(iter(certificate.files), "the model")
    what, reasons = certificate.what, "; ".join(certificate.reasons).replace(" %", "\N{NO-BREAK SPACE}%")
    verdict = f"It says the same as its checkpoint on {what}." if holds else f"Refused: {reasons}."
    parts = [
        f"<h1>Does the export say the same?</h1><p class=soft>{escape(name)} as {_form(certificate)}, pleura "
        f"{escape(certificate.made_by)}.</p>",
        f"<p class='verdict{' good' if holds else ''}'>{escape(verdict)}</p>",
        f"<p>Compared with PyTorch in float32 on {escape(certificate.what)}, by the engine that runs it and at that "
        f"engine's settings. {escape(worth(certificate.kind, certificate.comparison))}</p>",
        f"<p>{escape(certificate.not_run)}.</p>" if certificate.not_run else "",
        _table("What may change", ("Number", "Measured", "Allowed"), _limits(certificate)),
        _table("Both beside each other", ("Number", "PyTorch", "Export", "Change"), _both(certificate)),
        _table("What it was measured with", ("", ""), _facts(certificate)),
    ]
    return page("pleura certificate", "\n".join(parts))


def _form(certificate: Certificate) -> str:
    form = {"onnx": "an ONNX file", "openvino": "files of OpenVINO", "html": "a page of HTML"}[certificate.format]
    return f"{form} in {certificate.precision}"


def _limits(certificate: Certificate) -> Iterable[tuple[str, ...]]:
    found, in_int8 = certificate.comparison, certificate.precision == "int8"
    free = "<span class=soft>no limit</span>"
    for size, most in found.probability.items():
        title = "Largest difference of a pixel’s probability" + _meaning(
            "an image at a time, as pleura runs it" if size == 1 else f"{size} images in one pass of the graph"
        )
        yield title, _strong(f"{most:.2g}"), free if in_int8 else _limit(most)
    worst = found.worst
    if worst.rounding is not None and not in_int8:
        title = "PyTorch’s own rounding on the image that differs most" + _meaning("float32 against float64")
        yield title, f"{worst.rounding:.2g}", f"<span class=soft>so {worst.allowed:.2g} on that image</span>"
    changed = f"{found.decisions_changed} of {found.images}"
    decisions = "Decisions that changed" + _meaning(escape(certificate.decision_rule))
    yield decisions, _strong(changed), f"{100 * DECISIONS:g} %" if in_int8 else "none"
    how = "against truth, the larger of all images’ and positives’" if found.truth else "1 - Dice between the masks"
    yield f"Change of Dice{_meaning(how)}", _strong(f"{found.dice_change:.5f}"), f"{DICE:g}" if in_int8 else free
    dice = found.mask_dice
    between = f"Dice between the two masks{_meaning('mean, and of the image that differs most')}"
    yield between, _strong(f"{dice.mean():.5f}, {dice.min():.5f}"), free


def _limit(most: float) -> str:
    """What a probability may differ by; more only where PyTorch rounds by as much itself."""
    more = f", or {TIMES_ROUNDING} times PyTorch’s own rounding on an image" if most > DIFFERENCE else ""
    return f"{DIFFERENCE:g}{more}"


def _both(certificate: Certificate) -> Iterable[tuple[str, ...]]:
    found = certificate.comparison
    yield "Images with a finding", f"{found.found.torch:.0f}", f"{found.found.export:.0f}", f"{found.found.change:.0f}"
    for key, two in (found.truth or {}).items():
        yield METRICS[key].title, *(_number(value) for value in (two.torch, two.export, two.change))
    seconds = found.seconds
    times = f"{seconds.torch / seconds.export:.2f} times as fast" if seconds.export else ""
    alone = ", the page one" if certificate.engine == "onnxruntime-web" else ""
    threads = f"{certificate.threads} thread{'' if certificate.threads == 1 else 's'}{alone}"
    title = f"Seconds for an image{_meaning(f'median, in turn, {threads}, {escape(certificate.cpu)}')}"
    yield title, f"{seconds.torch:.3f}", f"{seconds.export:.3f}", times


def _facts(certificate: Certificate) -> Iterable[tuple[str, ...]]:
    mirrored = "the mean with the mirrored image’s, inside the graph" if certificate.tta == "flip" else "not mirrored"
    yield "Engine", f"{RUNTIMES[certificate.engine]} {escape(certificate.versions.get(certificate.engine, ''))}"
    yield "Probabilities", mirrored
    yield "Images", f"{escape(certificate.what)}, sha256 <code>{certificate.comparison.images_sha256}</code>"
    if int8 := certificate.int8:
        yield "Ranges of numbers", f"from {escape(int8.calibration)}"
        yield "Layers in int8", f"{len(int8.int8_layers)}"
        yield "Layers in float32", f"<code>{escape(', '.join(int8.float_layers) or 'none')}</code>"
        yield "Beside the same in float32", f"{int8.gain:.2f} times as fast, {escape(certificate.cpu)}"
        yield "True for", escape(int8.true_for)
    for name, sha256 in certificate.files.items():
        yield escape(name), f"sha256 <code>{sha256}</code>"
    yield "Versions", escape(", ".join(f"{name} {number}" for name, number in certificate.versions.items()))


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    heads = "".join(f"<th>{each}" for each in head) if any(head) else ""
    body = "".join(
        f"<tr><td>{first}{''.join(f'<td{_kind(cell, head)}>{cell}' for cell in rest)}" for first, *rest in rows
    )
    top = f"<tr>{heads}" if heads else ""
    return f"<h2>{title}</h2><div class=scroll tabindex=0><table>{top}{body}</table></div>"


def _kind(cell: str, head: tuple[str, ...]) -> str:
    return " class=n" if any(head) and "soft" not in cell else ""


def _meaning(text: str) -> str:
    return f"<div class=soft>{text}</div>"


def _strong(text: str) -> str:
    return f"<strong>{text}</strong>"


def _number(value: float) -> str:
    return "<span class=soft>no such cases</span>" if value != value else f"{value:.4f}"
