"""What comes back from a run: scores, times, failures, warnings, estimators, predictions and pictures."""

from anyfold.results.cv_result import CVResult
from anyfold.results.fitted_models import FittedModels
from anyfold.results.records import FailureRecord, LoggedRecord, OutputRecord, WarningRecord
from anyfold.results.search_plot import plot_search

__all__ = [
    "CVResult",
    "FailureRecord",
    "FittedModels",
    "LoggedRecord",
    "OutputRecord",
    "WarningRecord",
    "plot_search",
]
