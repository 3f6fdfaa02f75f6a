"""jupyter_kernel_test, the field's own suite for kernels, against the remote one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import ClassVar

import jupyter_kernel_test
import pytest

from tests.integration.kernels import SSHPYK


class RemoteKernelTests(jupyter_kernel_test.KernelTests):
    """What the suite needs to know of ipykernel; the subclasses say where it runs."""

    __test__ = False
    host_alias: ClassVar[str]
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples: ClassVar = ["1", "print('hello')", "def f(x):\n  return x*2\n\n"]
    incomplete_code_samples: ClassVar = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result: ClassVar = [{"code": "1+2+3", "result": "6"}]
    code_display_data: ClassVar = [
        {
            "code": "from IPython.display import HTML, display; display(HTML('x'))",
            "mime": "text/html",
        }
    ]
    code_history_pattern = "1?2*"
    # Not "search": the history is the user's, and other tests' kernels write to it meanwhile.
    supported_history_operations = ("tail",)
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        cls.kernel_name = f"suite-{uuid.uuid4().hex[:8]}"
        cls._folder = Path(os.environ["PYTEST_SUITE_FOLDER"]) / cls.kernel_name
        os.environ["JUPYTER_DATA_DIR"] = str(cls._folder)
        host = [
            "--no-check",
            "--ssh-host-alias",
            cls.host_alias,
            "--remote-python-prefix",
            "/opt/venv",
        ]
        subprocess.run([SSHPYK, "add", "--kernel-name", cls.kernel_name, *host], check=True)
        super().setUpClass()


@pytest.fixture(autouse=True, scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Keep the kernelspecs and connection files of this module to itself."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("suite")
        patch.setenv("PYTEST_SUITE_FOLDER", str(folder))
        patch.setenv("JUPYTER_DATA_DIR", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setattr(sys, "argv", sys.argv[:1])
        yield


class TestDirect(RemoteKernelTests):
    __test__ = True
    host_alias = "remote"


class TestThroughTheBastion(RemoteKernelTests):
    __test__ = True
    host_alias = "remote-jump"
