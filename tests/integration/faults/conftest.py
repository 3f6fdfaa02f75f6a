"""The fixtures of every test here: see bench.py and ../kernels.py."""

from tests.integration.faults.bench import account, bench, control
from tests.integration.kernels import add_kernel, jupyter_folders
from tests.integration.lifecycle_helpers import remote_kernelspec

__all__ = ["account", "add_kernel", "bench", "control", "jupyter_folders", "remote_kernelspec"]
