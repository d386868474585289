"""Reading values: all of them where only the user can have written them, else plain data."""

from .trust import Loader, Trust, TrustWarning

__all__ = ["Loader", "Trust", "TrustWarning"]
