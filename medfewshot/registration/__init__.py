"""Deformable registration of several supports to one query at once, in 2D and 3D, on any device.

An affine registration with several starts comes first, then a displacement field of increasing resolution. The
similarity is the local normalised correlation of intensities or other feature channels. Coordinates are millimetres
from the centre of each volume, so volumes of different shape and spacing need no common grid.

References:
    Avants et al. 2008, "Symmetric diffeomorphic image registration with cross-correlation" (SyN).
    Rueckert et al. 1999, "Nonrigid registration using free-form deformations": coarse to fine.
"""

from medfewshot.registration.correlation import LocalCorrelation
from medfewshot.registration.optimization import FRAMES, RegistrationOptions, register, resized
from medfewshot.registration.transform import Transform, centred_points

__all__ = ["FRAMES", "LocalCorrelation", "RegistrationOptions", "Transform", "centred_points", "register", "resized"]
