"""Where what was computed is kept for the next run; nothing depends on it."""

import os
from pathlib import Path

VARIABLE = "UEM_T5X_CACHE"


def folder() -> Path:
    """Returns `$UEM_T5X_CACHE`, or a folder of the user's cache."""
    named = os.environ.get(VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home) / "uem-t5x"
