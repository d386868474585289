"""A real, small disk that tests fill."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["SmallDisk"]


class SmallDisk:
    """A file system of its own at ``path``; only root may make one, so `mount` tells whether it could."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def mount(self, size: int) -> bool:
        self.path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(self.path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    @property
    def free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes free."""
        with open(self._ballast, "ab") as file:
            file.write(bytes(max(0, self.free - free)))

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    def grow(self) -> None:
        """Become 16 MB large, as when somebody frees space."""
        subprocess.run(["mount", "-o", "remount,size=16m", str(self.path)], check=True)
