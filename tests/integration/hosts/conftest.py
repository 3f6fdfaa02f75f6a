"""The fixtures of every test here: see ../faults/bench.py and ../kernels.py."""

from tests.integration.faults.bench import account
from tests.integration.kernels import add_kernel, jupyter_folders

__all__ = ["account", "add_kernel", "jupyter_folders"]
