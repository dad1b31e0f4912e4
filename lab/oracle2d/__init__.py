"""Protocol ``oracle-2d``: the few-shot literature's evaluation, for comparison with its figures and nothing else.

The family of Ouyang et al. 2020 (SSL-ALPNet), Hansen et al. 2022 (ADNet) and their successors scores 2D slices that are
known to hold the organ, and matches each third of the query organ's true extent to a support slice: two things that
nobody knows of a new scan. Its numbers say little about whole volumes, so its tables are never mixed with those of the
``volume`` protocol. Where public code differs from what the papers say, the papers are followed (see ``protocol``).
"""

from lab.oracle2d.cell import run_oracle_cell
from lab.oracle2d.config import OracleCell, OracleConfig, plan_oracle_cells
from lab.oracle2d.report import write_oracle_report
from lab.oracle2d.scans import training_examples

__all__ = [
    "OracleCell",
    "OracleConfig",
    "plan_oracle_cells",
    "run_oracle_cell",
    "training_examples",
    "write_oracle_report",
]
