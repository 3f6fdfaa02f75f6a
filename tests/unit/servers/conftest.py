from __future__ import annotations

from tests.unit.wire.harness import short_folder  # noqa: F401
