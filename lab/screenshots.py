"""Take the pictures in docs/images anew: `make screenshots`.

The test that looks at JupyterLab across an outage saves them in its own folder on the laptop; a test
changes nothing in the checkout.
"""

from __future__ import annotations

import subprocess
import sys

from steps import REPO, LabError, say

import lab

TEST = "tests/integration/test_jupyterlab.py"
PICTURES = ("jupyterlab-cut.png", "jupyterlab-after.png")


def main() -> int:
    """Run the test and copy its pictures; return its exit code."""
    status = lab.test([TEST, "-k", "prints_for_a_minute", "-n0"])
    if status:
        return status
    for name in PICTURES:
        # The run has swept away what earlier ones left, so there is one of each; find, for pytest
        # has links to its folders beside them.
        find = ["find", f"/tmp/pytest-of-{lab.USER}", "-name", name, "-exec", "cat", "{}", "+"]
        argv = ["docker", "exec", lab.container("laptop", lab.lab_mark()), *find]
        picture = subprocess.run(argv, capture_output=True, check=True).stdout
        (REPO / "docs" / "images" / name).write_bytes(picture)
        say(f"docs/images/{name}: {len(picture) // 1024} KB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"[lab] {error}")
