"""Make the directory that later versions have to read: `python make.py` writes format-N.tar.gz beside it.

It is made once for each version of the format and then frozen, so that what it shows never changes.
"""

from __future__ import annotations

import tarfile
import tempfile
import textwrap
import warnings
from pathlib import Path

import numpy as np

from futurefarm import DataManager, Params, run_tasks
from futurefarm.store import FORMAT

HERE = Path(__file__).parent

VALUES = {
    "number": 42,
    "text": "é\U0001f600",
    "nothing": None,
    "nested": {"a": [1, 2.5, (True, b"\0")], "b": {1, 2}},
    "array": np.arange(6, dtype="<f4").reshape(2, 3),
    "empty": b"",
}


# Of the standard library, so that its name, by which a call is known again, never changes.
FUNCTION = textwrap.shorten

ITEMS = [
    ("a b c", 20),
    ("too narrow", 1),
    Params(text="one two three", width=11),
    ("a b c", 20),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataman = DataManager("old", folder)
        with dataman.session("values") as session:
            session.update(VALUES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_tasks(dataman, FUNCTION, ITEMS, executor="serial", on_error="record", progress=False)
            run_tasks(dataman, print, ["hello"], executor="serial", progress=False)
        with tarfile.open(HERE / f"format-{FORMAT}.tar.gz", "w:gz") as archive:
            for path in map(Path, dataman.session_filenames()):
                archive.add(path, f"old.data/{path.name}")


if __name__ == "__main__":
    main()
