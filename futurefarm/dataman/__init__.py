"""A directory of sessions, read as one."""

from .dataman import DataManager
from .reading import ForeignFileWarning

__all__ = ["DataManager", "ForeignFileWarning"]
