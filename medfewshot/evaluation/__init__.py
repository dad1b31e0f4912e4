"""From cases to one row per case and label, and from rows to a summary with a confidence interval over subjects.

Missed structures, false alarms and correct absences are told apart and counted beside every mean;
``medfewshot.metrics`` states the policy for empty masks. ``evaluate_folders`` is ``match_cases``, then
``evaluate_pairs``.
"""

from medfewshot.evaluation.matching import MatchedCases, match_cases
from medfewshot.evaluation.results import Evaluation
from medfewshot.evaluation.run import evaluate_folders, evaluate_pairs
from medfewshot.evaluation.scores import CaseScore, evaluate_arrays
from medfewshot.evaluation.summary import LabelSummary, bootstrap_interval, summarize

__all__ = [
    "CaseScore",
    "Evaluation",
    "LabelSummary",
    "MatchedCases",
    "bootstrap_interval",
    "evaluate_arrays",
    "evaluate_folders",
    "evaluate_pairs",
    "match_cases",
    "summarize",
]
