"""Surfaces of structures as STL files, in mm, for 3D printing and planning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from medfewshot.io import atomic_path

SMOOTHING = (0.5, -0.53)
"""Steps of Taubin's smoothing: the second undoes the shrinking of the first."""
ROUNDS = 10
LPS = np.diag([-1.0, -1.0, 1.0])
_HEADER = b"medfewshot. SPACE=LPS"
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def surface_of(mask: np.ndarray, affine: np.ndarray, *, rounds: int = ROUNDS) -> tuple[np.ndarray, np.ndarray]:
    """Compute a closed surface between the voxels of a mask and all others.

    Args:
        mask: ``(X, Y, Z)`` bool.
        affine: ``(4, 4)``, voxel index -> RAS mm.
        rounds: Rounds of smoothing; 0 gives the faces of the voxels.

    Returns:
        Corners ``(V, 3)`` in LPS mm, as 3D Slicer and DICOM have it, and triangles ``(T, 3)`` of corner indices,
        counterclockwise seen from outside.

    References:
        Taubin 1995, "A signal processing approach to fair surface design".
    """
    padded = np.pad(mask, 1)
    quads = [_quads(padded, axis, outward) for axis in range(3) for outward in (1, -1)]
    corners, index = np.unique(np.concatenate(quads).reshape(-1, 3), axis=0, return_inverse=True)
    quad = index.reshape(-1, 4)
    points = corners - 1.5  # the corner of a voxel, in indices of the mask before it was padded
    if rounds and len(quad):
        edges = np.concatenate([quad[:, [i, (i + 1) % 4]] for i in range(4)])
        edges = np.concatenate([edges, edges[:, ::-1]])
        links = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(len(points),) * 2).tocsr()
        links.data[:] = 1
        means = sparse.diags(1 / np.asarray(links.sum(1)).ravel()) @ links
        for _ in range(rounds):
            for step in SMOOTHING:
                points = points + step * (means @ points - points)
    mm = (points @ affine[:3, :3].T + affine[:3, 3]) @ LPS
    triangles = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    return mm, triangles if np.linalg.det(affine[:3, :3]) > 0 else triangles[:, ::-1]


def write_stl(path: Path, corners: np.ndarray, triangles: np.ndarray) -> None:
    """Write a surface as a binary STL. The file appears whole or not at all."""
    content = np.zeros(len(triangles), dtype=_TRIANGLE)
    points = corners[triangles]
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    content["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    content["corners"] = points
    with atomic_path(path) as temporary:
        header = _HEADER.ljust(80, b" ") + np.uint32(len(triangles)).tobytes()
        temporary.write_bytes(header + content.tobytes())


def _quads(mask: np.ndarray, axis: int, outward: int) -> np.ndarray:
    """Faces of voxels of ``mask`` with no neighbour along ``axis`` in one direction: ``(F, 4, 3)`` corner indices."""
    inside = np.argwhere(mask & ~np.roll(mask, -outward, axis))
    start = inside.copy()
    start[:, axis] += outward > 0
    along = np.zeros((2, 3), dtype=np.int64)
    along[0, (axis + 1) % 3] = along[1, (axis + 2) % 3] = 1
    first, second = along if outward > 0 else along[::-1]
    return np.stack([start, start + first, start + first + second, start + second], axis=1)
