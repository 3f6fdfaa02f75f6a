"""Of the account on the host, its Python, and the agent there."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import ERRORS, Entry

_LAUNCH = "integration/test_launch_failures.py"
_SAMPLES = "unit/ssh/test_diagnose.py"
_HOST = "unit/hub/test_host.py"

HOST = {
    "HOST-NO-LOGIN-SHELL": Entry("the account may log in and has nothing to run (nologin)"),
    "HOST-RESTRICTED-SHELL": Entry("rbash or its like allows no program by its path"),
    "HOST-ENDED-EARLY": Entry(
        "'exit' in a start-up file, ForceCommand, or a forced command of the key"
    ),
    "HOST-EXIT-STATUS": Entry("as before, with a status; its words, if any, are shown"),
    "HOST-PRINTS-TOO-MUCH": Entry(
        "a start-up file prints without end where nobody reads",
        "more than … bytes were printed before our program started",
        "let the shell's startup files print only when it is interactive",
        "integration/faults/test_hosts.py::test_f32_startup_file_that_prints_too_much_is_quoted",
    ),
    "HOST-ODD-ANSWER": Entry(
        "something on the host prints in between",
        "something else was printed where our program's answer was due",
        "let the shell's startup files start nothing that prints later",
        "unit/hub/test_dial.py::test_what_is_printed_in_between_is_quoted",
    ),
    "HOST-NO-PROGRAM": Entry(
        "the path is the host's; conda's 'python' needs the environment's folder",
        test=f"{_LAUNCH}::f36_python_missing",
    ),
    "HOST-NOT-EXECUTABLE": Entry("a file that is no program", test=f"{_SAMPLES}::bash-mode"),
    "HOST-NO-INTERPRETER": Entry(
        "the environment was moved or removed, or the name is not on PATH",
        "no interpreter at …",
        "name another one: sshpyk edit … --remote-python PATH",
    ),
    "HOST-PYTHON-BROKEN": Entry(
        "a library of it is gone: an upgrade of the system, a moved environment"
    ),
    "HOST-PYTHON-TOO-OLD": Entry(
        "the kernel may run in an old Python; what sshpyk sends cannot",
        "… is Python …; the agent needs 3.8 or newer",
        "name a newer interpreter: sshpyk edit … --remote-python PATH",
    ),
    "HOST-DISK-FULL": Entry(
        "the home folder, /tmp, or your quota",
        remedy="make room on the host: df -h ~ /tmp; quota",
        test=f"{ERRORS}::test_full_disk_is_said_before_and_at_a_launch",
    ),
    "HOST-FAILED": Entry(
        "something between ssh and the host that has no row of its own",
        test="unit/cli/test_list.py::test_ssh_that_cannot_be_started",
    ),
    "PROTOCOL-MISMATCH": Entry(
        "another version of sshpyk started the kernels that run there",
        "the agent there speaks version … of the link protocol, this sshpyk …",
        "it keeps its kernels: go on with the sshpyk that started them, or end them with that"
        " one (the agent leaves a minute later) and try again",
        f"{_HOST}::test_f51_an_agent_of_another_version_is_refused_with_instructions",
    ),
    "LINK-LOST": Entry(
        "the host was rebooted, or the agent was ended, and its kernels with it",
        "the host was rebooted, and the kernels on it are gone",
        "start them again; in Jupyter: Kernel, Restart Kernel",
        test="integration/test_replaced_agent.py::test_f21_rebooted_host_is_said_and_the_kernel_is_gone",
    ),
    "AGENT-REPLACED": Entry(
        "somebody or the host's out-of-memory killer killed it; kernels are adopted",
        "the agent on the host was killed, and what it was doing was given up",
        "try again",
        f"{_HOST}::test_f16_agent_that_replaced_another_is_noticed_once_and_asked_again",
    ),
}
