"""This user's folder in the machine's memory, through which processes tell each other what is lost with the machine alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # systems without it have a folder for temporary files


def own_folder() -> Path:
    """The folder, readable to this user alone; made where there is none. Raises ``PermissionError`` where another user has made it."""
    folder = (MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())) / f"llm_assets-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user's alone: remove it, or have its owner remove it")
    return folder
