"""Inspection of annotated scans before adaptation: contents, and problems."""

from medfewshot.inspection.checks import inspect
from medfewshot.inspection.result import CaseRow, Inspection, LabelStats, Problem

__all__ = ["CaseRow", "Inspection", "LabelStats", "Problem", "inspect"]
