"""Of kernels."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import Entry

_LAUNCH = "integration/test_launch_failures.py"

KERNEL = {
    "KERNELSPEC-NOT-FOUND": Entry(
        "that interpreter finds no kernel of that name; what it finds is listed",
        "no kernelspec … for …",
        "install the kernel in that environment (for Python: … -m pip install "
        "ipykernel) or name another one: sshpyk edit … --remote-kernel-name NAME",
    ),
    "KERNELSPEC-BROKEN": Entry(
        "a kernel.json of this machine that was edited or cut short",
        "…: …",
        "correct it, or remove that kernel",
        "unit/cli/test_doctor.py::test_what_cannot_be_asked_about",
    ),
    "KERNEL-NO-PROGRAM": Entry(
        "the host's kernel.json names a program that is not there",
        "cannot run …: …",
        "install it, or correct …",
    ),
    "KERNEL-NO-IPYKERNEL": Entry(
        "the interpreter that the kernelspec runs is not the environment that you meant",
        "… has no module …",
        "install it on the host, in that environment: python -m pip install ipykernel",
    ),
    "KERNEL-NO-PYZMQ": Entry(
        "an upgrade that ended half-way, or a build for another Python",
        "… cannot import zmq: …",
        "install it on the host, in that environment: python -m pip install pyzmq",
    ),
    "KERNEL-NO-MODULE": Entry(
        "the kernelspec runs '-m MODULE', which its interpreter does not have",
        "… has no module …",
        "install it there",
    ),
    "KERNEL-NO-FOLDER": Entry(
        "--remote-cwd names a folder of the host",
        "no folder … for the kernel to work in",
        "create it on the host, or change it: sshpyk edit … --remote-cwd PATH",
    ),
    "KERNEL-ACTIVATION": Entry(
        "a command of --activate, or a startup file of the login shell before it, failed or hangs",
        "--activate: …",
        "try the lines on the host, in a login shell; …; "
        "where a command may fail, write: COMMAND || true",
        "integration/hosts/test_activation.py::test_an_activation_that_fails_says_what_failed_and_why",
    ),
    "KERNEL-DIED": Entry(
        "its own last words follow",
        "the kernel ended with … before it was ready",
        "its command on the host was: …",
    ),
    "HOST-PIP-FAILED": Entry(
        "pip's own last words follow",
        "ipykernel could not be installed",
        "make an environment of your own on …: python3 -m venv ~/venv",
        "unit/discovery/test_install.py::test_refusal_of_a_managed_python_is_in_pips_words",
    ),
    "KERNEL-IN-USE": Entry(
        "another laptop, or another link of this one, carries the kernel",
        "kernel … is in use by …",
        "take it over with --takeover: it goes on here and is told to end there",
        "integration/faults/test_attach.py::test_f52_two_laptops_attach_to_one_kernel",
    ),
    "KERNEL-TAKEN": Entry(
        "somebody attached to the kernel with --takeover",
        "the kernel was taken over by …",
        "take it back: sshpyk attach HOST KERNEL --takeover",
        test="integration/faults/test_attach.py::test_f52_two_laptops_attach_to_one_kernel",
    ),
    "KERNEL-FAILED": Entry(
        "the kernel's side of something that has no row of its own",
        test="unit/agent/test_service.py::test_a_program_that_cannot_be_run_is_named",
    ),
    "LAUNCH-TIMEOUT": Entry(
        "a slow host or file system, or a kernel that hangs while it starts",
        "the kernel was not … within … s",
        "raise launch_timeout: sshpyk edit … --launch-timeout SECONDS",
        f"{_LAUNCH}::kernel_never_listens",
    ),
}
