"""Which parameters go to whose ``fit`` and which to the scorer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import sklearn
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from anyfold._plan.models import near
from anyfold.errors import InvalidInputError

__all__ = ["check_accepted", "route_params"]


def route_params(
    name: str, estimator: Any, scorer: Any, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what goes to ``fit`` and what to the scorer of one model.

    Without scikit-learn's metadata routing everything goes to ``fit``, as in `cross_validate`.
    """
    if not params:
        return {}, {}
    if sklearn.get_config()["enable_metadata_routing"]:
        return _routed(name, estimator, scorer, params)
    check_accepted(name, estimator, params)
    return dict(params), {}


def _routed(
    name: str, estimator: Any, scorer: Any, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    router = (
        MetadataRouter(owner="run_cv")
        .add(estimator=estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        .add(scorer=scorer, method_mapping=MethodMapping().add(caller="fit", callee="score"))
    )
    try:
        routed = process_routing(router, "fit", **params)
    except (UnsetMetadataPassedError, TypeError) as error:
        reason = str(error).replace("run_cv.fit", "run_cv")
        raise InvalidInputError(f"params cannot be routed to model {name!r}: {reason}") from error
    return dict(routed.estimator.fit), dict(routed.scorer.score)


def check_accepted(name: str, estimator: Any, params: Mapping[str, Any]) -> None:
    """Raise `InvalidInputError` where ``fit`` of a model takes no parameter of that name."""
    try:
        accepted = inspect.signature(estimator.fit).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for param in params:
        if param not in accepted:
            raise InvalidInputError(
                f"params[{param!r}]: fit of model {name!r} ({type(estimator).__name__}) takes no {param!r}"
                f"{near(param, accepted)}. Compare that model in a run of its own, or enable scikit-learn's "
                "metadata routing to say which model uses it"
            )
