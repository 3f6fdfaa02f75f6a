"""The command line runs in a home of its own; see ``fake_home``."""

from tests.unit.fake_home import add, home, kernels, refused, run  # noqa: F401
