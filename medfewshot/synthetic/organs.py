"""The upper abdominal organs, each an implicit surface. Lengths in mm, intensities in HU; frame as in ``anatomy``."""

from __future__ import annotations

import numpy as np

from medfewshot.synthetic import shapes
from medfewshot.synthetic.canvas import LEFT_KIDNEY, LESION, LIVER, RIGHT_KIDNEY, SPLEEN, Canvas, Patient, Region
from medfewshot.synthetic.shapes import ellipsoid, smooth_field, tube


def paint_stomach(canvas: Canvas, patient: Patient, cavity: np.ndarray, dome: np.ndarray) -> None:
    """Wall, fluid, and the air that gathers at the front of a patient lying on the back; the pancreas behind it."""
    shift = patient.rng.normal(0, 5, 3)
    path = np.array([(-68, -12, 62), (-70, 22, 40), (-54, 48, 12), (-18, 56, -6), (22, 44, -10)]) + shift
    region = canvas.region(path.min(axis=0) - 42, path.max(axis=0) + 42)
    points = canvas.points[(slice(None), *region)]
    size = patient.rng.uniform(0.8, 1.15)
    stomach = np.maximum(tube(points, path.tolist(), np.array((30, 34, 29, 20, 12)) * size), cavity[region] + 4)
    stomach = np.maximum(stomach, dome[region] + 6)
    canvas.paint(region, stomach, patient.enhanced(40, 45))
    canvas.paint(region, stomach + 4, patient.hu(22) + 9 * smooth_field(patient.rng, points.shape[1:], 10, 1)[0])
    level = 40 + shift[1] + patient.rng.uniform(-10, 8)
    canvas.paint(region, np.maximum(stomach + 4.5, level - points[1]), -960.0)
    duct = np.array([(34, 8, -32), (26, 18, -12), (0, 14, 4), (-40, -6, 14), (-78, -24, 26)]) + shift / 2
    region = canvas.region(duct.min(axis=0) - 16, duct.max(axis=0) + 16)
    points = canvas.points[(slice(None), *region)]
    lobules = 1.6 * smooth_field(patient.rng, points.shape[1:], 20, 1)[0]
    canvas.paint(region, tube(points, duct.tolist(), (15, 13, 9, 10, 8)) + lobules, patient.enhanced(40, 60))


def paint_vessels(canvas: Canvas, patient: Patient) -> None:
    front = -patient.depth_mm + patient.fat_mm * 0.65 + 68
    blood, venous = patient.enhanced(45, 155), patient.enhanced(45, 95)
    aorta = [(-16, front - 10, 150), (-10, front - 2, 20), (-6, front + 4, -150)]
    mesenteric = [(-8, front + 2, 8), (-4, front + 26, -10), (2, front + 34, -90)]
    cava = [(20, front + 14, 150), (22, front + 4, 20), (18, front + 2, -150)]
    for path, radius, hu in ((aorta, 11.5, blood), (mesenteric, 4.5, blood), (cava, 12.0, venous)):
        canvas.paint_tube(path, radius, hu)
    renal = [(-40, front - 6, -22), (0, front + 16, -16), (40, front - 6, -30)]
    canvas.paint_tube(renal, 4.5, venous)


def paint_spleen(canvas: Canvas, patient: Patient, cavity: np.ndarray, dome: np.ndarray) -> None:
    centre, radii = patient.place((-98, -34, 32), (38, 58, 54))
    region = canvas.around(centre, radii)
    points = canvas.points[(slice(None), *region)]
    hollow = ellipsoid(points, np.add(centre, (52, 16, -8)), radii * (1.05, 1.0, 1.1))
    spleen = np.maximum(ellipsoid(points, centre, radii, (15, 0, 25)), -hollow)
    spleen = np.maximum(np.maximum(spleen, cavity[region] + 3), dome[region] + 5)
    canvas.paint(region, spleen, patient.enhanced(48, 72), SPLEEN)


def paint_liver(canvas: Canvas, patient: Patient, cavity: np.ndarray, dome: np.ndarray) -> None:
    """Right and left lobe, hollowed from below, with vessels, gallbladder and lesions."""
    centre, radii = patient.place((72, 0, 24), (82, 92, 88), scale=0.06)
    region = canvas.region((-90, -110, -110), (170, 130, 130))
    points = canvas.points[(slice(None), *region)]
    left = ellipsoid(points, np.add(centre, (-78, 44, 22)), radii * (0.8, 0.42, 0.36), (0, -14, 0))
    liver = shapes.smooth_union(ellipsoid(points, centre, radii, (0, -8, 0)), left, 25)
    hollow = ellipsoid(points, np.add(centre, (-76, -10, -82)), radii * (1.15, 1.35, 1.0))
    liver = np.maximum(np.maximum(liver, -hollow), np.maximum(cavity[region] + 3, dome[region] + 5))
    liver = np.maximum(liver, -ellipsoid(points, (54, -62, -38), (42, 40, 66)))  # the kidney's bed
    liver = np.maximum(liver, -tube(points, [(22, -90, 150), (10, -90, -150)], 46))  # spine and great vessels
    tissue = patient.enhanced(58, 52)
    canvas.paint(region, liver, tissue, LIVER)
    for path in _liver_vessels(patient, centre):
        canvas.paint_tube(path, (6.5, 4.5, 2.5), tissue + 45 * patient.enhancement, inside=LIVER)
    _paint_gallbladder(canvas, patient, centre)
    _paint_lesions(canvas, patient, region, liver, tissue)


def _liver_vessels(patient: Patient, centre: np.ndarray) -> list[list]:
    """Portal branches from the hilum and hepatic veins to the vena cava, each three points long, mm."""
    hilum, confluence = np.add(centre, (-32, 4, -18)), np.add(centre, (-48, -26, 42))
    ends = [(38, 8, 4), (24, 44, -6), (18, -48, 8), (-52, 48, 20), (44, -20, -30)]
    veins = [(42, -8, 22), (0, 46, 30), (-46, 46, 30), (34, 30, 30)]
    paths = []
    for start, targets in ((hilum, ends), (confluence, veins)):
        for target in targets:
            end = centre + target + patient.rng.normal(0, 6, 3)
            middle = (start + end) / 2 + patient.rng.normal(0, 6, 3)
            paths.append([start, middle, end])
    return paths


def _paint_gallbladder(canvas: Canvas, patient: Patient, liver_centre: np.ndarray) -> None:
    centre, radii = patient.place(np.add(liver_centre, (-14, 48, -48)), (13, 20, 22), shift=3)
    region = canvas.around(centre, radii)
    bladder = ellipsoid(canvas.points[(slice(None), *region)], centre, radii, (20, 0, 0))
    canvas.paint(region, bladder, patient.hu(60), 0)
    canvas.paint(region, bladder + 2, patient.hu(9, 3))


def _paint_lesions(canvas: Canvas, patient: Patient, region: Region, liver: np.ndarray, tissue: float) -> None:
    """Dark metastases with a soft rim, wholly inside the liver."""
    for _ in range(patient.lesions):
        radius = patient.rng.uniform(8, 17)
        inside = np.argwhere(liver < -radius - 3)
        if not len(inside):
            inside = np.argwhere(liver < 0.5 * liver.min())
        if not len(inside):
            return
        points = canvas.points[(slice(None), *region)]
        centre = points[(slice(None), *inside[patient.rng.integers(len(inside))])]
        radii = radius * np.exp(patient.rng.normal(0, 0.12, 3))
        lesion = ellipsoid(points, centre, radii) + 1.2 * smooth_field(patient.rng, points.shape[1:], 18, 1)[0]
        lesion = np.maximum(lesion, liver)
        canvas.paint(region, lesion, tissue - patient.rng.uniform(28, 48), LESION)
        canvas.paint(region, lesion + 4, tissue - patient.rng.uniform(50, 72))


def paint_kidneys(canvas: Canvas, patient: Patient) -> None:
    """Bright cortex, darker pyramids, a sinus of fat and urine that opens to the middle."""
    cortex, medulla = patient.enhanced(40, 150), patient.enhanced(40, 85)
    for side, height, value in ((1, -36, RIGHT_KIDNEY), (-1, -22, LEFT_KIDNEY)):
        centre, radii = patient.place((side * 64, -46, height), (27, 28, 53), shift=4)
        region = canvas.around(centre, radii)
        points = canvas.points[(slice(None), *region)]
        tilt = (8, side * 12, side * 30)
        hilum = ellipsoid(points, np.add(centre, (-side * 24, 10, 0)), (22, 12, 20))
        kidney = np.maximum(ellipsoid(points, centre, radii, tilt), -hilum)
        canvas.paint(region, kidney, cortex, value)
        sinus = ellipsoid(points, np.add(centre, (-side * 9, 4, 0)), radii * (0.55, 0.4, 0.5), tilt)
        pyramids = smooth_field(patient.rng, points.shape[1:], 16, 1)[0]
        canvas.paint(region, np.maximum(kidney + 7, 2 - 5 * pyramids - 3), medulla)
        canvas.paint(region, np.maximum(sinus, kidney + 3), patient.hu(-55))
        canvas.paint(region, np.maximum(sinus + 5, kidney + 3), patient.hu(18))
