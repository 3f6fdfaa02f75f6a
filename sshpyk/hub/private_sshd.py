"""A private sshd for hosts that mount folders of this machine through a login of their own.

It listens nowhere: each connection that comes out of the link is handed to an ``sshd -i`` as its stdin
and stdout, so nobody on this machine can reach it, and it ends with that connection, at the latest
with the hub. It runs as the user, admits the user's authorized keys, and does one thing for them: the
confined SFTP server (:mod:`sshpyk.mounts.server`), for the folders that are mounted now.

Its host key is made once and kept, so that what hosts know of it stays true.
Source: sshd(8), sshd_config(5) of OpenSSH 7.6 to 9.2.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from sshpyk.errors import MountError
from sshpyk.mounts.offers import SUBSYSTEM, Offer, write_offers
from sshpyk.paths import state_dir
from sshpyk.ssh.command import shell_word
from sshpyk.wire.private import folder_lock

_PHASE = "starting the private sshd"
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/local/sbin", "/usr/bin")
# Below the user's home folder, as sshd itself has it.
AUTHORIZED_KEYS = (".ssh/authorized_keys", ".ssh/authorized_keys2")
STRICT_MODES = "yes"
_PATIENCE_S = 20.0
_END_S = 2.0
_SAID_BYTES = 1500
_LOG_LIMIT_BYTES = 1_000_000
# Anybody on the host may connect to the tunnel, and each of them costs a process here.
_SPARE_CONNECTIONS = 16
_CONNECTIONS_PER_MOUNT = 4

log = logging.getLogger(__name__)


class HostKey(NamedTuple):
    """The key that the private sshd shows; ``public`` as it stands in known_hosts."""

    path: str
    public: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ssh prints it."""
        digest = hashlib.sha256(base64.b64decode(self.public.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def find_sshd(named: str = "") -> str:
    """Return the path of sshd: the one that is named, else on PATH or where systems keep it.

    Raises MountError.
    """
    program = os.path.expanduser(named or "sshd")
    places = os.pathsep.join([*os.get_exec_path(), *_SBIN])
    found = shutil.which(program, path=places)
    if found is None:
        raise MountError(
            f"there is no {program} on this machine",
            phase=_PHASE,
            advice="install the OpenSSH server (it need not run), name it with --sshd, or leave "
            "ssh_host_alias_local_on_remote out: mounts over the link need none",
            code="MOUNT-NO-SSHD",
        )
    return os.path.abspath(found)  # sshd wants to know its own whole path


def local_user() -> str:
    """Return the name of the only account here that can be logged in to: sshd is not root."""
    return pwd.getpwuid(os.getuid()).pw_name


class Settings(NamedTuple):
    """What the generated config is made of; ``command`` is for the user's login shell."""

    host_key: str
    user: str
    command: str


def config_text(settings: Settings) -> str:
    """Return an sshd_config that admits one user's keys to one command and to nothing else."""
    # A name with '@' would be read as USER@HOST.
    user = settings.user.replace("@", "?")
    return f"""# made by sshpyk for its mounts
HostKey "{settings.host_key}"
PidFile none
LogLevel VERBOSE

AllowUsers {user}
AuthenticationMethods publickey
PubkeyAuthentication yes
AuthorizedKeysFile {" ".join(AUTHORIZED_KEYS)}
StrictModes {STRICT_MODES}
ExposeAuthInfo yes
PasswordAuthentication no
ChallengeResponseAuthentication no
HostbasedAuthentication no
PermitEmptyPasswords no
PermitRootLogin prohibit-password
UsePAM no
LoginGraceTime 60
MaxSessions 1

Subsystem sftp {SUBSYSTEM}
ForceCommand {settings.command}
# bash reads no .bashrc then, whose output would be taken for SFTP
SetEnv SHLVL=1
PermitTTY no
PermitUserRC no
PermitUserEnvironment no

DisableForwarding yes
AllowTcpForwarding no
AllowStreamLocalForwarding no
AllowAgentForwarding no
GatewayPorts no
PermitTunnel no
X11Forwarding no

# an outage is no reason to end anything
ClientAliveInterval 0
TCPKeepAlive no
UseDNS no
"""


class PrivateSshd:
    """See the module. ``identity`` is the hub's, which names the files; ``umask`` is of new files.

    It is a tunnel's target: :meth:`connect` is called for each connection.
    """

    def __init__(self, sshd: str, identity: str, umask: int) -> None:
        self.sshd = find_sshd(sshd)
        self._umask = umask
        self._folder = state_dir() / "mounts"
        self._identity = identity
        # An earlier one of this hub's may still be closing.
        name = f"{identity}-{os.getpid()}-{secrets.token_hex(4)}"
        self._config = self._folder / f"{name}.conf"
        self._offers_file = self._folder / f"{name}.folders"
        self._offers: dict[str, Offer] = {}
        self._running: set[asyncio.subprocess.Process] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        # What sshd and the server say: the latter's words would else reach nobody, for sshfs ends first.
        self._log = self._folder / f"{name}.log"
        self._log_fd = -1
        self.host_key = HostKey("", "")

    async def prepare(self) -> None:
        """Make what sshd needs, and see that it would run. Raises MountError."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._prepare)

    def _prepare(self) -> None:
        try:
            with folder_lock(str(self._folder)):
                self.host_key = _host_key(self._folder / "host_key")
                self._remove_what_is_left()
            self._log_fd = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            settings = Settings(self.host_key.path, local_user(), self._command())
            _write(self._config, config_text(settings))
        except OSError as error:
            raise _failed(f"cannot write in {self._folder}: {error.strerror or error}") from error
        _run([self.sshd, "-t", "-f", str(self._config)])

    def _remove_what_is_left(self) -> None:
        """Remove the files of hubs to the same host that were killed."""
        for path in self._folder.glob(f"{self._identity}-*"):
            pid = path.name.split("-")[1]
            if pid.isdecimal() and not _is_alive(int(pid)):
                path.unlink(missing_ok=True)

    def _command(self) -> str:
        """Return the forced command, which the user's login shell reads, whichever that is.

        Not from the home folder, where ``python -m`` would find modules that a host may have put there.
        """
        home = pwd.getpwuid(os.getuid()).pw_dir
        words = [sys.executable, "-m", "sshpyk.mounts.server", "--offers", str(self._offers_file)]
        for path in AUTHORIZED_KEYS:
            words += ["--authorized", os.path.join(home, path)]
        words += ["--umask", f"{self._umask:03o}", "--log", str(self._log)]
        return "cd /; exec " + " ".join(shell_word(word, what="path") for word in words)

    def offer(self, mount_id: str, folder: Offer) -> str:
        """Let clients choose a folder; return the name to choose it by."""
        names = {offer.name for offer in self._offers.values()}
        name = folder.name if folder.name not in names else f"/{mount_id}{folder.name}"
        offered = Offer(name, folder.folder, folder.read_only, folder.follow_symlinks)
        self._offers[mount_id] = offered
        self._write_offers()
        return name

    def withdraw(self, mount_id: str) -> None:
        """Offer it no more; who has it keeps it until the connection ends. Idempotent."""
        if self._offers.pop(mount_id, None) is not None:
            self._write_offers()

    @property
    def is_needed(self) -> bool:
        """Whether any folder is offered."""
        return bool(self._offers)

    def _write_offers(self) -> None:
        try:
            _write(self._offers_file, write_offers(self._offers.values()))
        except OSError as error:
            raise _failed(f"cannot write {self._offers_file}: {error.strerror}") from error

    # A tunnel's target

    async def connect(self) -> socket.socket:
        """Return one end of a socket that has an sshd at the other. Raises OSError."""
        most = _SPARE_CONNECTIONS + _CONNECTIONS_PER_MOUNT * len(self._offers)
        if len(self._running) >= most:
            raise OSError(f"{most} connections are open already")
        if self.logged_bytes > _LOG_LIMIT_BYTES:
            os.ftruncate(self._log_fd, 0)
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *[self.sshd, "-i", "-e", "-f", str(self._config)],
                cwd="/",
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._log_fd,
                start_new_session=True,
            )
            stack.pop_all()
        self._running.add(process)
        waiting = asyncio.ensure_future(self._await_end(process))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        ours.setblocking(False)
        return ours

    async def _await_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._running.discard(process)

    def to_record(self) -> dict[str, object]:
        """Return what ``sshpyk tunnels`` shows as the target."""
        return {"host": "", "port": 0, "path": str(self)}

    def __str__(self) -> str:
        return "the private sshd of mounts"

    @property
    def logged_bytes(self) -> int:
        """How long the log is."""
        return os.fstat(self._log_fd).st_size

    def said(self, since_bytes: int) -> str:
        """Return what was logged after the first ``since_bytes``, or its end."""
        size_bytes = self.logged_bytes
        start = max(0, min(since_bytes, size_bytes), size_bytes - _SAID_BYTES)
        tail = os.pread(self._log_fd, _SAID_BYTES, start).decode("utf-8", "replace")
        return tail if start == since_bytes else tail.partition("\n")[2]

    async def close(self) -> None:
        """End what still runs, and remove the files of this hub; the host key stays."""
        await self._wait_for_ends(_END_S)  # by themselves, with their connections
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await self._wait_for_ends(_PATIENCE_S)
        for path in (self._config, self._offers_file, self._log):
            path.unlink(missing_ok=True)
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1

    async def _wait_for_ends(self, timeout_s: float) -> None:
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=timeout_s)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host_key(path: Path) -> HostKey:
    """Return the key, which is made where it is missing; whoever calls holds the folder's lock."""
    if not path.exists():
        making = path.with_suffix(".new")
        making.unlink(missing_ok=True)
        _run([_keygen(), "-q", "-t", "ed25519", "-N", "", "-C", "sshpyk mounts", "-f", str(making)])
        making.with_suffix(".new.pub").unlink(missing_ok=True)
        making.rename(path)
    kind, key = _run([_keygen(), "-y", "-f", str(path)]).split()[:2]
    return HostKey(str(path), f"{kind} {key}")


def _keygen() -> str:
    places = os.pathsep.join([*os.get_exec_path(), *_SBIN])
    found = shutil.which("ssh-keygen", path=places)
    if found is None:
        raise MountError(
            "there is no ssh-keygen on this machine",
            phase=_PHASE,
            advice="install the OpenSSH client",
            code="MOUNT-NO-SSHD",
        )
    return found


def _run(argv: list[str]) -> str:
    """Return what a short-lived program printed. Raises MountError with what it said."""
    try:
        ran = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
            umask=0o077,
        )
    except OSError as error:
        raise _failed(f"cannot run {argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _failed(f"{argv[0]} did not end within {_PATIENCE_S:g} s") from error
    if ran.returncode:
        raise _failed(f"{argv[0]} cannot be used (exit status {ran.returncode})", said=ran.stderr)
    return ran.stdout


def _failed(what: str, said: str = "") -> MountError:
    advice = "name another sshd with --sshd, or leave ssh_host_alias_local_on_remote out"
    return MountError(what, phase=_PHASE, said=said, advice=advice, code="MOUNT-SSHD-FAILED")


def _write(path: Path, text: str) -> None:
    """Write a private file, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
