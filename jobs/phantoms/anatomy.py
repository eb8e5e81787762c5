"""The anatomy of phantoms: the lengths of a patient, and the beam's path through each organ.

The function of an organ returns path lengths in cm, float32 (H, W) of its canvas. x points to the
viewer's right from the midline, y down from the apex of the lungs, both in cm.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from jobs.phantoms.projection import LAYER_UNIT, Canvas, Floats, Point, enlarge, union

# Linear attenuation at about 70 keV in 1/cm; that of bone is added to that of soft tissue.
SOFT_TISSUE, BONE, METAL = 0.20, 0.42, 2.0
# Density of lung relative to soft tissue.
LUNG_DENSITY = 0.27


@dataclass(frozen=True)
class Lung:
    """The outline of one lung field, as distances u >= 0 from the midline; lengths in cm."""

    side: int  # -1: the viewer's left, 1: the viewer's right
    width: float  # midline to ribs at the widest level
    apex: Point
    medial: float  # midline to the medial border
    widest: float  # y of the widest level
    power: float  # of the outline; 2 makes it an ellipse
    dome: Point  # top of the diaphragm
    sulcus: float  # from the dome down to the costophrenic angle

    def lateral(self, y: Any) -> Any:
        """u of the outline at the ribs."""
        rise = np.clip((self.widest - y) / (self.widest - self.apex[1]), 0, 1)
        below = np.clip(y / self.widest - 1, 0, 1)
        outline = (1 - rise**self.power) ** (1 / self.power) - 0.3 * below**2
        return self.apex[0] + (self.width - self.apex[0]) * outline

    def border(self, y: Any) -> Any:
        """u of the outline at the mediastinum."""
        rise = np.clip(1 - (y - self.apex[1]) / (0.32 * self.widest), 0, 1)
        return self.apex[0] + (self.medial - self.apex[0]) * (1 - rise**2.2) ** (1 / 2.2)

    def diaphragm(self, u: Any) -> Any:
        """y of the diaphragm."""
        x, y = self.dome
        outer, inner = np.clip((u - x) / (self.width - x), 0, 1.3), np.clip(1 - u / x, 0, 1)
        return y + self.sulcus * (outer**2.4 + 0.22 * inner**2)

    def field(self, canvas: Canvas) -> Floats:
        """The approximate distance to the outline in cm, negative outside the lung field."""
        u, y = self.side * canvas.x, canvas.y
        sides: Floats = np.minimum(self.lateral(y) - u, u - self.border(y))
        ends: Floats = np.minimum(y - self.apex[1], self.diaphragm(u) - y)
        return np.minimum(sides, ends)


@dataclass(frozen=True)
class Patient:
    """One patient; lengths in cm."""

    lungs: tuple[Lung, Lung]
    width: float  # midline to ribs
    height: float  # apex to costophrenic angle
    depth: float  # front to back between the ribs
    wall: float  # ribs to skin
    arms: float  # radians below the horizontal
    chin: float  # y

    @classmethod
    def sample(cls, rng: Generator) -> Patient:
        width = rng.uniform(11.5, 14.5)
        height = 2 * width / rng.uniform(0.98, 1.5)
        medial, sulcus = width * rng.uniform(0.14, 0.22), height * rng.uniform(0.12, 0.24)
        power, lift = rng.uniform(1.9, 2.6), height * rng.uniform(0.0, 0.09)

        def lung(side: int) -> Lung:
            ribs, drop = width * rng.normal(1, 0.03), sulcus * rng.uniform(0.85, 1.15)
            # The liver lifts the patient's right half of the diaphragm, on the viewer's left.
            drop += 0.6 * lift if side < 0 else 0.0
            apex = (ribs * rng.uniform(0.36, 0.46), height * rng.normal(0, 0.012))
            dome = (ribs * rng.uniform(0.36, 0.5), height * rng.uniform(0.98, 1.02) - drop)
            widest = height * rng.uniform(0.8, 0.95)
            return Lung(side, ribs, apex, medial * rng.normal(1, 0.1), widest, power, dome, drop)

        depth, wall = width * rng.uniform(1.1, 1.45), rng.uniform(1.0, 3.6)
        arms = rng.uniform(0.7, 1.3) if rng.random() < 0.5 else rng.uniform(-1.2, 0.3)
        chin = height * rng.uniform(-0.6, -0.12)
        return cls((lung(-1), lung(1)), width, height, depth, wall, arms, chin)


def chest_air(canvas: Canvas, patient: Patient, lung: Lung) -> Floats:
    """The air of one lung before the mediastinum is subtracted."""
    u, y = lung.side * canvas.x, canvas.y
    rise = np.clip((y - lung.apex[1]) / (0.5 * patient.height), 0, 1)
    root = np.clip((u - lung.border(y)) / (0.16 * patient.width), 0, 1)
    chord = 1 - (u / np.maximum(lung.lateral(y), 0.1)) ** 4
    chord = np.maximum(chord, 0) * (1 - (1 - rise) ** 2) * (1 - (1 - root) ** 2)
    liver = 3 * np.sqrt(patient.width * np.maximum(y - lung.diaphragm(u), 0))
    air: Floats = np.maximum(patient.depth * np.sqrt(chord) - liver, 0)
    return air


def mediastinum(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Heart, great vessels and hila."""
    w, h, floor = patient.width, patient.height, patient.lungs[1].dome[1]
    half, neck = w * rng.uniform(0.42, 0.62), w * rng.uniform(0.17, 0.25)
    thick, tilt = patient.depth * rng.uniform(0.52, 0.7), rng.uniform(0.4, 0.9)
    shift, level = half * rng.uniform(0.24, 0.38), floor - half * rng.uniform(0.3, 0.55)
    organs = union(
        canvas.ball((shift, level), (half * 1.02, half * 0.78), thick, tilt),  # ventricles
        canvas.ball((-0.28 * half, level), (half * 0.5, half * 0.72), thick * 0.75),  # atrium
        canvas.rod((0.1 * neck, -h), (0.3 * neck, level), neck * 0.9, 1.5),  # great vessels
        canvas.ball((0.75 * neck, h * rng.uniform(0.24, 0.32)), (0.13 * w, 0.14 * w), 5.0),  # knob
        canvas.ball((neck, 0.42 * h), (0.16 * w, 0.17 * w), 5.0),  # pulmonary trunk
        canvas.ball((-0.27 * w, 0.44 * h), (0.09 * w, 0.12 * w), 3.0),  # hila
        canvas.ball((0.29 * w, 0.41 * h), (0.09 * w, 0.12 * w), 3.0),
    )
    return organs + 0.5 * canvas.rod((0.7 * neck, 0.3 * h), (0.45 * neck, 1.4 * h), 0.08 * w)


def trachea(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    h, radius = patient.height, patient.width * rng.uniform(0.05, 0.07)
    start, end = (rng.normal(0, 0.3), -h), (rng.normal(-0.2, 0.2), h * rng.uniform(0.3, 0.36))
    return canvas.rod(start, end, radius)


def body(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """From skin to skin: torso, neck, head, shoulders, arms and, in some patients, breasts."""
    w, h, wall = patient.width, patient.height, patient.wall
    waist = (w + wall) * (1 + rng.uniform(-0.12, 0.08) * np.clip(canvas.y / h, 0, 2))
    square = (canvas.x / waist) ** 2
    top = np.maximum(rng.uniform(0.12, 0.32) - canvas.y / h, 0) / rng.uniform(0.3, 0.5)
    chord = 1 - square * np.sqrt(square) - top**2
    parts = [(patient.depth + 1.4 * wall) * np.sqrt(np.maximum(chord, 0))]
    parts.append(canvas.rod((0, -2 * h), (0, 0.15 * h), w * rng.uniform(0.24, 0.42), 1.1))
    parts.append(canvas.ball((0, patient.chin - 0.5 * w), (0.62 * w, 0.62 * w), w))
    bust = rng.uniform(1.2, 2.2) if rng.random() < 0.3 else 0.0
    girth, slope = 0.2 * w + 0.45 * wall, rng.uniform(0.0, 0.2) * h
    breasts, thick = np.zeros(canvas.shape, np.float32), w * rng.uniform(0.24, 0.4)
    for side in (-1, 1):
        joint = (side * (1.18 * w + 0.5 * wall), slope + rng.normal(0, 0.03) * h)
        angle = patient.arms + rng.normal(0, 0.12)
        end = (joint[0] + side * 30 * math.cos(angle), joint[1] + 30 * math.sin(angle))
        parts.append(canvas.rod((0, 0.02 * h), joint, thick, 1.15 * girth / thick))
        parts.append(canvas.rod(joint, end, 1.1 * girth, 0.8))
        center = (side * w * rng.uniform(0.48, 0.6), h * rng.uniform(0.66, 0.84))
        radii = (w * rng.uniform(0.36, 0.46), h * rng.uniform(0.22, 0.3))
        breasts += canvas.ball(center, radii, bust) ** 2
    return union(*parts) + breasts


def disease(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """The share of the lungs' air, 0..1, that consolidations, nodules or haze replace."""
    ragged = 0.2 * canvas.noise(rng, 0.5) + 0.25 * canvas.noise(rng, 1.0)
    ragged += 0.4 * canvas.noise(rng, 2.4)
    haze = rng.uniform(0.1, 0.3) if rng.random() < 0.35 else 0.0
    share, nodular = np.full(canvas.shape, haze, np.float32), rng.random() < 0.33
    for _ in range(rng.integers(6, 30) if nodular else rng.integers(1, 5)):
        side = 1 if rng.random() < 0.5 else -1
        x = side * patient.width * rng.uniform(0.3, 0.85)
        y = patient.height * rng.uniform(0.12, 0.85)
        wide = rng.uniform(0.3, 1.2) if nodular else patient.width * rng.uniform(0.15, 0.5)
        strength, tall = rng.uniform(0.3, 0.9), wide * rng.uniform(0.7, 1.5)
        spot = np.exp(-(((canvas.x - x) / wide) ** 2) - ((canvas.y - y) / tall) ** 2)
        share += strength * (0.35 if nodular else 1.0) * spot
    opacity: Floats = np.clip(share * np.clip(1 + ragged, 0.4, 1.6), 0, 0.92)
    return opacity


def bowel_gas(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Up to three bubbles below the diaphragm on the viewer's right."""
    lung, w = patient.lungs[1], patient.width
    gas = np.zeros(canvas.shape, np.float32)
    for number in range(rng.integers(0, 4)):
        x, wide, tall = (w * rng.uniform([0.1, 0.1, 0.08], [0.72, 0.25, 0.18])).tolist()
        y = float(lung.diaphragm(x)) + 0.6 + tall + number * rng.uniform(0.5, 2.5)
        gas = np.maximum(gas, canvas.ball((x, y), (wide, tall), 1.4 * tall, rng.normal(0, 0.3)))
    below: Floats = np.clip(2 * (canvas.y - lung.diaphragm(canvas.x)) - 1, 0, 1)
    return gas * below


def ribs(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Twelve pairs of ribs, each half an ellipse that descends towards the front."""
    behind, front = np.zeros((2, *canvas.shape), np.uint8)
    h, slope = patient.height, rng.uniform(0.22, 0.42)
    thick, path = 0.02 * h * rng.uniform(0.85, 1.25), rng.uniform(0.75, 1.1)
    for lung, number in itertools.product(patient.lungs, range(12)):
        start, drop = h * (0.1 * number - 0.02), h * slope * min(1.6, 0.42 + 0.11 * number)
        reach = float(lung.lateral(start + drop / 2)) + 0.1
        end = math.pi - 0.4 if number < 7 else math.pi * (0.46 + 0.3 / (number - 5))
        angle = np.linspace(math.asin(1.0 / reach), end, 48)
        hump = 0.05 * h * np.sin(np.clip(2 * angle, 0, math.pi))
        y = start + drop * (1 - np.cos(angle)) / 2 - hump
        line = np.stack([lung.side * reach * np.sin(angle), y], 1)
        turn, half = int(np.sum(angle < math.pi / 2)), thick * (1 if number < 8 else 0.75)
        canvas.bone(behind, line[: turn + 2], half, path)
        if turn < 46:
            canvas.bone(front, line[turn - 2 :], half, path * 0.8)
    # Towards the breastbone the ribs turn into cartilage, which is invisible.
    sternal: Floats = np.clip((np.abs(canvas.x) / patient.width - 0.4) / 0.25, 0, 1)
    return canvas.paths(behind, 0.045) + canvas.paths(front, 0.06) * sternal


def spine(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Vertebral bodies and discs, with pedicles and spinous processes."""
    half, spacing = patient.width * rng.uniform(0.1, 0.13), patient.height * 0.1
    near = np.abs(canvas.x[0]) < 1.3 * half
    x = np.abs(canvas.x[:, near] / half)
    phase = np.abs((canvas.y / spacing + rng.random()) % 1 * 2 - 1)  # 0 mid-body, 1 mid-disc
    endplate = 0.25 * np.exp(-(((phase - 0.76) / 0.09) ** 2))
    level = 0.35 + 0.4 / (1 + np.exp((phase - 0.84) * 26)) + endplate
    column = level * np.sqrt(np.maximum(1 - (x / (0.9 + 0.12 * phase**2)) ** 2, 0))
    ring = ((x - 0.62) / 0.24) ** 2 + ((phase - 0.3) / 0.26) ** 2
    process = np.exp(-((x / 0.16) ** 2) - ((phase - 0.2) / 0.25) ** 2)
    whole = np.zeros(canvas.shape, np.float32)
    whole[:, near] = rng.uniform(0.6, 1.3) * column + 0.35 * np.exp(-2 * (ring - 1) ** 2)
    whole[:, near] += 0.3 * process
    return whole


def shoulders(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Clavicles, upper arms, the outer edges of the scapulae, and the jaw above them."""
    w, h = patient.width, patient.height
    sharp, faint = np.zeros((2, *canvas.shape), np.uint8)
    share = np.linspace(0, 1, 40)[:, None]
    jaw = 0.52 * w * np.concatenate([np.cos(math.pi * share), np.sin(math.pi * share) - 1.06], 1)
    canvas.bone(sharp, jaw + np.array([0, patient.chin]), 0.07 * w, 1.6)
    for side in (-1, 1):
        inner, outer = h * rng.uniform(0.1, 0.17), h * rng.uniform(-0.1, 0.05)
        x = side * w * (0.14 + share * rng.uniform(0.9, 1.05))
        y = inner + (outer - inner) * share + 0.035 * h * np.sin(2 * math.pi * share)
        thick = 0.042 * w * (0.75 + 0.5 * (1 - 2 * share[:, 0]) ** 2)
        canvas.bone(sharp, np.concatenate([x, y], 1), thick, 1.3)
        joint = np.array([side * w * 1.17, outer + 0.09 * h])
        tip = np.array([side * w * rng.uniform(0.86, 1.02), h * rng.uniform(0.55, 0.7)])
        canvas.bone(faint, tip + (joint - tip) * share, 0.03 * w, 0.5)
        along = w * np.array([side * math.cos(patient.arms), math.sin(patient.arms)])
        arm = joint + [side * 0.08 * w, 0.0] + along * (2.2 * share - 0.1)
        canvas.bone(sharp, arm, 0.075 * w * (1 + 0.75 * np.exp(-12 * share[:, 0])), 1.2)
    return canvas.paths(sharp, 0.045) + canvas.paths(faint, 0.14)


def vessels(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Vessels that branch from each hilum outwards, thinner after every branching."""
    layer = np.zeros(canvas.shape, np.uint8)
    side = np.repeat([-1.0, 1.0], 9)
    hila = np.stack([side * 0.26 * patient.width, np.full(18, 0.43 * patient.height)], 1)
    start, angle = hila + rng.normal(0, 0.5, (18, 2)), np.tile(np.linspace(-1.3, 1.4, 9), 2)
    width = rng.uniform(0.45, 0.9, 18)
    for _ in range(6):
        bend = angle[:, None] + rng.normal(0, 0.25, (len(side), 1)) * np.linspace(0, 1, 6)
        steps = np.stack([side[:, None] * np.cos(bend), np.sin(bend)], 2)
        run = rng.uniform(0.015, 0.033, (len(side), 1, 1)) * patient.width
        lines = start[:, None] + np.cumsum(np.concatenate([0 * steps[:, :1], steps * run], 1), 1)
        for line, thick in zip(canvas.pixels(lines), width / canvas.pitch, strict=True):
            path = min(1.0, thick) * thick * canvas.pitch / LAYER_UNIT
            cv2.polylines(layer, [line], False, (path,), max(1, round(thick)), cv2.LINE_AA, 4)
        side, start, width = (np.repeat(a, 2, 0) for a in (side, lines[:, -1], width * 0.72))
        fork = rng.uniform(0.15, 0.6, len(side)) * np.tile([-1, 1], len(side) // 2)
        angle, width = np.repeat(bend[:, -1], 2) + fork, width * rng.uniform(0.8, 1.15, len(side))
    return canvas.paths(layer, 0.06)


def leads(canvas: Canvas, patient: Patient, rng: Generator) -> Floats:
    """Wires or tubes across the chest of some patients, some with an electrode at the end."""
    layer, share = np.zeros(canvas.shape, np.uint8), np.linspace(0, 1, 40)[:, None]
    reach = np.array([1.1 * patient.width, 0.6 * patient.height])
    for _ in range(rng.integers(1, 4) if rng.random() < 0.3 else 0):
        a, b, c = reach * rng.uniform([-1, -0.6], [1, 1.4], (3, 2))
        curve = (1 - share) ** 2 * a + 2 * share * (1 - share) * b + share**2 * c
        canvas.bone(layer, curve, rng.uniform(0.06, 0.12), rng.uniform(0.15, 0.6))
        if rng.random() < 0.5:
            x, y = canvas.pixels(curve[-1]).tolist()
            cv2.circle(layer, (x, y), round(9.6 / canvas.pitch), (60,), -1, cv2.LINE_AA, 4)
    return canvas.paths(layer, 0.045)


def optical_depth(
    soft: Canvas, sharp: Canvas, patient: Patient, abnormal: bool, rng: Generator
) -> Floats:
    """Line integrals of the attenuation (no unit), float32 (H, W) of the canvas `sharp`.

    Soft tissue is drawn on the coarser canvas `soft` and enlarged; bone, vessels and metal are
    drawn on `sharp`.
    """
    air = chest_air(soft, patient, patient.lungs[0]) + chest_air(soft, patient, patient.lungs[1])
    air = np.maximum(air - mediastinum(soft, patient, rng), 0)
    if abnormal:
        # Random numbers of a separate stream: disease changes nothing else about the patient.
        air *= 1 - disease(soft, patient, rng.spawn(1)[0])
    tissue = body(soft, patient, rng) * (1 + 0.004 * soft.noise(rng, 3.0))
    tissue -= np.minimum(trachea(soft, patient, rng), 0.3 * tissue) + bowel_gas(soft, patient, rng)
    tissue -= (1 - LUNG_DENSITY) * air
    size = sharp.shape[::-1]
    aerated = np.clip(enlarge(air / (0.35 * patient.depth), size), 0, 1)
    depth = SOFT_TISSUE * np.maximum(enlarge(tissue, size), 0)
    grain = sharp.noise(rng, 0.45) + 0.5 * sharp.noise(rng, 1.6)
    depth += SOFT_TISSUE * aerated * (1.7 * vessels(sharp, patient, rng) + 0.12 * grain)
    bone = ribs(sharp, patient, rng) + shoulders(sharp, patient, rng) + spine(sharp, patient, rng)
    return depth + BONE * bone * (1 + 0.06 * grain) + METAL * leads(sharp, patient, rng)
