"""The workbench: a project folder of scans, masks, drafts and reviews, and the jobs that learn from it."""

from medfewshot.datasets import IGNORE_VALUE, PROJECT_FILE
from medfewshot.workbench.jobs import Jobs
from medfewshot.workbench.mask_store import MaskFacts
from medfewshot.workbench.project import Project
from medfewshot.workbench.project_file import Structure, VersionConflict
from medfewshot.workbench.reviews import Review
from medfewshot.workbench.start import open_folder
from medfewshot.workbench.state import CaseState

__all__ = [
    "IGNORE_VALUE",
    "PROJECT_FILE",
    "CaseState",
    "Jobs",
    "MaskFacts",
    "Project",
    "Review",
    "Structure",
    "VersionConflict",
    "open_folder",
]
