"""Large values, out of band: in an append-only file of their own, to which a few bytes in their place refer.

A pickle of protocol 5 can leave out the memory of arrays ("out of band"). It goes to a file as it is, in one
piece and without a copy, and what is stored in its place is the rest of the pickle with a trailer that says
where in the file the pieces lie; see `trailer`.

The file begins with a head of 64 bytes: ``FFARblob``, 8 random bytes by which one such file is told from all
others (trailers repeat them), and zeros. Each piece begins at a multiple of 64. What no trailer refers to
means nothing: a writer was killed, or what referred to it is deleted. The file only ever grows, so a later
copy of it serves every earlier state of what refers to it, and what is read may be mapped while others write.

Nothing here knows of sessions: whoever writes decides when to `Writer.sync`, which has to be before anything
that refers to a piece is stored.
"""

from .reader import MissingBlobError, Reader, SpoiltBlobError, loads
from .trailer import Parts, Reference, attach, detach, has_trailer, in_band
from .writer import LARGE, Writer

__all__ = [
    "LARGE",
    "MissingBlobError",
    "Parts",
    "Reader",
    "Reference",
    "SpoiltBlobError",
    "Writer",
    "attach",
    "detach",
    "has_trailer",
    "in_band",
    "loads",
]
