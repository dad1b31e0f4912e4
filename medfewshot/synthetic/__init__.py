"""Procedural scans: an abdominal CT cohort for the demo, and tiny blob volumes for tests."""

from medfewshot.synthetic.blobs import make_blob_volume, write_blob_dataset
from medfewshot.synthetic.cohort import COHORT_NAME, CT_LABELS, make_ct_cohort

__all__ = ["COHORT_NAME", "CT_LABELS", "make_blob_volume", "make_ct_cohort", "write_blob_dataset"]
