"""What runs before a kernel on the host: ``--activate``, in a shell that knows the user's functions.

``module`` and ``conda`` are functions of a login shell, so the lines run in one: the user's own if it is
bash or zsh, else bash, which reads ~/.profile as sh, dash and ksh do. It is no interactive shell: one
without a terminal complains, and startup files then start other shells or ask. What they keep for
interactive shells (``conda init`` writes there) is found in other ways, see :func:`_functions`.

The shell becomes the kernel by ``exec``, so pid, group and signals are the kernel's from the start. It
notes how far it is in a file: when it ends or hangs, :class:`Activation` tells who is to blame.
Nothing that it prints matters; it all goes to the kernel's log.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from sshpyk.errors import KernelDied, LaunchTimeout, SshpykError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOGIN_SHELLS = ("bash", "zsh")  # these know `-l FILE`; the others read what sh reads
_RC_FILES = (
    *(".bashrc", ".bash_profile", ".profile", ".zshrc", ".zprofile"),
    *(".cshrc", ".tcshrc", ".config/fish/config.fish"),
)
_CONDA_IN_RC = re.compile(r"((?:/|~/|\$HOME/)[^\s'\"$`]*)/(?:bin/conda|etc/profile\.d/conda\.)")
_CONDA_FOLDERS = (
    *("~/miniforge3", "~/miniconda3", "~/mambaforge", "~/anaconda3", "~/conda"),
    *("/opt/conda", "/opt/miniforge3", "/opt/miniconda3", "/opt/anaconda3"),
)


@dataclass(frozen=True)
class Setting:
    """What the client wants around the kernel: lines to run before it, words to put before it.

    ``patience_s`` is how long the lines may take.
    """

    activate: str = ""
    wrapper: Sequence[str] = ()
    patience_s: float = 0.0

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Setting:
        """Read a request for a kernel. Raises ValueError for values of the wrong type."""
        activate = params.get("activate", "")
        wrapper = params.get("wrapper", [])
        patience_s = params.get("activate_s", 0)
        texts = [activate, *wrapper] if isinstance(wrapper, list) else [None]
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("activate or wrapper is no text")
        if not isinstance(patience_s, (int, float)):
            raise ValueError("activate_s is no number")
        return cls(activate, tuple(wrapper), patience_s)


PLAIN = Setting()


@dataclass(frozen=True)
class KernelCommand:
    """A kernel's command, its folder, and the variables that must hold whatever the lines set."""

    argv: Sequence[str]
    cwd: str
    leading: str  # the folder that is to lead PATH, or ""
    env: Mapping[str, str] = field(default_factory=dict)


def wrapped(wrapper: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Return the kernel's argv behind the words of ``--remote-command``."""
    return [*(os.path.expanduser(word) for word in wrapper), *argv]


class Activation:
    """One run of the lines; its files lie in the kernel's private folder."""

    def __init__(self, lines: str, folder: str, patience_s: float) -> None:
        self.patience_s = patience_s
        self.given_up = False  # it took too long, and is being killed
        self._lines = lines
        self._script = os.path.join(folder, "activate")
        self._note = os.path.join(folder, "activated")

    def prepare(self, command: KernelCommand) -> list[str]:
        """Write the script; return the argv that runs it and then becomes ``command``."""
        shell = login_shell()
        with open(os.open(self._script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.fsencode(self._text(os.path.basename(shell), command)))
        login = ["-l"] if os.path.basename(shell) in _LOGIN_SHELLS else []
        return [shell, *login, self._script, *command.argv]

    def _text(self, shell: str, command: KernelCommand) -> str:
        exports = [
            f"export {name}={shlex.quote(value)}"
            for name, value in command.env.items()
            if _NAME.fullmatch(name)
        ]
        if command.leading:
            exports.append(_LEAD.format(folder=shlex.quote(command.leading)))
        return _SCRIPT.format(
            note=shlex.quote(self._note),
            profile="" if shell in _LOGIN_SHELLS else _PROFILE,
            functions=_functions(shell, self._lines, command.argv),
            trap=_TRAPS.get(shell, ""),
            untrap=_UNTRAPS.get(shell, ""),
            lines=shlex.quote(self._lines),
            exports="\n".join(exports),
            cwd=shlex.quote(command.cwd),
        )

    @property
    def over(self) -> bool:
        """Whether the shell has become the kernel."""
        return self._noted()[:1] == ["over"]

    def _noted(self) -> list[str]:
        try:
            with open(self._note, encoding="utf-8", errors="replace") as file:
                return file.read().split("\n", 1)
        except OSError:
            return []

    def forget(self) -> None:
        """Remove the script, which may hold secrets; called when the kernel runs."""
        with contextlib.suppress(OSError):  # a disk that is read-only by now
            os.unlink(self._script)

    def failure(self, status: str, said: str) -> SshpykError:
        """Return why there is no kernel; for one that ended before it was :attr:`over`.

        ``status`` in words, ``said`` is the log's tail.
        """
        kind, *rest = self._noted() or ["profile"]
        culprit = "".join(rest).strip()
        if not culprit or culprit.startswith("eval "):  # a syntax error is all of it
            culprit = self._lines
        who = f"--activate: {culprit!r}"
        if kind == "profile":
            who = "the startup files of the login shell, before --activate,"
        how = f"ended with {status}"
        if self.given_up:
            how = f"did not end within {self.patience_s:.0f} s"
        return (LaunchTimeout if self.given_up else KernelDied)(
            f"{who} {how}",
            phase="preparing the kernel's environment",
            said=said or "(nothing was printed)",
            advice=_ADVICE[kind == "profile"][self.given_up],
            code="KERNEL-ACTIVATION",
        )


_CHANGE = "change it: sshpyk edit … --activate 'LINES'"
_ADVICE = {
    False: (
        f"try the lines on the host, in a login shell; {_CHANGE}; "
        "where a command may fail, write: COMMAND || true",
        f"something waits or asks there, and nobody can answer; {_CHANGE}; "
        "if it is merely slow: --launch-timeout SECONDS",
    ),
    True: (
        "look for what ends the shell in .profile, .bash_profile, .zprofile and /etc/profile.d",
        "look for what waits or asks in .profile, .bash_profile, .zprofile and /etc/profile.d",
    ),
}


def login_shell() -> str:
    """Return the shell that the lines run in: the user's own if it is bash or zsh, else bash, else sh."""
    try:
        own = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        own = ""
    if os.path.basename(own) in _LOGIN_SHELLS and os.access(own, os.X_OK):
        return own
    return shutil.which("bash") or "/bin/sh"


# Functions that startup files hide from a shell that is not interactive


def _functions(shell: str, lines: str, argv: Sequence[str]) -> str:
    """Return what makes ``conda``, ``mamba`` and ``module`` functions where the lines name them."""
    kind = shell if shell in _LOGIN_SHELLS else "posix"
    parts = [_IS_FUNCTION]
    if re.search(r"\b(conda|mamba|micromamba)\b", lines):
        parts += [_init_block(shell), _CONDA.format(shell=kind, found=_conda_root(argv))]
    if re.search(r"\b(module|ml)\b", lines):
        parts.append(_MODULE.format(shell="sh" if kind == "posix" else kind))
    return "\n".join(parts)


def _init_block(shell: str) -> str:
    """Return what ``conda init``, ``mamba init`` wrote into the shell's rc file."""
    name = {"bash": ".bashrc", "zsh": ".zshrc"}.get(shell)
    block = r"^# >>> (\w+) initialize >>>$.*?^# <<< \1 initialize <<<$"
    found = re.finditer(block, _read(name), re.DOTALL | re.MULTILINE) if name else ()
    return "\n".join(f"eval {shlex.quote(match[0])}" for match in found)


def _conda_root(argv: Sequence[str]) -> str:
    """Return where conda is installed, quoted for sh; empty where nothing tells."""
    python = os.path.abspath(argv[0])
    roots = [python.rsplit("/envs/", 1)[0], os.path.dirname(os.path.dirname(python))]
    for name in _RC_FILES:
        roots += (root.replace("$HOME", "~", 1) for root in _CONDA_IN_RC.findall(_read(name)))
    for root in map(os.path.expanduser, [*roots, *_CONDA_FOLDERS]):
        if os.path.isfile(os.path.join(root, "etc/profile.d/conda.sh")):
            return shlex.quote(root)
    return "''"


def _read(name: str) -> str:
    try:
        path = os.path.join(os.path.expanduser("~"), name)
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


_PROFILE = """
[ ! -r /etc/profile ] || . /etc/profile
[ ! -r "$HOME/.profile" ] || . "$HOME/.profile"
"""

_IS_FUNCTION = """
sshpyk_is_function() {
    case "$(LC_ALL=C command -V "$1" 2>/dev/null)" in *function*) return 0 ;; esac
    return 1
}"""

# Functions that look for the real one when they are first called: `module load conda` may bring it.
_CONDA = """
sshpyk_conda() {{
    unset -f conda mamba
    sshpyk_exe=$(command -v conda) || sshpyk_exe=
    sshpyk_root=${{sshpyk_exe%/*/*}}
    [ -n "$sshpyk_exe" ] || sshpyk_root={found}
    if [ -r "$sshpyk_root/etc/profile.d/conda.sh" ]; then
        . "$sshpyk_root/etc/profile.d/conda.sh"
        if [ -r "$sshpyk_root/etc/profile.d/mamba.sh" ]; then
            . "$sshpyk_root/etc/profile.d/mamba.sh"
        elif [ -x "$sshpyk_root/bin/mamba" ]; then
            eval "$("$sshpyk_root/bin/mamba" shell hook --shell {shell})"
        fi
    elif [ -n "$sshpyk_exe" ]; then
        eval "$("$sshpyk_exe" shell.{shell} hook)"
    fi
}}
sshpyk_is_function conda || conda() {{ sshpyk_conda; conda "$@"; }}
sshpyk_is_function mamba || mamba() {{ sshpyk_conda; mamba "$@"; }}
if ! sshpyk_is_function micromamba; then
    for sshpyk_exe in "${{MAMBA_EXE:-}}" "$(command -v micromamba)" "$HOME/.local/bin/micromamba"; do
        if [ -x "$sshpyk_exe" ]; then
            eval "$("$sshpyk_exe" shell hook --shell {shell})"
            break
        fi
    done
fi"""

_MODULE = """
for sshpyk_file in "${{LMOD_PKG:-}}/init/{shell}" "${{MODULESHOME:-}}/init/{shell}" \\
    /etc/profile.d/modules.sh /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh \\
    /usr/share/modules/init/{shell} /usr/share/Modules/init/{shell} \\
    /usr/share/lmod/lmod/init/{shell}
do
    sshpyk_is_function module && break
    [ ! -r "$sshpyk_file" ] || . "$sshpyk_file"
done"""

# What fails in a function or a sourced file is that one's business; a command of the lines that fails
# ends them. bash: BASH_COMMAND would be the last command inside of a function that failed, hence the note
# of each command before it runs, and of the one before: the ERR trap's own is noted too.
# zsh: its ZERR does not tell a function that fails from a command in it, so the next command looks back.
_TRAPS = {
    "bash": """
sshpyk_err() { sshpyk_status=$1; [ ${#BASH_SOURCE[@]} -ne 2 ] || sshpyk_failed "$sshpyk_last"; }
trap '[ ${#BASH_SOURCE[@]} -ne 1 ] || sshpyk_runs "$BASH_COMMAND"' DEBUG
trap 'sshpyk_err $?' ERR""",
    "zsh": """
trap 'sshpyk_was=$?
if [ $#funcstack -eq 1 ]; then
    case "$sshpyk_was $sshpyk_now" in
        "0 "* | *"&&"*) sshpyk_runs "$ZSH_DEBUG_CMD" ;;
        *) sshpyk_status=$sshpyk_was; sshpyk_failed "$sshpyk_now" ;;
    esac
fi' DEBUG""",
}
_UNTRAPS = {"bash": "trap - DEBUG ERR", "zsh": "trap - DEBUG"}

_LEAD = """
case $PATH in
    {folder}:*) ;;
    *) PATH={folder}:$PATH; export PATH ;;
esac"""

_SCRIPT = """
{profile}
{functions}
sshpyk_note={note}
sshpyk_status=0
sshpyk_now=
sshpyk_runs() {{
    sshpyk_last=$sshpyk_now
    sshpyk_now=$1
    printf 'lines\n%s\n' "$1" >| "$sshpyk_note"
}}
sshpyk_failed() {{
    {untrap}
    printf 'failed\\n%s\\n' "$1" >| "$sshpyk_note"
    exit "$sshpyk_status"
}}
echo lines >| "$sshpyk_note"
{trap}
eval {lines}
sshpyk_status=$?
{untrap}
[ "$sshpyk_status" = 0 ] || sshpyk_failed "$sshpyk_now"
{exports}
cd {cwd}
echo over >| "$sshpyk_note"
exec "$@"
"""
