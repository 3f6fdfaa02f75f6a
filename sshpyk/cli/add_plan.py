"""What ``sshpyk add`` is going to write: names that nobody has, settings that hold, and the way back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sshpyk import kernelspecs
from sshpyk.cli.options import Wanted
from sshpyk.discovery import names
from sshpyk.discovery.offers import Offer
from sshpyk.errors import InvalidInput
from sshpyk.kernelspecs import LocalKernelspec, RemoteKernel


@dataclass(frozen=True)
class Planned:
    """A kernel.json to be written; ``before`` is the text of the one that it replaces."""

    name: str
    display_name: str
    folder: Path
    document: Mapping[str, Any]
    before: str | None = None

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self.folder / "kernel.json"

    def write(self) -> None:
        """Write it, whole or not at all. Raises SshpykError."""
        kernelspecs.write_kernelspec(self.name, self.folder, self.document)

    def undo(self) -> None:
        """Make it as it was before :meth:`write`, as far as the disk lets us."""
        if self.before is not None:
            with contextlib.suppress(OSError):
                temporary = self.path.with_name(".kernel.json.undo.tmp")
                temporary.write_text(self.before, encoding="utf-8")
                temporary.replace(self.path.resolve())
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
            self.folder.rmdir()


class Planner:
    """Makes plans for one host; ``wanted`` are the user's flags, which hold for each kernel."""

    def __init__(self, host: str, wanted: Wanted, *, replace: bool) -> None:
        self._host = host
        self._wanted = wanted
        self._replace = replace
        self._specs = [spec for spec in kernelspecs.load_all() if isinstance(spec, LocalKernelspec)]
        self._taken = {spec.name for spec in kernelspecs.load_all()}

    def name_of(self, offer: Offer) -> str:
        """Return the name that an offer would get, were nobody in its way."""
        return names.kernel_name(self._host, offer)

    def added_as(self, offer: Offer) -> tuple[str, ...]:
        """Return the kernels of this machine that are this one already."""
        wanted = self._wanted.config.get("ssh_config")
        return tuple(
            spec.name
            for spec in self._specs
            if spec.remote is not None
            and spec.remote.ssh_host_alias == self._host
            and spec.remote.ssh_config == wanted
            and spec.remote.python == offer.python
            and spec.remote.remote_kernel_name == offer.kernel_name
        )

    def earlier(self, offer: Offer) -> tuple[str, ...]:
        """Return the kernels that make it needless to add this one."""
        config = self._wanted.config
        named = config.get("remote_python") or config.get("remote_python_prefix")
        wanted_anyway = self._replace or self._wanted.kernel_name or named
        return () if wanted_anyway else self.added_as(offer)

    def plan(self, offers: Sequence[Offer]) -> list[Planned]:
        """Return what is to be written. Raises InvalidInput before anything has been."""
        if len(offers) > 1 and (self._wanted.kernel_name or self._wanted.display_name):
            raise InvalidInput(
                f"--kernel-name and --display-name are for one kernel, and {len(offers)} were chosen"
            )
        return [self._plan(offer) for offer in offers]

    def _plan(self, offer: Offer) -> Planned:
        if self._wanted.language is not None:
            offer = replace(offer, language=self._wanted.language)
        remote = self._remote_kernel(offer)
        chosen = self._wanted.kernel_name
        name = kernelspecs.check_new_name(self._name(offer) if chosen is None else chosen)
        self._taken.add(name)
        display = self._wanted.display_name
        if display is None:
            display = names.display_name(self._host, offer)
        language = offer.language
        if not language and self._wanted.language is None:
            language = "python"
        document = kernelspecs.render_kernel_json(name, display, language, remote)
        folder = self._folder_for(name)
        path = folder / "kernel.json"
        before = path.read_text(encoding="utf-8") if path.exists() else None
        return Planned(name, display, folder, document, before)

    def _name(self, offer: Offer) -> str:
        """Return a name of ours: with --replace, that of the same kernel of an earlier ``add``."""
        earlier = self.added_as(offer)
        if self._replace and earlier:
            return earlier[0]
        return names.free_name(self.name_of(offer), self._taken)

    def _remote_kernel(self, offer: Offer) -> RemoteKernel:
        config = {**self._wanted.config, "remote_kernel_name": offer.kernel_name}
        if not (config.get("remote_python") or config.get("remote_python_prefix")):
            if offer.prefix:
                config["remote_python_prefix"] = offer.prefix
            else:
                config["remote_python"] = offer.python
        return RemoteKernel.from_config(config)

    def _folder_for(self, name: str) -> Path:
        """Return where to write: the place of the kernel to replace, or one in the user's folder.

        Another's kernelspec is never replaced, nor hidden by one of ours with the same name.
        """
        folder = kernelspecs.find(name)
        if folder is None:
            folder = kernelspecs.user_kernel_dir() / name
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise InvalidInput(f"{folder} is in the way: it is not a plain folder")
            return folder
        if not kernelspecs.is_sshpyk(kernelspecs.read_document(folder)):
            raise InvalidInput(
                f"kernel {name!r} in {folder} is not an SSH kernel and is not replaced",
                advice="choose another --kernel-name",
            )
        if not self._replace:
            raise InvalidInput(
                f"kernel {name!r} exists in {folder}",
                advice="choose another --kernel-name, or give --replace",
            )
        return folder
