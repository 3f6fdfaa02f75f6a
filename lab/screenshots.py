"""Take the pictures in docs/images anew: `make screenshots`.

The tests that look at a JupyterLab across an outage, a local and a remote one, save them in their own
folders on the laptop; a test changes nothing in the checkout.
"""

from __future__ import annotations

import subprocess
import sys

from steps import REPO, LabError, say

import lab

TESTS = ("tests/integration/test_jupyterlab.py", "tests/integration/test_servers.py")
_WHICH = ("-k", "prints_for_a_minute or remote_jupyterlab", "-m", "slow or not slow", "-n0")
PICTURES = (
    *("jupyterlab-cut.png", "jupyterlab-after.png"),
    *("remote-lab-cut.png", "remote-lab-after.png"),
)


def main() -> int:
    """Run the tests and copy their pictures; return their exit code."""
    status = lab.test([*TESTS, *_WHICH])
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
