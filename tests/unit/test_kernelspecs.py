from __future__ import annotations

import json
import logging
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshpyk import kernelspecs
from sshpyk.errors import InvalidInput, SshpykError
from sshpyk.kernelspecs import BrokenKernelspec, LocalKernelspec, Mount, RemoteKernel

MINIMAL = {
    "ssh_host_alias": "gpu1",
    "remote_python": "/opt/bin/python",
    "remote_kernel_name": "python3",
}


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a Jupyter of its own; return the user's kernels folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    return tmp_path / "jupyter" / "kernels"


def old_document(name: str = "ssh_gpu1_python3", **config: Any) -> dict[str, Any]:
    """Return a kernel.json as sshpyk 1.25's `add` wrote it."""
    base = {
        "ssh": None,
        "ssh_host_alias": "gpu1",
        "remote_python": "/opt/bin/python",
        "remote_kernel_name": "python3",
        "ssh_config": str(Path.home() / ".ssh" / "config"),
    }
    return {
        "argv": [
            "/usr/bin/python3",
            "/usr/bin/sshpyk-kernel",
            f"--SSHKernelApp.kernel_name={name}",
            "--KernelManager.connection_file='{connection_file}'",
        ],
        "display_name": "Remote Python",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {
            "kernel_provisioner": {
                "provisioner_name": "sshpyk-provisioner",
                "config": {**base, **config},
            }
        },
    }


def put(folder: Path, document: Any) -> Path:
    folder.mkdir(parents=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "kernel.json").write_text(text)
    return folder


class TestRemoteKernel:
    def test_minimal_has_the_defaults(self) -> None:
        remote = RemoteKernel.from_config(MINIMAL)
        assert remote.python == "/opt/bin/python"
        assert (remote.launch_timeout, remote.shutdown_timeout) == (60, 10)
        assert (remote.ssh, remote.ssh_config, remote.remote_cwd) == (None, None, None)
        assert remote.to_config() == MINIMAL

    def test_prefix_means_the_interpreter_in_it(self) -> None:
        config = {k: v for k, v in MINIMAL.items() if k != "remote_python"}
        remote = RemoteKernel.from_config({**config, "remote_python_prefix": "/opt/env/"})
        assert remote.python == "/opt/env/bin/python"
        assert remote.remote_python is None

    def test_1x_default_ssh_config_means_no_config(self) -> None:
        config = old_document()["metadata"]["kernel_provisioner"]["config"]
        remote = RemoteKernel.from_config(config)
        assert remote == RemoteKernel.from_config(MINIMAL)

    def test_other_ssh_config_is_expanded(self, tmp_path: Path) -> None:
        remote = RemoteKernel.from_config({**MINIMAL, "ssh_config": "~/.ssh/lab"})
        assert remote.ssh_config == str(tmp_path / ".ssh" / "lab")

    @pytest.mark.parametrize(
        ("older", "value", "present"),
        [
            ("shutdown_time", 7, "shutdown_timeout"),
            ("remote_kernel_launch_timeout", 99, "launch_timeout"),
        ],
    )
    def test_older_name_is_read(self, older: str, value: int, present: str) -> None:
        assert getattr(RemoteKernel.from_config({**MINIMAL, older: value}), present) == value

    def test_present_name_wins_over_the_older(self) -> None:
        config = {**MINIMAL, "shutdown_time": 7, "shutdown_timeout": 8}
        assert RemoteKernel.from_config(config).shutdown_timeout == 8

    def test_pythonhome_of_the_kernel_becomes_its_env(self) -> None:
        config = {**MINIMAL, "remote_kernel_pythonhome": "/opt", "remote_pythonhome": "/usr"}
        assert RemoteKernel.from_config(config).kernel_env == {"PYTHONHOME": "/opt"}
        assert RemoteKernel.from_config(MINIMAL).kernel_env == {}

    def test_both_python_and_prefix_in_a_file_means_python(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        # What `edit --remote-python` of 1.25 made of an older file.
        remote = RemoteKernel.from_config({**MINIMAL, "remote_python_prefix": "/old"})
        assert remote.python == "/opt/bin/python"
        assert "remote_python_prefix is ignored" in caplog.text

    def test_unknown_key_is_kept_and_warned_about(self, caplog: pytest.LogCaptureFixture) -> None:
        remote = RemoteKernel.from_config({**MINIMAL, "launch_timout": 9, "persistent": True})
        assert remote.unknown_keys == ["launch_timout"]
        assert remote.to_config() == {**MINIMAL, "launch_timout": 9, "persistent": True}
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "launch_timout" in caplog.text

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("ssh_host_alias", "-oProxyCommand=evil"),
            ("ssh_host_alias", "a b"),
            ("ssh_host_alias", 7),
            ("remote_python", "/opt/py\nthon"),
            ("remote_python", "-c"),
            ("remote_python", ["python"]),
            ("remote_python", "/opt/\ud800"),
            ("remote_kernel_name", "a/b"),
            ("remote_kernel_name", ".."),
            ("remote_kernel_name", "python3\n"),
            ("remote_kernel_name", "\u212aernel"),  # the Kelvin sign: a k that ignores case
            ("launch_timeout", 0),
            ("launch_timeout", -1),
            ("launch_timeout", float("nan")),
            ("launch_timeout", float("inf")),
            ("launch_timeout", 10**400),
            ("launch_timeout", True),
            ("launch_timeout", "60"),
            ("shutdown_timeout", -0.5),
            ("ssh", "-v"),
            ("ssh_config", "a\x00b"),
            ("remote_cwd", "a\r"),
            ("mount_local_on_remote", "/a:/b"),
            ("mount_local_on_remote", ["/a"]),
            ("mount_local_on_remote", ["/a:/b:c:d"]),
            ("mount_local_on_remote", ["a:/b"]),
            ("mount_local_on_remote", ["/a:/b:"]),
            ("mount_local_on_remote", ["/a:/b:x y"]),
            ("mount_local_on_remote", [3]),
            ("sshfs_enabled", 1),
            ("activate", 1),
            ("activate", "a\x00b"),
            ("remote_command", "nice 'x"),
            ("remote_command", "''"),
            ("remote_command", ["nice"]),
            ("remote_cwd", "{home}/x"),
            ("remote_cwd", "/x/{notebook_dir}"),
            ("pass_env", "AWS"),
            ("pass_env", "*"),
        ],
    )
    def test_bad_value_is_refused_by_key_and_value(self, key: str, value: object) -> None:
        with pytest.raises(InvalidInput) as caught:
            RemoteKernel.from_config({**MINIMAL, key: value})
        culprit = value[0] if isinstance(value, list) and key.startswith("mount") else value
        assert repr(culprit) in caught.value.what
        assert "\n" not in caught.value.what

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (["A=1"], "list"),
            ({"A": 1}, "env.A"),
            ({"A B": "s3cret"}, "A B"),
            ({"A": "\0"}, "env.A"),
        ],
    )
    def test_bad_variable_is_named_and_its_value_is_not(self, value: object, named: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            RemoteKernel.from_config({**MINIMAL, "env": value})
        assert named in caught.value.what
        assert "s3cret" not in str(caught.value)

    def test_what_is_around_the_kernel_is_kept(self) -> None:
        config = {
            **MINIMAL,
            "activate": "module load cuda\nconda activate x",
            "env": {"A": "1", "B": ""},
            "pass_env": ["AWS_*", "HF_TOKEN"],
            "remote_command": "apptainer exec 'my image.sif'",
            "remote_cwd": "{notebook_dir}",
        }
        remote = RemoteKernel.from_config(config)
        assert remote.to_config() == config
        assert remote.kernel_env == {"A": "1", "B": ""}
        assert remote.wrapper == ["apptainer", "exec", "my image.sif"]

    @pytest.mark.parametrize("key", [*MINIMAL])
    def test_missing_key_is_named(self, key: str) -> None:
        config = {k: v for k, v in MINIMAL.items() if k != key}
        with pytest.raises(InvalidInput, match=key):
            RemoteKernel.from_config(config)

    def test_exactly_one_interpreter(self) -> None:
        with pytest.raises(InvalidInput, match="both"):
            RemoteKernel("h", "k", remote_python="p", remote_python_prefix="q")
        with pytest.raises(InvalidInput, match="neither"):
            RemoteKernel("h", "k")


PATHS = st.from_regex(r"/[a-zA-Z0-9 ._äß\"$-]{0,19}[a-z]", fullmatch=True)
MOUNTS = st.builds(
    Mount, PATHS, PATHS, st.lists(st.sampled_from(["allow_other", "uid=3", "a_b="])).map(tuple)
)
REMOTES = st.builds(
    RemoteKernel,
    ssh_host_alias=st.sampled_from(["gpu1", "me@gpu-1.lab", "UPPER"]),
    remote_kernel_name=st.from_regex(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}", fullmatch=True),
    remote_python=PATHS,
    launch_timeout=st.floats(min_value=0.001, max_value=600),
    shutdown_timeout=st.integers(1, 600).map(float),
    ssh=st.none() | PATHS,
    ssh_config=st.none() | PATHS,
    remote_cwd=st.none() | PATHS,
    remote_kernel_pythonhome=st.none() | PATHS,
    sshd=st.none() | PATHS,
    remote_sshfs=st.none() | PATHS,
    ssh_host_alias_local_on_remote=st.none() | st.just("laptop"),
    mount_local_on_remote=st.lists(MOUNTS, max_size=2).map(tuple),
    sshfs_enabled=st.booleans(),
    extra=st.dictionaries(
        st.sampled_from(["future", "other"]), st.integers() | st.lists(st.text())
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(REMOTES)
def test_config_survives_json(remote: RemoteKernel) -> None:
    assert RemoteKernel.from_config(json.loads(json.dumps(remote.to_config()))) == remote


@given(st.dictionaries(st.sampled_from([*MINIMAL, *vars(RemoteKernel("h", "k", "p"))]), JSON))
def test_any_config_is_read_or_refused(config: dict[str, Any]) -> None:
    try:
        remote = RemoteKernel.from_config({**MINIMAL, **config})
    except InvalidInput:
        pass
    else:
        assert remote.python


@given(
    st.dictionaries(
        st.sampled_from(["argv", "env", "display_name", "language", "metadata", "interrupt_mode"]),
        JSON | st.just({"kernel_provisioner": {"provisioner_name": "sshpyk-provisioner"}}),
    )
)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        spec = kernelspecs.parse_document("x", Path("/x"), document)
    except InvalidInput:
        pass
    else:
        assert (spec.remote is not None) == kernelspecs.is_sshpyk(document)


class TestNames:
    def test_jupyter_ignores_case(self) -> None:
        assert kernelspecs.check_new_name("GPU.1_a-b") == "gpu.1_a-b"

    @pytest.mark.parametrize(
        "name", ["", "a b", "ä", "a/b", ".", "..", "-x", ".hidden", "a\n", "x" * 201]
    )
    def test_refused(self, name: str) -> None:
        with pytest.raises(InvalidInput):
            kernelspecs.check_new_name(name)


class TestRender:
    def test_document_of_a_python_kernel(self) -> None:
        remote = RemoteKernel.from_config(MINIMAL)
        document = kernelspecs.render_kernel_json("gpu", "GPU", "python", remote)
        assert document["argv"] == [
            sys.executable,
            *("-m", "sshpyk.standin", "--kernel", "gpu", "--connection-file", "{connection_file}"),
        ]
        assert document["interrupt_mode"] == "message"
        assert document["metadata"] == {
            "kernel_provisioner": {"provisioner_name": "sshpyk-provisioner", "config": MINIMAL},
            "supported_encryption": "curve",
            "debugger": True,
        }

    def test_debugger_is_offered_for_python_only(self) -> None:
        document = kernelspecs.render_kernel_json("r", "R", "R", RemoteKernel.from_config(MINIMAL))
        assert "debugger" not in document["metadata"]

    def test_jupyter_reads_what_was_written(self, kernels: Path) -> None:
        from jupyter_client.kernelspec import KernelSpecManager

        remote = RemoteKernel.from_config(MINIMAL)
        document = kernelspecs.render_kernel_json("gpu", "GPU \u00e4", "python", remote)
        kernelspecs.write_kernelspec("gpu", kernels / "gpu", document)
        manager = KernelSpecManager()
        assert Path(manager.find_kernel_specs()["gpu"]) == kernels / "gpu"
        read = manager.kernel_spec_class.from_resource_dir(str(kernels / "gpu"))
        assert (read.display_name, read.argv) == ("GPU \u00e4", document["argv"])
        assert read.metadata == document["metadata"]


class TestWrite:
    def test_new_file_follows_the_umask_and_leaves_no_other(self, kernels: Path) -> None:
        path = kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document())
        assert json.loads(path.read_text()) == old_document()
        assert [entry.name for entry in path.parent.iterdir()] == ["kernel.json"]
        probe = kernels / "probe"
        probe.touch()
        assert path.stat().st_mode == probe.stat().st_mode

    def test_mode_of_an_existing_file_stays(self, kernels: Path) -> None:
        path = kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document())
        path.chmod(0o640)
        kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document(launch_timeout=9))
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert "launch_timeout" in path.read_text()

    def test_link_stays_a_link(self, kernels: Path, tmp_path: Path) -> None:
        real = tmp_path / "dotfiles.json"
        real.write_text("{}")
        (kernels / "gpu").mkdir(parents=True)
        (kernels / "gpu" / "kernel.json").symlink_to(real)
        kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document())
        assert (kernels / "gpu" / "kernel.json").is_symlink()
        assert json.loads(real.read_text()) == old_document()

    def test_invalid_document_changes_nothing(self, kernels: Path) -> None:
        path = kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document())
        before = path.read_text()
        with pytest.raises(InvalidInput):
            kernelspecs.write_kernelspec("gpu", path.parent, old_document(launch_timeout=-1))
        with pytest.raises(InvalidInput):
            kernelspecs.write_kernelspec("new", kernels / "new", old_document(launch_timeout=-1))
        assert path.read_text() == before
        assert [entry.name for entry in kernels.iterdir()] == ["gpu"]

    def test_failure_leaves_the_file_as_it_was(
        self, kernels: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = kernelspecs.write_kernelspec("gpu", kernels / "gpu", old_document())
        before = path.read_text()

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(SshpykError, match="No space left") as caught:
            kernelspecs.write_kernelspec("gpu", path.parent, old_document(launch_timeout=9))
        assert caught.value.exit_code == 1
        assert path.read_text() == before
        assert [entry.name for entry in path.parent.iterdir()] == ["kernel.json"]
        with pytest.raises(SshpykError):
            kernelspecs.write_kernelspec("new", kernels / "new", old_document())
        assert [entry.name for entry in kernels.iterdir()] == ["gpu"]


class TestLoad:
    def test_1x_document(self, kernels: Path) -> None:
        put(kernels / "SSH_gpu", old_document())
        spec = kernelspecs.load("ssh_GPU")
        assert (spec.name, spec.display_name) == ("ssh_gpu", "Remote Python")
        assert spec.remote == RemoteKernel.from_config(MINIMAL)
        assert spec.resource_dir == kernels / "SSH_gpu"

    def test_unknown_name_suggests_near_ones(self, kernels: Path) -> None:
        put(kernels / "gpu_python", old_document())
        with pytest.raises(InvalidInput, match="gpu_pyhton") as caught:
            kernelspecs.load("gpu_pyhton")
        assert "gpu_python" in caught.value.advice

    @pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"argv": 3}'])
    def test_unusable_file_is_named(self, kernels: Path, text: str) -> None:
        put(kernels / "bad", text)
        with pytest.raises(InvalidInput, match=r"bad/kernel\.json"):
            kernelspecs.load("bad")

    def test_load_all_lists_broken_ones_with_the_reason(self, kernels: Path) -> None:
        put(kernels / "a_json", "{")
        put(kernels / "b_config", old_document(launch_timeout=-1))
        put(kernels / "c_other", {"argv": [], "display_name": 3})
        put(kernels / "d_fine", old_document())
        put(kernels / "e_local", {"argv": ["x"], "display_name": "X", "language": "x"})
        (kernels / "f_empty").mkdir()
        listed = {spec.name: spec for spec in kernelspecs.load_all()}
        broken = {name: s for name, s in listed.items() if isinstance(s, BrokenKernelspec)}
        assert {name: spec.sshpyk for name, spec in broken.items()} == {
            "a_json": None,
            "b_config": True,
            "c_other": False,
        }
        assert "JSON" in broken["a_json"].reason
        assert "launch_timeout -1" in broken["b_config"].reason
        assert isinstance(listed["d_fine"], LocalKernelspec)
        assert isinstance(listed["e_local"], LocalKernelspec)
        assert listed["e_local"].remote is None
        assert "f_empty" not in listed

    def test_bytes_that_are_no_utf8(self, kernels: Path) -> None:
        (kernels / "latin").mkdir(parents=True)
        (kernels / "latin" / "kernel.json").write_bytes(b'{"display_name": "\xe4"}')
        with pytest.raises(InvalidInput, match="not valid JSON"):
            kernelspecs.load("latin")

    def test_first_folder_wins(
        self, kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "first"))
        put(kernels / "gpu", old_document())
        first = put(tmp_path / "first" / "kernels" / "GPU", old_document())
        assert kernelspecs.find("gpu") == first
