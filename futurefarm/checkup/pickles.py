"""Whether a pickle would load, found out without loading it: to load is to run what it names."""

from __future__ import annotations

import _compat_pickle
import pickletools
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

__all__ = ["fault_of"]

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}


def fault_of(data: bytes) -> str | None:
    """Return why a pickle cannot be loaded here, or None."""
    try:
        names = set(_globals(data))
    except Exception as error:  # pickletools raises what the bytes bring about
        return f"it is no whole pickle ({error})"
    for module, name in sorted(names):
        missing = _missing(module, name)
        if missing:
            return missing
    return None


def _globals(data: bytes) -> Iterator[tuple[str, str]]:
    """Iterate over the modules and names that a pickle asks for.

    A name is given by the two strings before it; only where they come from the memo does it take more than
    to look at the instruction before.
    """
    strings: list[str] = ["", ""]
    memo: dict[int, str] = {}
    made = 0
    latest: str | None = None
    protocol = 0
    for code, argument, _ in pickletools.genops(data):
        if code.name in _STRINGS:
            latest = str(argument)
            strings = [strings[-1], latest]
        elif code.name == "MEMOIZE" or code.name in _PUT:
            if latest is not None:
                memo[made if code.name == "MEMOIZE" else int(argument or 0)] = latest
            made += 1
        elif code.name in _GET:
            latest = memo.get(int(argument or 0))
            strings = strings if latest is None else [strings[-1], latest]
        else:
            latest = None
            if code.name == "PROTO":
                protocol = int(argument or 0)
            elif code.name == "STACK_GLOBAL":
                yield strings[0], strings[1]
            elif code.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                yield (module, name) if protocol > 2 else _of_python_3(module, name)


def _of_python_3(module: str, name: str) -> tuple[str, str]:
    """Return what unpickling makes of a global in a pickle that Python 2 could read."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


@lru_cache(maxsize=1000)
def _missing(module: str, name: str) -> str | None:
    """Return what is missing here of a global, or None; nothing is imported to find out."""
    first = name.partition(".")[0]
    if module == "__main__":
        return f"it needs {name}, which only the program that stored it has"
    loaded = sys.modules.get(module)
    if loaded is not None:
        return None if first in vars(loaded) or "__getattr__" in vars(loaded) else _no(module, name)
    spec = _spec(module)
    if spec is None:
        return f"it needs the module {module}, which is not installed here"
    if not (spec.origin or "").endswith(".py"):
        return None  # compiled: its names are not to be seen
    try:
        text = Path(str(spec.origin)).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if re.search(rf"\b{re.escape(first)}\b|import \*|def __getattr__|globals\(\)", text):
        return None
    return _no(module, name)


def _no(module: str, name: str) -> str:
    return f"it needs {name} of the module {module}, which has no such name any more"


def _spec(module: str) -> ModuleSpec | None:
    """Return where a module lies. `importlib.util.find_spec` would import the packages that it lies in."""
    found = None
    path = None
    parts = module.split(".")
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        if name in sys.builtin_module_names:
            return ModuleSpec(name, None)
        loaded = sys.modules.get(name)
        found = (loaded and loaded.__spec__) or PathFinder.find_spec(name, path)
        if found is None:
            return None
        path = list(found.submodule_search_locations or [])
    return found
