"""The flags of sshpyk 1.x, which its kernel.json files and people's scripts go on using."""

from __future__ import annotations

import re

# What a traitlets setting of 1.x is called now; None: there is nothing left to set.
_VALUES: dict[str, str | None] = {
    "SSHKernelApp.kernel_name": "--kernel",
    "SSHKernelApp.existing": "--existing",
    "SSHKernelApp.persistent_file": "--persistent-file",
    "SSHKernelApp.remote_kernel_pythonhome": "--remote-kernel-pythonhome",
    "SSHKernelProvisioner.existing": "--existing",
    "SSHKernelProvisioner.persistent_file": "--persistent-file",
    "KernelManager.connection_file": "--connection-file",
    "SSHKernelApp.capture_stdin": None,
    "SSHKernelApp.poll_interval": None,
    "SSHKernelApp.ssh_verbose": None,
    "SSHKernelApp.log_level": None,
    "persistent_file": "--persistent-file",
    "remote_kernel_pythonhome": "--remote-kernel-pythonhome",
    "poll-interval": None,
    "poll_interval": None,
    "ssh-verbose": None,
    "ssh_verbose": None,
}
_FLAGS = {
    "SSHKernelApp.persistent": "--persistent",
    "SSHKernelApp.leave": "--leave",
    "SSHKernelProvisioner.persistent": "--persistent",
}
_WORDS = {"--debug": "-vv", "-d": "-vv"}
_SETTING = re.compile(r"--([A-Za-z_.-]+)=(.*)", re.DOTALL)
_SHORT = re.compile(r"(-[kef])=(.*)", re.DOTALL)


def modern(words: list[str]) -> list[str]:
    """Return a command line in which what 1.x called otherwise has today's name."""
    changed: list[str] = []
    for word in words:
        setting, short = _SETTING.fullmatch(word), _SHORT.fullmatch(word)
        if setting is not None and setting[1] in _VALUES:
            name = _VALUES[setting[1]]
            changed += [f"{name}={unquoted(setting[2])}"] if name else []
        elif setting is not None and setting[1] in _FLAGS:
            changed += [_FLAGS[setting[1]]] if unquoted(setting[2]).lower() in ("true", "1") else []
        elif short is not None:
            changed += [short[1], short[2]]
        else:
            changed.append(_WORDS.get(word, word))
    return changed


def unquoted(text: str) -> str:
    """Remove the quotes that 1.x wrote into kernel.json around the connection file."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
