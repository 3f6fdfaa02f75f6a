"""Run this machine's pip as if its Python were the image's: ``pip_for_image.py MARKERS.json ARG…``.

``pip download --python-version`` chooses wheels for another Python, but evaluates environment
markers (``typing-extensions; python_version < "3.12"``) for the Python that runs pip. Where the two
differ, a needed package would be missing from the image. So the markers come from the image, too.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from pip._vendor.packaging import markers

environment = json.loads(Path(sys.argv[1]).read_text())
markers.default_environment = lambda: dict(environment)
sys.argv = ["pip", *sys.argv[2:]]
runpy.run_module("pip", run_name="__main__")
