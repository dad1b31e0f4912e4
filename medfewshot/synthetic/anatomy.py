"""The abdomen, painted from the outside in: later organs cover earlier ones. Lengths in mm, intensities in HU.

Patient frame: x to the right, y to the front, z to the head; the origin lies in front of the first lumbar vertebra.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import zoom

from medfewshot.synthetic import organs, shapes
from medfewshot.synthetic.canvas import WHOLE, Canvas, Patient
from medfewshot.synthetic.shapes import ellipsoid, smooth_field, tube


def paint_abdomen(canvas: Canvas, patient: Patient) -> None:
    """Fill ``canvas`` (image and label) with one patient."""
    cavity = _paint_body(canvas, patient)
    _paint_back(canvas, patient)
    _paint_bowel(canvas, patient, cavity)
    dome = _paint_chest(canvas, patient, cavity)
    organs.paint_stomach(canvas, patient, cavity, dome)
    organs.paint_vessels(canvas, patient)
    organs.paint_spleen(canvas, patient, cavity, dome)
    organs.paint_liver(canvas, patient, cavity, dome)
    organs.paint_kidneys(canvas, patient)
    _paint_spine(canvas, patient)


def _paint_body(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Couch, skin, fat rim, muscle wall, ribs. Returns the signed distance to the cavity's inner wall, ``(*S)``."""
    x, y, _ = canvas.points
    canvas.paint(WHOLE, np.abs(np.hypot(x, y - 420) - 420 - patient.depth_mm - 9) - 3, -40)
    a, b, power = patient.width_mm, patient.depth_mm, 2.35
    radius = ((np.abs(x) / a) ** power + (np.abs(y) / b) ** power) ** (1 / power)
    body = (radius - 1) * b
    body += 10 * np.exp(-((x / 14) ** 2)) * np.clip(-y / b, 0, 1) ** 6  # the furrow along the spine
    fat = patient.fat_mm * (1 + 0.35 * y / b)
    canvas.paint(WHOLE, body, 5)
    canvas.paint(WHOLE, body + 2.5, patient.hu(-104, 3))
    canvas.paint(WHOLE, body + fat, patient.hu(58, 4))
    wall = body + fat
    cavity = wall + 8 + 4 * np.clip(-y / b, 0, 1)
    canvas.paint(WHOLE, cavity, patient.hu(-102, 3))
    _paint_ribs(canvas, patient, wall + 6)
    return cavity


def _paint_ribs(canvas: Canvas, patient: Patient, wall: np.ndarray) -> None:
    """Twelve pairs slope down to the front; below the costal margin there are none."""
    x, y, z = canvas.points
    pitch = 27.0
    height = (z + 0.5 * y + patient.rng.uniform(0, pitch)) / pitch
    across = (height - np.round(height)) * pitch * 0.8
    rib = np.hypot(wall * 1.2, across) - 5.5
    margin = -35 + 0.75 * np.maximum(y, 0) - z
    rib = np.maximum(rib, np.maximum(margin, 34 - np.abs(x) - 60 * (y > 0)))
    canvas.paint(WHOLE, rib, patient.hu(380, 25))
    canvas.paint(WHOLE, rib + 3, patient.hu(180, 15))


def _paint_back(canvas: Canvas, patient: Patient) -> None:
    """Erector spinae beside the spinous processes, psoas beside the lumbar bodies."""
    depth = patient.depth_mm - patient.fat_mm * 0.65
    muscle = patient.hu(62, 4)
    for side in (-1, 1):
        canvas.paint_tube([(side * 30, -depth + 19, -150), (side * 26, -depth + 16, 150)], (23, 15), muscle)
        path = [(side * 24, -depth + 42, 15), (side * 36, -depth + 44, -60), (side * 46, -depth + 52, -150)]
        canvas.paint_tube(path, (5, 16, 23), muscle)


def _paint_bowel(canvas: Canvas, patient: Patient, cavity: np.ndarray) -> None:
    """Small bowel as packed loops (Voronoi cells), colon as a frame of tubes with stool and gas."""
    rng = patient.rng
    region = canvas.region((-100, -32, -150), (100, 92, -12))
    points = canvas.points[(slice(None), *region)]
    if 0 not in points.shape:
        seeds = rng.uniform((-100, -32, -160), (100, 92, -12), (120, 3)) / (1, 1, 1.3)
        coarse = points[:, ::2, ::2, ::2] / np.array([1, 1, 1.3], dtype=np.float32).reshape(3, 1, 1, 1)
        index, distance, gap = shapes.cells(coarse, seeds)
        factors = [n / m for n, m in zip(points.shape[1:], index.shape, strict=True)]
        contents = rng.choice([32.0, 45, 62, 85, 130, -300], size=len(seeds), p=[0.3, 0.25, 0.2, 0.15, 0.07, 0.03])
        loop = zoom(np.maximum(distance - 19, 1.2 - gap), factors, order=1, grid_mode=True, mode="nearest")
        fill = zoom(contents[index], factors, order=0, grid_mode=True, mode="nearest")
        low = ellipsoid(points, (0, 28, -95), (98, 66, 82))
        loop = np.maximum(loop, np.maximum(low, cavity[region] + 8))
        canvas.paint(region, loop, patient.hu(88))
        canvas.paint(region, loop + 3, fill)
    for path in (
        [(108, -22, -150), (112, -18, -70), (104, 5, -38)],
        [(-112, -30, -150), (-116, -32, -70), (-112, -20, -5)],
        [(100, 30, -42), (50, 66, -52), (-40, 68, -40), (-108, -5, 0)],
    ):
        _paint_colon(canvas, patient, path, cavity)


def _paint_colon(canvas: Canvas, patient: Patient, path: list, cavity: np.ndarray) -> None:
    calibre = patient.rng.uniform(14, 21, len(path))
    region = canvas.region(np.min(path, axis=0) - 22, np.max(path, axis=0) + 22)
    points = canvas.points[(slice(None), *region)]
    haustra = 2.2 * np.sin(points.sum(axis=0) / 6)
    colon = np.maximum(tube(points, path, calibre) + haustra, cavity[region] + 4)
    canvas.paint(region, colon, patient.hu(75))
    stool = 25 + 45 * smooth_field(patient.rng, points.shape[1:], 14, 1)[0]
    canvas.paint(region, colon + 3, stool)
    level = np.interp(points[0], np.sort([p[0] for p in path]), [p[1] for p in sorted(path)]) + 5
    canvas.paint(region, np.maximum(colon + 4, level - points[1]), -900.0)


def _paint_chest(canvas: Canvas, patient: Patient, cavity: np.ndarray) -> np.ndarray:
    """Lungs above the two domes of the diaphragm, heart between them. Returns the height above it, ``(*S)``."""
    x, y, z = canvas.points
    right, left = patient.rng.normal((84, 74), 7)
    domes = [apex - 68 * (((x - cx) / 92) ** 2 + ((y - 8) / 92) ** 2) for apex, cx in ((right, 74), (left, -74))]
    dome = z - np.logaddexp(domes[0] / 6, domes[1] / 6) * 6
    mediastinum = 30 - np.abs(x + 4) + 0.2 * np.abs(y + 20)
    lung = np.maximum(np.maximum(cavity + 1, -dome * 0.8), mediastinum)
    canvas.paint(WHOLE, np.maximum(np.maximum(cavity, -dome * 0.8 - 4), dome * 0.8 - 2), patient.hu(55))
    vessels = smooth_field(patient.rng, canvas.image.shape, 26, 1)[0]
    canvas.paint(WHOLE, lung, -870 + 30 * vessels + 600 * np.clip(vessels - 1.9, 0, 1))
    centre, radii = patient.place((-22, 38, 118), (62, 48, 50))
    region = canvas.around(centre, radii)
    heart = ellipsoid(canvas.points[(slice(None), *region)], centre, radii, (0, 20, 20))
    canvas.paint(region, heart, patient.hu(70))
    canvas.paint(region, heart + 9, patient.enhanced(50, 110))
    return dome


def _paint_spine(canvas: Canvas, patient: Patient) -> None:
    """Vertebral bodies and discs, canal, arch, transverse and spinous processes."""
    back = -patient.depth_mm + patient.fat_mm * 0.65
    region = canvas.region((-48, back - 5, -400), (48, back + 75, 400))
    x, y, z = canvas.points[(slice(None), *region)]
    level = (z + patient.rng.uniform(0, 34)) / 34
    across = np.abs(level - np.round(level)) * 34  # distance to the middle of the nearest vertebra
    waist = 2.0 * (1 - across / 17)
    body = (np.hypot(x / 23, (y - back - 42) / 17) - 1) * 17 + waist
    canvas.paint(region, body, patient.hu(95))
    bone = np.maximum(body, across - 13)
    canvas.paint(region, bone, patient.hu(470, 30))
    canvas.paint(region, bone + 2.5, patient.hu(215, 20) + 18 * smooth_field(patient.rng, z.shape, 20, 1)[0])
    canal = np.hypot(x, y - back - 15) - 9
    arch = np.maximum(canal - 6, np.maximum(across - 11, y - back - 30))
    spinous = np.maximum(np.abs(x) - 3.5, np.maximum(np.abs(y - back - 2) - 11, np.abs(across - 6) - 7))
    side = np.maximum(np.hypot(y - back - 20, across) - 5.5, np.abs(x) - 40)
    for part in (arch, spinous, side):
        canvas.paint(region, part, patient.hu(420, 30))
    canvas.paint(region, canal, patient.hu(28, 3))
    canvas.paint(region, np.hypot(x, y - back - 15) - 5, patient.hu(45, 3))
