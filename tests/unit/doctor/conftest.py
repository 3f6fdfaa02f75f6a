"""Checks run in a home of their own; see ``fake_home``."""

from tests.unit.fake_home import add, home, kernels, run  # noqa: F401
