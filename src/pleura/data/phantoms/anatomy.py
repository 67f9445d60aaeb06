"""The anatomy of a phantom: the patient, the pose, and the tissue that stops X-rays.

Everything is drawn in body coordinates: x to the image right (the patient's left), y down, the unit half a picture.
A function that takes `x` and `y` (float32, (size_px, size_px)) returns densities of that shape; the unit of density is
what a trunk of middling depth stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

Floats = NDArray[np.float32]
Table = NDArray[np.float64]
Stroke = tuple[Table, float, float]  # points (n, 2), width, strength in [0, 1]

# One lung of the average patient as (distance from the midline, y), clockwise from the apex; mirrored for the other.
_LUNG_OUTLINE = np.array(
    [(0.26, -0.75), (0.38, -0.71), (0.48, -0.60), (0.55, -0.44), (0.61, -0.20), (0.65, 0.08), (0.67, 0.36),
     (0.665, 0.60), (0.58, 0.47), (0.46, 0.40), (0.34, 0.375), (0.22, 0.39), (0.12, 0.44),
     (0.10, 0.20), (0.09, -0.10), (0.10, -0.42), (0.15, -0.68)]
)  # fmt: skip
_DIAPHRAGM = slice(7, 13)  # the part of the outline that moves with the breath
LUNG_CENTRE = (0.38, -0.08)
_SKIN_Y = (-1.4, -1.0, -0.90, -0.80, -0.70, -0.55, -0.35, 0.0, 0.5, 1.4)
_SKIN_X = (0.27, 0.26, 0.31, 0.52, 0.84, 0.95, 0.88, 0.80, 0.83, 0.88)
ANGLES = np.linspace(-np.pi, np.pi, 361)  # 0 is up, a right angle is lateral, negative is medial


@dataclass(frozen=True)
class Patient:
    """What two radiographs of one patient share."""

    female: bool
    outlines: tuple[Table, Table]  # the patient's right and left lung, each (17, 2)
    rib_spacing: float
    rib_tilt: float
    rib_offsets: Floats  # (4, 32) in spacings: posterior right and left, anterior right and left
    heart: float
    heart_tilt: float
    bulk: float
    aerated: float  # how much less an aerated lung stops than soft tissue
    stomach_air: float
    vessel_seed: int


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the detector: the way from body coordinates to the picture and back."""

    view: str
    angle: float
    scale: float
    shift: tuple[float, float]
    turn: float  # about the body's long axis: moves the heart and the trachea against the spine
    breath: float

    def to_picture(self, points: Table, size_px: int) -> Table:
        """Body coordinates (..., 2) as pixel coordinates (x, y) of a picture of `size_px`."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        pixels: Table = (turned * self.scale + np.array(self.shift) + 1) * (size_px / 2)
        return pixels

    def grid(self, size_px: int) -> tuple[Floats, Floats]:
        """Body coordinates (x, y) of the middle of every pixel, each float32 (size_px, size_px)."""
        ramp = (np.arange(size_px) + 0.5) * (2 / size_px) - 1
        u, v = (ramp - self.shift[0])[None, :] / self.scale, (ramp - self.shift[1])[:, None] / self.scale
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (cos * u + sin * v).astype(np.float32), (cos * v - sin * u).astype(np.float32)


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: size, lungs, ribs, heart, vessels."""
    female = bool(rng.random() < 0.45)
    stature = rng.normal(1, 0.05, 2).clip(0.88, 1.12) * (0.97 if female else 1.0)
    outlines = []
    for side in range(2):
        outline = _LUNG_OUTLINE * stature * (1, 0.96) + rng.normal(0, 0.008, _LUNG_OUTLINE.shape)
        # The liver lifts the right dome.
        outline[8:13, 1] += rng.normal(0.03 if side else -0.02, 0.02)
        outlines.append(outline)
    return Patient(
        female=female,
        outlines=(outlines[0], outlines[1]),
        rib_spacing=rng.uniform(0.112, 0.138),
        rib_tilt=rng.uniform(0.75, 1.25),
        rib_offsets=rng.normal(0, 0.05, (4, 32)).astype(np.float32),
        heart=rng.uniform(0.88, 1.2),
        heart_tilt=rng.uniform(0.4, 0.9),
        bulk=rng.uniform(0.85, 1.2),
        aerated=rng.uniform(0.60, 0.70),
        stomach_air=max(0.0, rng.uniform(-0.25, 0.3)),
        vessel_seed=int(rng.integers(2**32)),
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose; two in five are AP, as of patients who cannot stand, with less breath and a larger heart."""
    supine = bool(rng.random() < 0.4)
    return Pose(
        view="AP" if supine else "PA",
        angle=float(rng.normal(0, 0.045)),
        scale=float(rng.uniform(1.02, 1.28)),
        shift=(float(rng.normal(0, 0.04)), float(rng.normal(0.06, 0.04))),
        turn=float(rng.normal(0, 0.025)),
        breath=float(rng.normal(-0.04 if supine else 0.02, 0.035)),
    )


def radius_table(outline: Table, breath: float) -> Table:
    """How far the chest wall lies from the lung's centre at every one of `ANGLES`: (361,), in body units."""
    corners = outline.copy()
    corners[_DIAPHRAGM, 1] += breath
    steps = np.linspace(0, 1, 40, endpoint=False)[None, :, None]
    edge = (corners[:, None] * (1 - steps) + np.roll(corners, -1, axis=0)[:, None] * steps).reshape(-1, 2)
    across, down = edge[:, 0] - LUNG_CENTRE[0], edge[:, 1] - LUNG_CENTRE[1]
    angles = np.arctan2(across, -down)
    order = np.argsort(angles)
    radius = np.interp(ANGLES, angles[order], np.hypot(across, down)[order], period=2 * np.pi)
    smooth: Table = ndimage.gaussian_filter1d(radius, 3, mode="wrap")
    smooth[-1] = smooth[0]
    return smooth


def soft_tissue(x: Floats, y: Floats, patient: Patient, pose: Pose) -> Floats:
    """Trunk, arms, the belly under the diaphragm and the breasts: what a chest without lungs and bones stops."""
    a = np.abs(x)
    levels = np.linspace(-1.4, 1.4, 141)
    widths = ndimage.gaussian_filter1d(np.interp(levels, _SKIN_Y, _SKIN_X), 2.5, mode="nearest")
    skin = np.interp(y, levels, widths * (0.55 + 0.45 * patient.bulk)).astype(np.float32)
    trunk = np.clip(1 - np.square(a / skin) * (a / skin), 0, 1) ** np.float32(0.55)
    arm = np.sqrt(np.clip(1 - np.square(_distance_to_segment(a, y, (0.90, -0.55), (1.08, 0.75)) / 0.16), 0, 1))
    density: Floats = np.maximum(trunk * np.float32(0.92 + 0.08 * patient.bulk), 0.55 * arm)
    density += np.clip((y - 0.35) * 0.25, 0, 0.15) * (trunk > 0)
    if patient.female:
        low = np.float32(0.42 + 0.12 * (patient.bulk - 1) - 0.3 * pose.breath)
        breast = np.square((a - 0.42) / 0.30) + np.square((y - low + 0.12) / np.where(y > low - 0.12, 0.17, 0.50))
        density += 0.13 * patient.bulk * np.sqrt(np.clip(1 - breast, 0, 1))
    if patient.stomach_air:
        # Air in the stomach, under the patient's left dome.
        top = np.float32(0.53 + pose.breath)
        bubble = 1 - np.square((x - 0.36) / 0.17) - np.square((y - top) / np.where(y < top, 0.07, 0.12))
        density -= patient.stomach_air * np.sqrt(np.clip(bubble, 0, 1))
    return density


def _distance_to_segment(x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float]) -> Floats:
    (x0, y0), (x1, y1) = start, end
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = np.clip(along, 0, 1)
    distance: Floats = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
    return distance


def ribs(x: Floats, y: Floats, patient: Patient, pixel: float) -> Floats:
    """Both layers of ribs: the posterior fall away from the spine, the anterior rise to the side and are fainter."""
    a = np.abs(x)
    side = (x > 0).astype(np.intp)
    # The wall of the chest goes on below the lungs, where the lower ribs lie over the belly.
    wall = np.concatenate([[[0.10, -0.83]], (patient.outlines[0] + patient.outlines[1])[:8] / 2, [[0.66, 1.4]]])
    depth = np.interp(y, wall[:, 1], wall[:, 0] + 0.02).astype(np.float32) - a
    cage = np.clip(depth / 0.02 + 0.5, 0, 1) * np.clip((0.85 - y) / 0.2, 0, 1)
    tangent = 1 + 0.7 * np.exp(-np.clip(depth, 0, None) / 0.05)  # at the side the beam runs along the rib
    tilt = np.float32(patient.rib_tilt) * (1 + 0.45 * (y + 0.5))
    back = (y + 0.72 - tilt * (a * a * a * 0.75 - 0.12 * a)) / np.float32(patient.rib_spacing)
    front = (y + 0.95 - tilt * (0.45 * a * a - 0.80 * a)) / np.float32(patient.rib_spacing * 1.12)
    layers = ((back, 0, 0.30, np.clip((a - 0.07) / 0.03, 0, 1)), (front, 2, 0.33, np.clip((a - 0.26) / 0.10, 0, 1)))
    density = np.zeros_like(x)
    for phase, row, half_width, visible in layers:
        whole = np.floor(phase)
        number = np.clip(whole + 8, 0, 31).astype(np.intp)
        jitter = np.take(patient.rib_offsets[row : row + 2], number + 32 * side)
        off = np.abs(phase - whole - 0.5 + jitter) / np.float32(half_width)
        edge = np.float32(0.12 + 2 * pixel / patient.rib_spacing)
        bone = np.clip((1 - off) / edge, 0, 1) * (0.6 + 0.4 * np.square(np.square(off)))
        density += bone * visible * np.float32(0.15 if row == 0 else 0.10) * (number > 7)
    density *= cage * tangent
    return density


def heart_and_mediastinum(x: Floats, y: Floats, patient: Patient, pose: Pose) -> Floats:
    """How much of the lung's air heart, great vessels and hila displace, in [0, 1]; the heart is on the image right."""
    supine = pose.view == "AP"
    middle = np.float32(pose.turn)
    size = np.float32(patient.heart * (1.08 if supine else 0.98))
    cos, sin = np.float32(np.cos(patient.heart_tilt)), np.float32(np.sin(patient.heart_tilt))
    hx, hy = x - middle - 0.13, y - 0.19
    ventricle = 1 - np.square((cos * hx + sin * hy) / (0.36 * size)) - np.square((cos * hy - sin * hx) / (0.25 * size))
    atrium = 1 - np.square((x - middle + 0.04) / (0.15 * size)) - np.square((y - 0.16) / 0.24)
    knob = 1 - np.square((x - middle - 0.07) / 0.10) - np.square((y + 0.30) / 0.11)
    half = np.float32(0.16 if supine else 0.14) - 0.04 * np.square(y + 0.5)
    strip = 1 - np.square((x - middle) / half)
    solid: Floats = np.sqrt(np.clip(np.maximum(np.maximum(ventricle, atrium), np.maximum(knob, strip)), 0, 1))
    hila = np.square((np.abs(x - middle) - 0.16) / 0.07) + np.square((y + 0.04) / 0.10)
    blurred: Floats = np.float32(0.4) * np.exp(-hila)
    shadow: Floats = np.maximum(solid, blurred)
    return shadow


def spine_and_trachea(x: Floats, y: Floats) -> Floats:
    """The spine with its discs, and the dark trachea in front of it."""
    spine = np.clip((0.10 - np.abs(x)) / 0.025, 0, 1) * (0.11 + 0.03 * np.cos(y * np.float32(2 * np.pi / 0.105)))
    trachea = np.clip(1 - np.square((x - 0.005) / 0.045), 0, 1) * np.clip((-0.24 - y) / 0.05, 0, 1)
    density: Floats = spine - np.float32(0.11) * np.sqrt(trachea)
    return density


def strokes(size_px: int, pose: Pose, lines: list[Stroke], blur: float = 0.0) -> Floats:
    """Draw `lines`, the later over the earlier, softened over `blur`: float32 (size_px, size_px) in [0, 1]."""
    canvas = Image.new("L", (2 * size_px, 2 * size_px))
    draw = ImageDraw.Draw(canvas)
    points = pose.to_picture(np.concatenate([line[0] for line in lines]), 2 * size_px).tolist()
    begin = 0
    for path, width, strength in lines:
        width_px = width * pose.scale * size_px
        corners = [(across, down) for across, down in points[begin : begin + len(path)]]
        begin += len(path)
        # A line thinner than a pixel of the canvas is drawn a pixel wide and fainter.
        fill = round(255 * strength * min(1.0, width_px))
        draw.line(corners, fill, max(1, round(width_px)), "curve" if width_px > 4 else None)
    picture = canvas.reduce(2)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur * pose.scale * size_px / 2))
    return np.asarray(picture, np.float32) / np.float32(255)


def shoulders(patient: Patient, pose: Pose, size_px: int) -> Floats:
    """Clavicles, shoulder blades and upper arms, in [0, 1]."""
    lift = -0.06 if pose.view == "AP" else 0.0
    clavicle = np.array(
        [(0.07, -0.53), (0.15, -0.545), (0.26, -0.60), (0.38, -0.655), (0.52, -0.68), (0.66, -0.69), (0.78, -0.70)]
    )
    blade = np.array([(0.80, -0.60), (0.70, -0.48), (0.655, -0.30), (0.60, -0.10), (0.575, 0.02), (0.60, 0.06)])
    spine_of_blade = np.array([(0.60, -0.50), (0.72, -0.60), (0.84, -0.66)])
    arm = np.array([(0.90, -0.57), (0.95, -0.40), (1.02, 0.1), (1.08, 0.7)])
    lines = []
    for mirror in (-1, 1):
        flip = np.array([mirror, 1.0])
        shoulder = np.array([pose.turn * 1.5, lift])
        head = arm[:1] * flip + [[0, -0.01], [0.01, 0.01]]
        lines += [(arm * flip, 0.10, 0.8), (arm * flip, 0.07, 0.6), (head, 0.15, 0.65)]
        lines += [(blade * flip, 0.035, 0.25), (spine_of_blade * flip, 0.05, 0.35)]
        bow = np.sin(np.linspace(0, 2 * np.pi, len(clavicle)))[:, None] * [0, 0.012 * patient.rib_tilt]
        lines += [((clavicle + bow) * flip + shoulder, 0.052, 0.62), ((clavicle + bow) * flip + shoulder, 0.036, 0.46)]
    return strokes(size_px, pose, lines, blur=0.008)


def vessels(patient: Patient, radii: list[Table], visceral: list[Table], pose: Pose, size_px: int) -> Floats:
    """The vessels of both lungs, in [0, 1]: they fork and thin out from the hila, and shrink with a collapsed lung."""
    rng = np.random.default_rng(patient.vessel_seed)
    generations: list[list[Stroke]] = []
    for side, mirror in enumerate((-1, 1)):
        roots = 11
        points = np.tile([0.13, -0.08 + 0.03 * side], (roots, 1)) + rng.normal(0, 0.03, (roots, 2))
        headings = np.linspace(-0.35, np.pi + 0.15, roots) + rng.normal(0, 0.12, roots)
        width = 0.024
        for generation in range(5):
            steps = headings[:, None] + np.cumsum(rng.normal(0, 0.14, (len(headings), 5)), axis=1)
            length = 0.030 * 0.93**generation * rng.uniform(0.7, 1.4, (len(headings), 1, 1))
            walk = np.cumsum(np.stack([np.sin(steps), -np.cos(steps)], -1) * length, axis=1)
            paths = np.concatenate([points[:, None], points[:, None] + walk], axis=1)
            if len(generations) <= generation:
                generations.append([])
            generations[generation] += [
                (path * [mirror, 1.0], width, 0.75 * 0.85**generation)
                for path in _collapsed(paths, radii[side], visceral[side])
                if len(path) > 1
            ]
            points = np.repeat(paths[:, -1], 2, axis=0)
            fork = np.tile([-0.38, 0.38], len(steps)) + rng.normal(0, 0.15, 2 * len(steps))
            headings = np.repeat(steps[:, -1], 2) + fork
            width *= 0.66
    lines = [line for generation_lines in reversed(generations) for line in generation_lines]
    return strokes(size_px, pose, lines, blur=0.0025)


def _collapsed(paths: Table, radius: Table, visceral: Table) -> list[Table]:
    """Cut `paths` (n, steps, 2) at the edge of the full lung, then draw them in to the visceral pleura."""
    centre = np.array(LUNG_CENTRE)
    spokes = paths - centre
    angles = np.arctan2(spokes[..., 0], -spokes[..., 1])
    share = np.hypot(spokes[..., 0], spokes[..., 1]) / np.interp(angles, ANGLES, radius)
    inside = np.cumprod(share < 0.97, axis=1).sum(axis=1)
    drawn = centre + spokes * np.interp(angles, ANGLES, visceral)[..., None]
    return [path[:kept] for path, kept in zip(drawn, inside, strict=True)]


def uneven(rng: np.random.Generator, size_px: int, cells: int, strength: float) -> Floats:
    """A smooth random field around 1, the same at every size: float32 (size_px, size_px)."""
    coarse = Image.fromarray(rng.normal(1, strength, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size_px, size_px), Image.Resampling.BICUBIC))
