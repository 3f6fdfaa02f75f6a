"""Opens a local file in the browser of the person at this machine, if there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")


def show_page(page: Path) -> bool:
    """Open a file in a browser; return whether one was found. The file's name is all that it is told."""
    # Without a display it would be a browser for terminals, in the middle of ours.
    if sys.platform != "darwin" and not any(map(os.environ.get, _DISPLAYS)):
        return False
    import webbrowser  # here: a command that opens nothing need not look for browsers

    try:
        return webbrowser.open(page.as_uri())
    except webbrowser.Error:
        return False
