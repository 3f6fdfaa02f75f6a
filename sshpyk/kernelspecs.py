"""kernel.json files: where Jupyter looks for them, what they hold, how they are written.

The one owner of the schema, together with :mod:`.kernelconfig` (the part that is sshpyk's own).
Who calls: the CLI (all of it), the stand-in (:func:`load`).

Format: https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs and, for
``kernel_provisioner``, .../provisioning.html.
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InvalidInput, SshpykError
from .kernelconfig import Mount, RemoteKernel, check_kernel_name, check_text

__all__ = [
    "PROVISIONER",
    "BrokenKernelspec",
    "LocalKernelspec",
    "Mount",
    "RemoteKernel",
    "check_new_name",
    "find",
    "is_sshpyk",
    "kernel_dirs",
    "load",
    "load_all",
    "parse_document",
    "read_document",
    "remote_from_metadata",
    "render_kernel_json",
    "user_kernel_dir",
    "write_kernelspec",
]

PROVISIONER = "sshpyk-provisioner"


@dataclass(frozen=True)
class LocalKernelspec:
    """A kernel.json of this machine; ``remote`` is set when sshpyk is its provisioner."""

    name: str
    resource_dir: Path
    argv: tuple[str, ...]
    display_name: str
    language: str
    interrupt_mode: str = "signal"
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    remote: RemoteKernel | None = None


@dataclass(frozen=True)
class BrokenKernelspec:
    """A kernel.json that cannot be used, and why; ``sshpyk`` is None when that cannot be told."""

    name: str
    resource_dir: Path
    reason: str
    sshpyk: bool | None = None


def is_sshpyk(document: Mapping[str, Any]) -> bool:
    """Tell whether a kernel.json (as a dict, well-formed or not) is sshpyk's."""
    metadata = document.get("metadata")
    section = metadata.get("kernel_provisioner") if isinstance(metadata, Mapping) else None
    return isinstance(section, Mapping) and section.get("provisioner_name") == PROVISIONER


def remote_from_metadata(metadata: Mapping[str, Any]) -> RemoteKernel | None:
    """Return the remote kernel of a kernelspec's metadata; None when it is not sshpyk's.

    Raises InvalidInput when the config breaks a rule.
    """
    if not is_sshpyk({"metadata": metadata}):
        return None
    config = metadata["kernel_provisioner"].get("config")
    if not isinstance(config, Mapping):
        raise InvalidInput("metadata.kernel_provisioner.config is missing or no JSON object")
    return RemoteKernel.from_config(config)


def _member(document: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return a member of kernel.json that has the type of ``default``; else raise InvalidInput."""
    value = document.get(key, default)
    if not isinstance(value, type(default)):
        raise InvalidInput(f"{key} must be a JSON {_JSON_TYPES[type(default)]}, not {value!r}")
    return value


_JSON_TYPES: dict[type, str] = {str: "string", list: "array", dict: "object"}


def parse_document(name: str, folder: Path, document: Mapping[str, Any]) -> LocalKernelspec:
    """Check a whole kernel.json. Raises InvalidInput that says what is wrong with it."""
    argv = _member(document, "argv", [])
    env = _member(document, "env", {})
    metadata = _member(document, "metadata", {})
    mode = _member(document, "interrupt_mode", "signal").lower()
    if not all(isinstance(text, str) for text in [*argv, *env.values()]):
        raise InvalidInput("argv and env must hold strings only")
    if mode not in ("signal", "message"):
        raise InvalidInput(f"interrupt_mode {mode!r}: must be signal or message")
    return LocalKernelspec(
        name=name,
        resource_dir=folder,
        argv=tuple(argv),
        display_name=_member(document, "display_name", ""),
        language=_member(document, "language", ""),
        interrupt_mode=mode,
        env=env,
        metadata=metadata,
        remote=remote_from_metadata(metadata),
    )


def render_kernel_json(
    name: str, display_name: str, language: str, remote: RemoteKernel
) -> dict[str, Any]:
    """Return the kernel.json of a new SSH kernel.

    ``argv`` serves programs that know no provisioners; its first word is a Python because VS Code
    looks for one. ``interrupt_mode`` is "message", as 1.x wrote: it interrupts from every client,
    since one that only signals reaches the stand-in, which translates.
    """
    arguments = ["--kernel", name, "--connection-file", "{connection_file}"]
    metadata: dict[str, Any] = {
        "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": remote.to_config()},
        # jupyter_client 8.9 and later may then put CURVE keys into the connection file.
        "supported_encryption": "curve",
    }
    if language.lower() == "python":
        metadata["debugger"] = True
    return {
        "argv": [sys.executable, "-m", "sshpyk.standin", *arguments],
        "display_name": check_text("display name", display_name),
        "language": check_text("language", language),
        "interrupt_mode": "message",
        "metadata": metadata,
    }


def check_new_name(name: str) -> str:
    """Return the name under which Jupyter will list a new kernel (it ignores case).

    Raises InvalidInput for what Jupyter refuses, and for what a shell would take for an option.
    """
    lowered = check_kernel_name("kernel name", name).lower()
    if lowered.startswith(("-", ".")):
        raise InvalidInput(f"kernel name {name!r}: must not begin with '-' or '.'")
    return lowered


def user_kernel_dir() -> Path:
    """Return the folder of the user's own kernelspecs, which ``add`` writes to."""
    # Imported here: 40 ms (and jupyter_client.kernelspec, which wraps it, 200 ms more).
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "kernels"


def kernel_dirs() -> list[Path]:
    """Return the folders that Jupyter searches for kernelspecs, the first one wins."""
    from jupyter_core.paths import jupyter_path

    ipython = Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser()
    return [Path(folder) for folder in [*jupyter_path("kernels"), str(ipython / "kernels")]]


def _installed() -> Iterator[tuple[str, Path]]:
    """Yield each kernelspec's name, as Jupyter lists it, and its folder."""
    seen = set()
    for parent in kernel_dirs():
        with suppress(OSError):  # not there, or not ours to read: Jupyter does not see it either
            for folder in sorted(parent.iterdir()):
                name = folder.name.lower()
                if name not in seen and (folder / "kernel.json").is_file():
                    seen.add(name)
                    yield name, folder


def find(name: str) -> Path | None:
    """Return the folder of the kernelspec that Jupyter knows by ``name``; None if there is none."""
    return dict(_installed()).get(name.lower())


def existing(name: str) -> Path:
    """Return the folder of a kernelspec. Raises InvalidInput, with near names, if there is none."""
    check_kernel_name("kernel name", name)
    installed = dict(_installed())
    if name.lower() in installed:
        return installed[name.lower()]
    near = difflib.get_close_matches(name.lower(), installed, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "`sshpyk list -n` shows all"
    raise InvalidInput(f"there is no kernel named {name!r}", advice=advice)


def read_document(folder: Path) -> dict[str, Any]:
    """Return the JSON object in ``folder/kernel.json``. Raises InvalidInput if there is none."""
    try:
        document = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{folder / 'kernel.json'}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{folder / 'kernel.json'} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{folder / 'kernel.json'} holds no JSON object")
    return document


def load(name: str) -> LocalKernelspec:
    """Return the kernelspec that Jupyter knows by ``name``.

    Raises InvalidInput when there is none or when its kernel.json cannot be used.
    """
    folder = existing(name)
    document = read_document(folder)
    try:
        return parse_document(name.lower(), folder, document)
    except InvalidInput as error:
        raise InvalidInput(f"{folder / 'kernel.json'}: {error.what}") from error


def _load_or_reason(name: str, folder: Path) -> LocalKernelspec | BrokenKernelspec:
    try:
        document = read_document(folder)
    except InvalidInput as error:
        return BrokenKernelspec(name, folder, error.what)
    try:
        return parse_document(name, folder, document)
    except InvalidInput as error:
        return BrokenKernelspec(name, folder, error.what, is_sshpyk(document))


def load_all() -> list[LocalKernelspec | BrokenKernelspec]:
    """Return every kernelspec that Jupyter would look at, by name, broken ones with the reason."""
    return [_load_or_reason(name, folder) for name, folder in sorted(_installed())]


def ssh_kernels() -> list[tuple[LocalKernelspec, RemoteKernel]]:
    """Return the SSH kernels that could be used, with where each runs."""
    specs = [spec for spec in load_all() if isinstance(spec, LocalKernelspec)]
    return [(spec, spec.remote) for spec in specs if spec.remote is not None]


def _write_beside(target: Path, text: str, *, private: bool) -> None:
    """Replace ``target`` by a file with ``text``, or leave it exactly as it was."""
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    if private:  # variables may be secrets
        mode = 0o600
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            if mode is not None:
                temporary.chmod(mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_kernelspec(name: str, folder: Path, document: Mapping[str, Any]) -> Path:
    """Check ``document`` and write it to ``folder/kernel.json``, whole or not at all.

    A kernel.json that is a symbolic link stays one: the file behind it is replaced. Raises
    InvalidInput for a document that breaks a rule, SshpykError when it cannot be written.
    """
    remote = parse_document(name, folder, document).remote
    text = json.dumps(document, indent=2) + "\n"
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_beside((folder / "kernel.json").resolve(), text, private=bool(remote and remote.env))
    except OSError as error:
        if fresh:
            with suppress(OSError):
                folder.rmdir()
        raise SshpykError(f"cannot write {folder / 'kernel.json'}: {error.strerror}") from error
    return folder / "kernel.json"
