"""Settings of every job. Each setting is declared once, with its description, type and bounds.

Command line options, YAML files, benchmark files, Python keyword arguments and the documentation's table of settings
derive from these models. To add a setting, add one field. No heavy library is imported, so that ``--help`` is fast.
"""

from medfewshot.settings.base import Option, Settings, load_settings, option_of, read_yaml, settings_table
from medfewshot.settings.jobs import (
    AUTO,
    NO_WEIGHTS,
    AdaptSettings,
    BenchmarkRunSettings,
    ClusterSettings,
    Count,
    CurveSettings,
    EvaluateSettings,
    Factors,
    InferenceSettings,
    Labels,
    Patches,
    PlanSettings,
    Range,
    SegmentSettings,
    Share,
    TrainRunSettings,
    TrainSchedule,
    Weights,
    WorkerSettings,
    check_labels,
    parse_labels,
)
from medfewshot.settings.quality_levels import QUALITY_LEVELS, Quality, QualityLevel

__all__ = [
    "AUTO", "NO_WEIGHTS", "AdaptSettings", "Count", "CurveSettings", "TrainRunSettings", "TrainSchedule",
    "BenchmarkRunSettings", "ClusterSettings", "EvaluateSettings", "Factors", "InferenceSettings", "Labels", "Option",
    "Patches", "PlanSettings", "QUALITY_LEVELS", "Quality", "QualityLevel", "Range", "SegmentSettings", "Settings",
    "Share", "Weights", "WorkerSettings", "check_labels", "load_settings", "option_of", "parse_labels", "read_yaml",
    "settings_table",
]  # fmt: skip
