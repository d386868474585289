"""An exception as text: its class may not unpickle elsewhere, and it may do anything when it is looked at."""

from __future__ import annotations

import os
import traceback

__all__ = ["described"]

ERROR_LIMIT = 10_000
TRACEBACK_LIMIT = 100_000
_HERE = os.path.dirname(__file__)
_OURS = _HERE, os.path.join(os.path.dirname(_HERE), "farm")


def described(error: BaseException) -> tuple[str, str]:
    """Return type and text of an exception, and its traceback with all causes; both bounded, and storable."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next  # our own frames tell the user nothing
    try:
        text = f"{name}: {error}".removesuffix(": ")
    except BaseException as second:  # its own __str__ raises
        text = f"{name} (its text cannot be shown: {type(second).__name__})"
    try:
        lines = "".join(traceback.format_exception(kind, error, trace))
    except BaseException:  # a cause that cannot be shown, or groups in groups without end
        lines = "".join([*traceback.format_tb(trace), text])
    return _bounded(text, ERROR_LIMIT), _bounded(lines, TRACEBACK_LIMIT)


def _bounded(text: str, limit: int) -> str:
    """Leave out the middle of a long text: both its ends tell something."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters are left out ...]\n{text[-half:]}"
    # Half a surrogate pair is no text that can be stored.
    return text.encode("utf-8", "backslashreplace").decode()
