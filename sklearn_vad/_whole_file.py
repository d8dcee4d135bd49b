"""Files that appear whole or not at all, whenever the process is killed."""

import contextlib
import errno
import glob
import os
import time
import uuid
from pathlib import Path

_STALE = 3600.0  # seconds after which a part was left by a kill


def write_whole(path, data):
    """Let a file appear whole or not at all, whenever the process is killed.

    Parameters
    ----------
    path : str
    data : bytes
    """
    folder, name = os.path.split(path)
    if folder and not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
    _remove_stale_parts(Path(folder), name)
    part = os.path.join(folder, f".{name}.part-{uuid.uuid4().hex}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _remove_stale_parts(folder, name):
    """Remove what killed processes left of a file, but nobody's work of this hour."""
    for part in folder.glob(f".{glob.escape(name)}.part-*"):
        with contextlib.suppress(OSError):  # another process may be as tidy
            if time.time() - part.stat().st_mtime > _STALE:
                part.unlink()
