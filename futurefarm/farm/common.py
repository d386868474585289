"""The arguments that all tasks of a sweep have in common, checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UsageError, UsageTypeError
from ..identity import fingerprint
from ..spaces import Space
from ..task import call_of

__all__ = ["Common", "clash"]


class Common:
    """What ``shared=`` says.

    Args:
        function: the user's.
        shared: what he gave.
        args: his items; their names are looked at where that takes nothing from an iterator.

    Raises:
        UsageError: the function does not take such an argument, or gets it otherwise.
        UsageTypeError: it is no mapping of names to values, or one of them has no stable identity.
    """

    def __init__(self, function: Any, shared: Any, args: Any) -> None:
        if not isinstance(shared, Mapping) or not all(isinstance(name, str) for name in shared):
            raise UsageTypeError(
                f"shared must be a dict of names and values, not {type(shared).__qualname__}."
            )
        self.values = dict(shared)
        parameters = _parameters(function)
        for name in self.values:
            _check(name, parameters)
        for item in _first(args) if shared else ():
            positional, keywords = call_of(item)
            names = [] if parameters is None else list(parameters)
            clash({*names[: len(positional)], *keywords} & self.values.keys())
        self.fingerprints = {name: fingerprint(value) for name, value in self.values.items()}


def clash(names: Iterable[str]) -> None:
    """Raise UsageError if there are names of arguments that come both with an item and with all."""
    for name in names:
        raise UsageError(f"the argument {name!r} is in shared, and in an item of args, too. Leave one out.")


def _check(name: str, parameters: Mapping[str, inspect.Parameter] | None) -> None:
    if name == "report":
        raise UsageError("the argument 'report' is given by futurefarm and cannot be in shared.")
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    parameter = parameters.get(name)
    if parameter is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UsageError(
            f"shared has {name!r}, and the function takes no argument of that name: {', '.join(parameters)}."
        )


def _parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a call, or None where a built-in function does not tell."""
    try:
        if not isinstance(function, type):
            return inspect.signature(function).parameters
        parameters = list(inspect.signature(function.__call__).parameters.values())
    except (TypeError, ValueError):
        return None
    return {parameter.name: parameter for parameter in parameters[1:]}  # without self


def _first(args: Any) -> Iterable[Any]:
    """Return the first item, if it is to be had again."""
    if isinstance(args, Space):
        return [item for item, _ in zip(args, range(1))]
    return args[:1] if isinstance(args, Sequence) and not isinstance(args, str | bytes | range) else ()
