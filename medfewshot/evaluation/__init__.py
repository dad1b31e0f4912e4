"""Evaluation: scores of each case and label, and their summary with confidence intervals over subjects.

Missed structures, false alarms and correct absences are counted separately beside every mean;
``medfewshot.metrics`` states the policy for empty masks.
"""

from medfewshot.evaluation.comparison import Comparison, Difference, measure_title, p_text
from medfewshot.evaluation.files import evaluate_pairs, match_cases
from medfewshot.evaluation.learning_curve import NEXT, CurveScore, LearningCurve
from medfewshot.evaluation.results import Evaluation, LabelSummary, bootstrap_interval, case_means, mean, summarize
from medfewshot.evaluation.scores import CaseScore, evaluate_arrays

__all__ = [
    "NEXT",
    "CaseScore",
    "Comparison",
    "CurveScore",
    "Difference",
    "Evaluation",
    "LabelSummary",
    "LearningCurve",
    "bootstrap_interval",
    "case_means",
    "evaluate_arrays",
    "evaluate_pairs",
    "match_cases",
    "mean",
    "measure_title",
    "p_text",
    "summarize",
]
