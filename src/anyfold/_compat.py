"""Every private or version-dependent import of scikit-learn, in one place."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

import sklearn
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils import get_tags
from sklearn.utils.validation import _check_method_params, _num_samples

__all__ = [
    "base_search",
    "check_method_params",
    "draws_from_process",
    "filters_left_alone",
    "is_column_transformer",
    "is_feature_union",
    "is_fit_and_score",
    "is_multimetric",
    "is_pairwise",
    "is_pipeline",
    "num_samples",
    "safe_indexing",
    "search_fit",
    "short_format_time",
    "with_names",
    "with_validated_params",
]


def num_samples(X: Any) -> int:
    """Return the number of samples, however the data is held."""
    n: int = _num_samples(X)
    return n


def _is_exactly(obj: Any, module: str, name: str) -> bool:
    # What nobody has imported yet, nothing is an instance of: workers start without what they do not need.
    return type(obj) is getattr(sys.modules.get(module), name, None)


def is_pipeline(obj: Any) -> bool:
    """Return whether an object is a pipeline, and not of a subclass."""
    return _is_exactly(obj, "sklearn.pipeline", "Pipeline")


def is_feature_union(obj: Any) -> bool:
    """Return whether an object is a feature union, and not of a subclass."""
    return _is_exactly(obj, "sklearn.pipeline", "FeatureUnion")


def is_column_transformer(obj: Any) -> bool:
    """Return whether an object is a column transformer, and not of a subclass."""
    return _is_exactly(obj, "sklearn.compose", "ColumnTransformer")


def is_pairwise(estimator: Any) -> bool:
    """Return whether X is a square kernel or distance matrix, sliced along both axes."""
    return bool(get_tags(estimator).input_tags.pairwise)


def draws_from_process(estimator: Any) -> bool:
    """Return whether fitting draws random numbers from one generator for all threads of the process.

    LIBLINEAR and LIBSVM do, as scikit-learn brings them (``svm/src/newrand``): with the dual problem, with an
    l1 penalty and for probabilities.
    """
    if "sklearn.svm" not in sys.modules or not hasattr(estimator, "fit"):
        return False  # nobody has imported any of these, or it is none
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.svm import SVC, LinearSVC, LinearSVR, NuSVC

    if isinstance(estimator, type):
        return False
    if isinstance(estimator, (LogisticRegression, LogisticRegressionCV)):
        is_l2 = estimator.penalty != "l1" and getattr(estimator, "l1_ratio", None) in (None, 0)
        is_safe = type(estimator) is LogisticRegression and is_l2 and not estimator.dual
        return estimator.solver == "liblinear" and not is_safe
    if isinstance(estimator, (LinearSVC, LinearSVR)):
        return estimator.dual is not False or getattr(estimator, "penalty", "l2") == "l1"
    return isinstance(estimator, (SVC, NuSVC)) and estimator.probability is True


def check_method_params(X: Any, params: Mapping[str, Any] | None, indices: Any = None) -> dict[str, Any]:
    """Return parameters with those that have one value per sample sliced like X."""
    sliced: dict[str, Any] = _check_method_params(X, params, indices)
    return sliced


def is_multimetric(scorer: Any) -> bool:
    """Return whether a scorer answers with a dictionary of scores and texts of what failed."""
    from sklearn.metrics._scorer import _MultimetricScorer

    return isinstance(scorer, _MultimetricScorer)


def scorers_of(scorer: Any) -> dict[str, Any]:
    """Return the scorers that a scorer is made of, by the name of what they measure."""
    return dict(scorer._scorers) if is_multimetric(scorer) else {"score": scorer}


def response_methods_of(scorer: Any) -> tuple[str, ...]:
    """Return the methods of which a model must have one, to be scored; empty where nobody knows."""
    from sklearn.metrics._scorer import _BaseScorer

    if not isinstance(scorer, _BaseScorer):
        return ()
    methods = scorer._response_method
    return (methods,) if isinstance(methods, str) else tuple(methods)


def returns_one_number(scorer: Any) -> bool:
    """Return whether a scorer of scikit-learn answers with a number, unlike any other callable."""
    from sklearn.metrics._scorer import _BaseScorer, _PassthroughScorer

    return isinstance(scorer, (_BaseScorer, _PassthroughScorer))


def with_names(function: Any, **names: Any) -> Any:
    """Return a function of scikit-learn that finds other objects under some names of its module.

    What such a function does stays scikit-learn's, in every version; only what it calls by these names is
    ours. Nothing of scikit-learn is changed. Its decorators are left off.
    """
    raw = inspect.unwrap(function)
    missing = [name for name in names if name not in raw.__globals__]
    if missing:
        raise ImportError(
            f"{raw.__module__}.{raw.__qualname__} of scikit-learn {sklearn.__version__} knows no {missing[0]}"
        )
    copied = FunctionType(
        raw.__code__, {**raw.__globals__, **names}, raw.__name__, raw.__defaults__, raw.__closure__
    )
    copied.__kwdefaults__ = raw.__kwdefaults__
    return copied


@contextlib.contextmanager
def filters_left_alone(in_task: Callable[[], object]) -> Iterator[None]:
    """Have scikit-learn's own parallel loops not touch the warning filters inside of tasks.

    Around each call they empty the filters of the whole process and fill in those of the thread that began
    the loop. Inside of a task that is the same thread, with the same filters; but on threads the filters of
    all other tasks are gone meanwhile, and what they warn of is lost.

    Parameters
    ----------
    in_task : callable
        Returns None outside of tasks.
    """
    from sklearn.utils import parallel

    wrapper: Any = getattr(parallel, "_FuncWrapper", None)
    if not hasattr(wrapper, "with_config_and_warning_filters"):
        yield  # of a version that does no such thing
        return
    usual = wrapper.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = getattr(self, "config", None)
        if not config or in_task() is None:
            return usual(self, *args, **kwargs)
        with sklearn.config_context(**config):
            return self.function(*args, **kwargs)

    wrapper.__call__ = call
    try:
        yield
    finally:
        if wrapper.__call__ is call:
            wrapper.__call__ = usual


def base_search() -> Any:
    """Return what all searches derive from."""
    from sklearn.model_selection._search import BaseSearchCV

    return BaseSearchCV


def search_fit(**names: Any) -> Any:
    """Return ``fit`` of a search that finds other objects under some names, such as ``Parallel``."""
    from sklearn.base import _fit_context

    return _fit_context(prefer_skip_nested_validation=False)(with_names(base_search().fit, **names))


def is_fit_and_score(function: Any) -> bool:
    """Return whether a function is the one that fits and scores for all searches and validations."""
    from sklearn.model_selection._validation import _fit_and_score

    return function is _fit_and_score


def with_validated_params(function: Any, original: Any) -> Any:
    """Check the parameters of a function as those of an original of scikit-learn are checked."""
    from sklearn.utils._param_validation import validate_params

    constraints = original._skl_parameter_constraints
    return validate_params(constraints, prefer_skip_nested_validation=False)(function)


def short_format_time(seconds: float) -> str:
    """Return a time as scikit-learn's messages of progress show it."""
    from joblib.logger import short_format_time as formatted

    text: str = formatted(seconds)
    return text
