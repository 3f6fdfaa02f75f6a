"""``sshpyk edit``: change settings of an SSH kernel; everything else in the file stays."""

from __future__ import annotations

import copy
from typing import Any

import click

from sshpyk import kernelspecs
from sshpyk.cli.complete import ssh_kernels
from sshpyk.cli.options import Wanted, kernel_flags
from sshpyk.cli.results import Edited
from sshpyk.errors import InvalidInput
from sshpyk.kernelconfig import RENAMED, check_text

# Setting one of these takes the other away.
_ALTERNATIVES = {
    "remote_python": "remote_python_prefix",
    "remote_python_prefix": "remote_python",
}


@click.command()
@click.argument("name", required=False, shell_complete=ssh_kernels)
@click.option("--kernel-name", help="The same as NAME.", shell_complete=ssh_kernels)
@kernel_flags
def edit(*, name: str | None, **given: Any) -> Edited:
    """Change an SSH kernel; what is not named stays.

    An empty value removes a setting. --mount-local-on-remote replaces all mounts and --pass-env all
    names; --env adds to the variables there are, and --env '' first removes those.

    \b
    Examples:
      sshpyk edit ssh_gpu1_analysis --remote-python-prefix /opt/conda/envs/new
      sshpyk edit ssh_gpu1_analysis --display-name "ML on gpu1" --launch-timeout 120
      sshpyk edit ssh_gpu1_analysis --remote-cwd ""
      sshpyk edit ssh_gpu1_analysis --activate 'conda activate x'
    """
    wanted = Wanted.from_options(given)
    name = _the_name(name, wanted.kernel_name)
    folder = kernelspecs.existing(name)
    document = kernelspecs.read_document(folder)
    if not kernelspecs.is_sshpyk(document):
        raise InvalidInput(f"kernel {name!r} in {folder} is not an SSH kernel: it stays as it is")
    edited = apply_changes(document, wanted)
    remote = kernelspecs.parse_document(name, folder, edited).remote
    if remote and {"ssh", "ssh_config"} & set(wanted.config):
        remote.target()  # what is named must be here
    changes = _differences(document, edited)
    path = folder / "kernel.json"
    if changes:
        path = kernelspecs.write_kernelspec(folder.name.lower(), folder, edited)
    return Edited(folder.name.lower(), path, changes)


def _the_name(argument: str | None, option: str | None) -> str:
    if not (argument or option):
        raise click.UsageError("name the kernel to change; `sshpyk list` shows them")
    if argument and option and argument != option:
        raise click.UsageError(f"one kernel at a time, not {argument!r} and {option!r}")
    return argument or option or ""


def apply_changes(document: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Return a copy of a kernel.json with the wanted changes. Raises InvalidInput if there are none."""
    edited = copy.deepcopy(document)
    shown = {"display_name": wanted.display_name, "language": wanted.language}
    top = {key: check_text(key, value) for key, value in shown.items() if value is not None}
    if not top and not wanted.config:
        raise InvalidInput("nothing to change: name at least one setting")
    edited.update(top)
    section = edited["metadata"]["kernel_provisioner"]
    config = section.get("config")
    if not isinstance(config, dict):
        config = section["config"] = {}
    for key, value in wanted.config.items():
        before = config.get(key)
        older = [old for old, present in RENAMED.items() if present == key]
        for other in (key, _ALTERNATIVES.get(key, key), *older):
            if value or other == key or other in older:
                config.pop(other, None)
        if key == "env" and not wanted.fresh_env and isinstance(before, dict):
            value = {**before, **value}
        if value not in ("", [], {}):
            config[key] = value
    return edited


def _differences(
    before: dict[str, Any], after: dict[str, Any]
) -> tuple[tuple[str, object, object], ...]:
    old, new = _settings(before), _settings(after)
    keys = sorted(set(old) | set(new))
    changed = (key for key in keys if old.get(key) != new.get(key))
    return tuple((key, _shown(key, old.get(key)), _shown(key, new.get(key))) for key in changed)


def _shown(key: str, value: object) -> object:
    """Hide the variables' values: they may be secrets."""
    return dict.fromkeys(value, "***") if key == "env" and isinstance(value, dict) else value


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    config = document["metadata"]["kernel_provisioner"].get("config")
    top = {key: document.get(key) for key in ("display_name", "language")}
    return {**top, **(config if isinstance(config, dict) else {})}
