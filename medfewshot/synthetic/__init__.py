"""Synthetic anatomies: procedural tasks for meta-training, and the CT scans of the demo.

An anatomy is a template of implicit shapes. Its members differ by diffeomorphic warps and by shift, scale and absence
of every structure. One scanner protocol images all members.

References:
    Hoffmann et al., SynthMorph, IEEE TMI 2021, and Billot et al., SynthSeg, Medical Image Analysis 2023: synthetic
    label maps and random contrasts.
    Butoi et al., UniverSeg, ICCV 2023: synthetic tasks in meta-training.
"""

from medfewshot.synthetic.blobs import make_blob_volume, write_blob_dataset
from medfewshot.synthetic.cohort import COHORT_NAME, CT_LABELS, make_ct_cohort
from medfewshot.synthetic.label_maps import paint_labels, recombine_maps
from medfewshot.synthetic.populations import Populations, PopulationSettings

__all__ = [
    "COHORT_NAME",
    "CT_LABELS",
    "PopulationSettings",
    "Populations",
    "make_blob_volume",
    "make_ct_cohort",
    "paint_labels",
    "recombine_maps",
    "write_blob_dataset",
]
