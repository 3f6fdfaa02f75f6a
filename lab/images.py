"""The lab's images: the base image, the wheels that go into them, and their build."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from steps import BUILD, LAB, REPO, LabError, fingerprint, output_of, run_logged, say, succeeds

BASE_IMAGE = "debian:bookworm-slim"
ROLES = ("laptop", "bastion", "remote")
_INPUTS = (
    "Dockerfile",
    "compose.yaml",
    "entrypoint.sh",
    "ssh_config",
    "sshd_otp_config",
    "pam_sshd_otp",
    "google_authenticator",
    "images.py",
    "other_pythons.sh",
)
_WHEELS = BUILD / "wheels"
# Runs inside the image: what environment markers may ask, and what decides which wheels fit.
_DESCRIBE_PYTHON = """
import json, os, platform, sys
version = platform.python_version()
print(json.dumps({"markers": {
    "implementation_name": sys.implementation.name, "implementation_version": version,
    "os_name": os.name, "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": platform.release(), "platform_system": platform.system(),
    "platform_version": platform.version(), "python_full_version": version,
    "python_version": "%d.%d" % sys.version_info[:2], "sys_platform": sys.platform,
}, "glibc_minor": int(platform.libc_ver()[1].split(".")[1])}))
"""


def requirements() -> dict[str, list[str]]:
    """Return what each role's environment holds, as ``pyproject.toml`` says it.

    The laptop has the package's own dependencies, the extra ``test`` and what drives a JupyterLab
    in a browser; the remote has what a user's host has, a Jupyter kernel and something to plot with.
    """
    content = _load_toml(REPO / "pyproject.toml")
    project, groups = content["project"], content["dependency-groups"]
    test = project["optional-dependencies"]["test"]
    kernel = [entry for entry in test if re.match(r"ipykernel\b", entry)]
    return {
        "laptop": [*project["dependencies"], *test, *groups["lab-laptop"]],
        "remote": [*kernel, *groups["lab-remote"]],
    }


def images_fingerprint() -> str:
    """Digest everything that images and their containers are made from."""
    return fingerprint((LAB / name for name in _INPUTS), json.dumps(requirements()))


def build_images() -> None:
    """Build the machines' images, unless the engine has them as they would be now."""
    mark = images_fingerprint()
    if all(_image_mark(f"sshpyk-lab-{role}") == mark for role in ROLES):
        return
    _ensure_base_image()
    _docker_build("base")
    _prepare_wheels()
    for role in ROLES:
        _docker_build(role, "--label", f"sshpyk.lab.image={mark}")


def build_sshpyk_wheel() -> Path:
    """Build the working tree's wheel; return where it lies."""
    folder = BUILD / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    argv = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder)]
    if importlib.util.find_spec("hatchling"):
        argv.append("--no-build-isolation")  # the build backend is at hand: seconds less
    run_logged("build the sshpyk wheel", [*argv, str(REPO)])
    (wheel,) = folder.glob("sshpyk-*.whl")
    return wheel


def _load_toml(path: Path) -> dict[str, Any]:
    # Python 3.10 has no tomllib; the pip of that Python carries the same parser.
    name = "tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli"
    parsed: dict[str, Any] = importlib.import_module(name).loads(path.read_text())
    return parsed


def _image_mark(image: str) -> str:
    query = [
        "docker",
        "image",
        "inspect",
        "--format",
        '{{index .Config.Labels "sshpyk.lab.image"}}',
    ]
    try:
        return output_of([*query, image])
    except LabError:
        return ""


def _ensure_base_image() -> None:
    if succeeds(["docker", "image", "inspect", BASE_IMAGE]):
        return
    say(f"pulling {BASE_IMAGE} …")
    if not succeeds(["docker", "pull", BASE_IMAGE], timeout_s=240):
        say("no image registry can be reached: making the image from Debian's packages")
        run_logged("make the base image", [LAB / "base-image.sh", BASE_IMAGE])


def _docker_build(target: str, *options: str) -> None:
    image = f"sshpyk-lab-{target}"
    run_logged(
        f"build image {target}",
        ["docker", "build", "--target", target, "--tag", image, *options, LAB],
    )


def _prepare_wheels() -> None:
    """Fill ``.build/wheels`` with all that the images install; this machine's pip knows where from."""
    run = ["docker", "run", "--rm", "--entrypoint", "python3", "sshpyk-lab-base"]
    image = json.loads(output_of([*run, "-c", _DESCRIBE_PYTHON]))
    wanted = requirements()
    mark = json.dumps([wanted, image["markers"]["python_full_version"]])
    done = BUILD / "wheels.done"
    if done.exists() and done.read_text() == mark:
        return
    shutil.rmtree(_WHEELS, ignore_errors=True)
    _WHEELS.mkdir(parents=True)
    markers = BUILD / "markers.json"
    markers.write_text(json.dumps(image["markers"]))
    argv: list[str | Path] = [sys.executable, LAB / "pip_for_image.py", markers]
    argv += ["download", "--dest", _WHEELS]
    for role, entries in wanted.items():
        listed = _WHEELS / f"{role}.txt"
        listed.write_text("".join(f"{entry}\n" for entry in entries))
        argv += ["--requirement", listed]
    run_logged("download wheels", [*argv, *_wheel_tags(image)])
    done.write_text(mark)


def _wheel_tags(image: dict[str, Any]) -> list[str]:
    """Return pip's options for wheels that the image's interpreter can load."""
    markers = image["markers"]
    arch = markers["platform_machine"]
    major, minor = markers["python_version"].split(".")
    platforms = [f"manylinux_2_{glibc}_{arch}" for glibc in range(image["glibc_minor"], 4, -1)]
    platforms += [f"manylinux2014_{arch}", f"linux_{arch}"]
    tags = ["--only-binary=:all:", "--python-version", markers["python_full_version"]]
    tags += ["--implementation", "cp", "--abi", f"cp{major}{minor}"]
    return tags + [arg for platform in platforms for arg in ("--platform", platform)]
