"""Phantom frontal chest radiographs, with or without a pneumothorax, for the demo and for the tests.

A phantom is a sum of densities along the beam, like a radiograph: soft tissue, minus the air of the lungs, plus bones,
heart, vessels and, in some, what mimics the finding (skin folds, scapulae, tubes). A pneumothorax takes the lung away
from the chest wall: the rim between wall and visceral pleura holds air alone, and the vessels stay on the lung.
The rim is no darker than much else in the picture, so that a net has to learn it and no threshold can find it.

Everything is drawn in body coordinates: x to the image right (the patient's left), y down, the unit half a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pleura.data.phantoms.anatomy import (
    ANGLES,
    LUNG_CENTRE,
    Floats,
    Pose,
    Stroke,
    Table,
    draw_patient,
    draw_pose,
    heart_and_mediastinum,
    radius_table,
    ribs,
    shoulders,
    soft_tissue,
    spine_and_trachea,
    strokes,
    uneven,
    vessels,
)
from pleura.errors import InputError

_TABLE_OFFSET = 7.0  # more than a full turn: both lungs' tables lie end to end in one lookup
_LETTERS = (
    np.array([(0, 0.09), (0, 0), (0.05, 0.01), (0.05, 0.04), (0, 0.05), (0.055, 0.09)]),  # R
    np.array([(0, 0), (0, 0.09), (0.05, 0.09)]),  # L
)


@dataclass(frozen=True)
class Phantom:
    """One phantom radiograph and the truth about it.

    image: float32 (size_px, size_px) in [0, 1], bright = dense. mask: uint8 (size_px, size_px), {0, 1}.
    side: the patient's side of the pneumothorax, "R" (image left) or "L"; None where there is none.
    view: "PA" or "AP". sex: the patient's, "F" or "M".
    """

    image: Floats
    mask: NDArray[np.uint8]
    side: str | None
    view: str
    sex: str


def make_phantom(
    seed: int | Sequence[int], size_px: int = 512, has_pneumothorax: bool = True, patient_seed: int | None = None
) -> Phantom:
    """Draw the phantom of `seed`: the same arguments give the same bytes, another size the same anatomy.

    Two seeds with one `patient_seed` are two radiographs of one patient: the same ribs, lungs and vessels in another
    pose, at another exposure, with another finding.

    Raises: InputError, where `size_px` is under 32 or a seed is negative.
    """
    entropy = [int(seed)] if isinstance(seed, int | np.integer) else [int(part) for part in seed]
    if size_px < 32 or min([*entropy, patient_seed or 0]) < 0:
        raise InputError(f"a phantom needs size_px >= 32 and seeds >= 0, not size_px={size_px}, seed={seed}")
    pose_rng, finding_rng, distractor_rng, exposure_rng, patient_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(entropy).spawn(5)
    )
    patient = draw_patient(patient_rng if patient_seed is None else np.random.default_rng([17, patient_seed]))
    pose = draw_pose(pose_rng)
    radii = [radius_table(outline, pose.breath) for outline in patient.outlines]
    visceral = [np.ones_like(ANGLES), np.ones_like(ANGLES)]
    side = int(finding_rng.integers(2)) if has_pneumothorax else None
    if side is not None:
        visceral[side] = _visceral_table(radii[side], finding_rng)

    x, y = pose.grid(size_px)
    pixel = 2 / (size_px * pose.scale)
    turn, share, radius = _polar(x, y, radii)
    reach = (1 - share) * radius  # how deep inside the chest wall
    air = patient.aerated * np.sqrt(np.clip(1 - share * share * share, 0, 1))
    density = soft_tissue(x, y, patient, pose)
    density += ribs(x, y, patient, pixel)
    density += 0.36 * shoulders(patient, pose, size_px)
    density += spine_and_trachea(x, y)
    # Heart and great vessels lie where the lung would be: their shadow is the absence of its air.
    solid = heart_and_mediastinum(x, y, patient, pose)
    mask = np.zeros(x.shape, np.uint8)
    if side is not None:
        gap = (1 - _look_up(turn, visceral)) * radius
        gained, line = _free_air(gap, reach, pixel)
        # A lung that has lost air is a little denser; free air stops nothing.
        air *= 1 + 0.28 * gained - np.float32(0.06) * (1 - gained) * ((x > 0) == bool(side))
        density += 0.09 * line
        # No reader sees or outlines what lies behind the great vessels.
        mask[(reach > 0) & (reach < gap) & (gap > 0.012) & (solid < 0.6)] = 1
    density -= air * (1 - 0.85 * solid) * uneven(exposure_rng, size_px, cells=48, strength=0.10)
    seen = (1 - 0.75 * solid) * np.clip(reach / 0.1 + 0.7, 0.3, 1)
    density += 0.2 * seen * vessels(patient, radii, visceral, pose, size_px)
    density += _distractors(x, y, pose, distractor_rng, side)
    image = _expose(density, exposure_rng)
    return Phantom(image, mask, None if side is None else "RL"[side], pose.view, "F" if patient.female else "M")


def _visceral_table(radius: Table, rng: np.random.Generator) -> Table:
    """Where the visceral pleura lies at every one of `ANGLES`, as a share of `radius`: 1 is at the chest wall."""
    shape = rng.random()
    if shape < 0.35:  # an apical cap
        start, end, depth = rng.uniform(-0.75, -0.45), rng.uniform(0.8, 1.3), rng.uniform(0.17, 0.28)
    elif shape < 0.70:  # apex and side
        start, end, depth = rng.uniform(-0.65, -0.35), rng.uniform(1.5, 2.3), rng.uniform(0.14, 0.23)
    else:  # most of the lung's height
        start, end, depth = rng.uniform(-0.7, -0.4), rng.uniform(2.2, 2.7), rng.uniform(0.18, 0.36)
    place = np.clip((ANGLES - start) / (end - start), 0, 1)
    bump = np.sin(np.pi * place ** rng.uniform(0.75, 1.1)) ** rng.uniform(0.85, 1.2)
    wave = sum(rng.normal(0, 0.05) * np.sin(k * ANGLES + rng.uniform(0, 2 * np.pi)) for k in (3, 5, 8))
    # The apex is far from the centre and the side near: an equal share of both would leave no rim at the side.
    gap = ndimage.gaussian_filter1d(depth * bump * (1 + wave) * (0.45 + 1.1 * radius), 7, mode="wrap")
    table: Table = 1 - 0.75 * np.tanh(gap / radius / 0.75)
    return table


def _polar(x: Floats, y: Floats, radii: list[Table]) -> tuple[Floats, Floats, Floats]:
    """Every pixel seen from its lung's centre: key into the tables, distance as a share of the wall's, the wall's."""
    across, down = np.abs(x) - np.float32(LUNG_CENTRE[0]), y - np.float32(LUNG_CENTRE[1])
    turn = np.arctan2(across, -down) + np.where(x > 0, np.float32(_TABLE_OFFSET), np.float32(0))
    radius = _look_up(turn, radii)
    return turn, np.sqrt(across * across + down * down) / radius, radius


def _look_up(turn: Floats, tables: list[Table]) -> Floats:
    """The value at `turn` of the right lung's table and, one `_TABLE_OFFSET` on, the left lung's."""
    angles = np.concatenate([ANGLES, ANGLES + _TABLE_OFFSET])
    return np.interp(turn, angles, np.concatenate(tables)).astype(np.float32)


def _free_air(gap: Floats, reach: Floats, pixel: float) -> tuple[Floats, Floats]:
    """How far each pixel lies in free air, and how far on the visceral pleura that bounds it, both in [0, 1].

    gap: how far wall and pleura lie apart in the pixel's direction; reach: how deep the pixel lies inside the wall.
    """
    beyond = gap - reach
    opened = np.minimum(gap / np.float32(0.02), 1)
    gained = np.clip(beyond / np.float32(max(0.004, 0.7 * pixel)) + 0.5, 0, 1) * opened
    line = np.exp(-np.square(beyond / np.float32(max(0.005, 0.8 * pixel)))) * opened * (reach > 0)
    return gained, line


def _distractors(x: Floats, y: Floats, pose: Pose, rng: np.random.Generator, finding: int | None) -> Floats:
    """What looks like a pleural line and is none (a skin fold), drains, leads and the side marker.

    Drains are more frequent with a pneumothorax (`finding`, 0 right or 1 left) than without, as they are in hospitals.
    """
    size_px = x.shape[0]
    density = np.zeros_like(x)
    chances, mirror, tube_mirror = rng.random(4), rng.choice([-1.0, 1.0]), rng.choice([-1.0, 1.0])
    start, slope, bend = rng.uniform(0.34, 0.56), rng.uniform(-0.05, 0.22), rng.uniform(-0.15, 0.15)
    top, length, wander = rng.uniform(-0.6, -0.2), rng.uniform(0.7, 1.2), rng.normal(0, 0.05, (6, 2))
    if chances[0] < 0.3:
        # Dense on the inner side, fading inwards: no line of its own, and it runs on beyond the lung.
        inward = np.float32(start) + np.float32(slope) * y + np.float32(bend) * y * y - x * np.float32(mirror)
        fade = np.clip((y - np.float32(top - 0.25)) / 0.2, 0, 1) * np.clip((np.float32(top + length) - y) / 0.3, 0, 1)
        step = np.clip(inward * (size_px / 4) + 0.5, 0, 1) * np.exp(-np.clip(inward, 0, None) / np.float32(0.11))
        density += np.float32(0.085) * step * fade
    lines: list[Stroke] = []
    if chances[1] < (0.12 if finding is None else 0.22):
        tube = np.array([(0.95, 0.50), (0.72, 0.38), (0.58, 0.18), (0.50, -0.06), (0.42, -0.28), (0.36, -0.46)])
        tube = _rounded(tube + 0.5 * wander) * [tube_mirror if finding is None else 2 * finding - 1, 1.0]
        lines += [(tube, 0.030, 0.45), (tube, 0.018, 0.22), (tube, 0.005, 0.9)]
    if chances[2] < 0.2:
        lead = np.array([(-0.95, 0.9), (-0.62, 0.4), (-0.46, -0.45), (0.0, 0.25), (0.46, -0.40), (0.42, 0.95)]) + wander
        lead = _rounded(lead)
        turn = np.linspace(0, 2 * np.pi, 9)
        electrode = 0.008 * np.stack([np.cos(turn), np.sin(turn)], -1)
        lines += [(lead, 0.007, 0.5), (lead[32] + electrode, 0.012, 0.8), (lead[62] + electrode, 0.012, 0.8)]
    if chances[3] < 0.6:
        letter = _LETTERS[int(mirror > 0)] + [mirror * 0.60 + wander[0, 0] / 4, -0.78 + wander[0, 1] / 4]
        lines.append((letter, 0.014, 0.95))
    if lines:
        density += np.float32(0.5) * strokes(size_px, pose, lines)
    return density


def _rounded(route: Table) -> Table:
    """A smooth polyline through the corners of `route` (n, 2)."""
    dense = np.stack([np.interp(np.linspace(0, len(route) - 1, 80), np.arange(len(route)), c) for c in route.T], -1)
    smooth: Table = ndimage.gaussian_filter1d(dense, 5, axis=0, mode="nearest")
    return smooth


def _expose(density: Floats, rng: np.random.Generator) -> Floats:
    """Detector and display: scatter, an uneven beam, noise that grows where little arrives, window and gamma."""
    size_px = density.shape[0]
    beam = uneven(rng, size_px, cells=4, strength=0.03)
    low, high, gamma = rng.uniform(0.0, 0.15), rng.uniform(1.25, 1.5), rng.uniform(0.8, 1.2)
    linear = np.clip((density * beam - low) / np.float32(high - low), 0, None)
    # The display's shoulder: the densest parts come near white and never reach it.
    level = np.tanh(linear ** np.float32(1.3 * gamma) * 1.15) / np.float32(0.95)
    grain = rng.standard_normal(density.shape, dtype=np.float32) * np.float32(rng.uniform(0.012, 0.028))
    image: Floats = np.clip(level + grain * (0.4 + level), 0, 1)
    return image
