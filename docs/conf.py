"""Settings of Sphinx; the build is offline and takes every warning as an error (`nox -s docs`)."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "futurefarm"
copyright = "2026, The futurefarm developers"
author = "The futurefarm developers"
version = release = version_of("futurefarm")

# No intersphinx: it would need the network, and the build would fail with somebody else's site.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"futurefarm {release}"
html_show_sourcelink = False

myst_heading_anchors = 3

# A name in single backticks in a docstring is a link, and a misspelled one an error.
default_role = "any"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # the docstrings of the standard library are not written for Sphinx
autodoc_default_options = {"show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an `Attributes:` section beside documented fields would describe them twice

nitpicky = True
# What is not ours lies behind intersphinx. Names of ours are not in these lists: they have to resolve.
_MODULES = (
    "builtins|collections|concurrent|contextlib|datetime|enum|functools|logging|numpy|os|pathlib|pickle|pytest"
    "|shelve|threading|types|typing"
)
_BUILTINS = (
    "bool|bytes|callable|dict|float|frozenset|int|list|object|optional|set|str|tuple|type"
    "|BaseException|Exception|[A-Z][A-Za-z]*Error|KeyboardInterrupt|None"
)
_TYPING = "Any|Callable|Executor|Future|Hashable|Iterable|Iterator|Literal|Mapping|Path|Self|Sequence"
nitpick_ignore_regex = [
    (r"any|py:.*", rf"({_MODULES})\..*"),
    (r"py:(class|exc|obj)", _BUILTINS),
    (r"py:(class|obj)", _TYPING),
    (r"py:class", r"\.\.\."),  # the dots of `Callable[..., Any]`
    # Type variables and aliases of signatures have no page of their own.
    (r"py:(class|obj)", r"(futurefarm(\.\w+)+\.)?_?[A-Z][A-Z]?"),
    # Between rooms: what a worker commits, and the names of files (users have `DataManager.basepath`).
    (r"py:class", r"futurefarm\.(task\.Outcome|directory\.Directory|trust\.trust\.(Loader|Trust))"),
    # Imported for the types alone, so Sphinx sees no more than the name.
    (r"py:class", r"Checkup|Repair|Directory|Trust"),
    (r"py:class", r"_pickle\.UnpicklingError"),
]
