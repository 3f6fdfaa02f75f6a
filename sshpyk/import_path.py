"""Takes the current folder off Python's path where ``python -m`` has put it there; imported for that.

A program of ours is started in folders of notebooks, and these have a ``json.py`` or a ``socket.py`` of
the user's now and then. What Python itself imports for ``-m`` comes before us, and what is not ours, a
Jupyter server with our provisioner, keeps its path.
"""

from __future__ import annotations

import os
import sys

_spec = getattr(sys.modules["__main__"], "__spec__", None)
if (
    _spec is not None
    and _spec.name.startswith("sshpyk.")
    and not getattr(sys.flags, "safe_path", 0)
):
    try:
        _here = os.getcwd()
    except OSError:  # a folder that is gone: Python has put "" there
        _here = ""
    if sys.path[0] in ("", _here):
        del sys.path[0]
