from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sshpyk.discovery.finder import Environment, Findings, RemoteSpec
from sshpyk.discovery.names import display_name, free_name, kernel_name
from sshpyk.discovery.offers import Offer, State, offer_for, offers_from, unseen_offer

PLAIN = ("-m", "ipykernel_launcher", "-f", "{connection_file}")


def env(prefix: str, kind: str = "conda", *, specs: bool = True, **changes: object) -> Environment:
    python = f"{prefix}/bin/python"
    own = RemoteSpec("python3", f"{prefix}/k", (python, *PLAIN), language="python")
    made = Environment(
        python, kind, prefix, "3.12.1", ipykernel=True, pip=True, specs=(own,) if specs else ()
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def found(*environments: Environment, specs: tuple[RemoteSpec, ...] = ()) -> Findings:
    return Findings("Linux", "/home/u", "/usr/bin/python3", environments, specs)


def called(findings: Findings) -> list[tuple[str, str]]:
    return [
        (kernel_name("gpu1", offer), display_name("gpu1", offer)) for offer in offers_from(findings)
    ]


@pytest.mark.parametrize(
    ("environment", "name", "display"),
    [
        (env("/home/u/miniconda3"), "ssh_gpu1_base", "gpu1: base (Python 3.12)"),
        (
            env("/opt/conda/envs/analysis"),
            "ssh_gpu1_analysis",
            "gpu1: analysis (Python 3.12)",
        ),
        (env("/home/u/thesis/.venv", "venv"), "ssh_gpu1_thesis", "gpu1: thesis (Python 3.12)"),
        (env("/home/u/.venv", "venv"), "ssh_gpu1_venv", "gpu1: venv (Python 3.12)"),
        (env("/opt/venv", "venv"), "ssh_gpu1_venv", "gpu1: venv (Python 3.12)"),
        (
            env("/home/u/.pyenv/versions/3.12.1", "pyenv"),
            "ssh_gpu1_pyenv-3.12.1",
            "gpu1: pyenv-3.12.1 (Python 3.12)",
        ),
        (
            env("/h/.local/share/uv/python/cpython-3.12.1-linux-x86_64-gnu", "uv"),
            "ssh_gpu1_uv-3.12.1",
            "gpu1: uv-3.12.1 (Python 3.12)",
        ),
        (
            env("/usr", "system", path="/usr/bin/python3"),
            "ssh_gpu1_system",
            "gpu1: system (Python 3.12)",
        ),
        (env("/w/Größe é", "venv"), "ssh_gpu1_gr_e", "gpu1: Größe é (Python 3.12)"),
    ],
)
def test_one_environment_is_well_named(environment: Environment, name: str, display: str) -> None:
    assert called(found(environment)) == [(name, display)]


def test_name_is_one_that_jupyter_accepts_whatever_the_parts_are() -> None:
    offer = replace(unseen_offer("/p", "", "python3"), label="x" * 300 + "é/\n")
    assert re.fullmatch(r"[a-z0-9._-]{1,200}", kernel_name("Me@[::1]:22", offer))


def test_offer_says_how_its_kernel_is_reached() -> None:
    conda, system = offers_from(
        found(env("/opt/conda/envs/ml"), env("/usr", "system", path="/usr/bin/python3"))
    )
    assert (conda.prefix, conda.python) == ("/opt/conda/envs/ml", "/opt/conda/envs/ml/bin/python")
    assert (system.prefix, system.python) == ("", "/usr/bin/python3")
    assert (system.place, conda.kernel_name) == ("/usr/bin/python3", "python3")


def test_same_labels_are_told_apart_by_their_folders() -> None:
    rows = offers_from(
        found(
            env("/home/u/work/thesis/.venv", "venv"),
            env("/home/u/old/thesis/.venv", "venv"),
            env("/a/x/b/c/env", "venv"),
        )
    )
    assert sorted(row.label for row in rows) == ["c", "old/thesis", "work/thesis"]


def test_same_labels_without_any_difference_get_numbers() -> None:
    one = env("/home/u/t/.venv", "venv")
    rows = offers_from(found(one, replace(one, path="/home/u/t/.venv/bin/python3.12")))
    assert [row.label for row in rows] == ["home/u/t", "home/u/t-2"]


def test_order_kernels_first_then_what_lacks_ipykernel_then_the_unusable() -> None:
    rows = offers_from(
        found(
            env("/usr", "system", path="/usr/bin/python3"),
            env("/v/3.10.1", "pyenv"),
            env("/v/3.9.1", "pyenv"),
            env("/v/old", "venv", version="3.6.9", ipykernel=False, specs=False),
            env("/v/bare", "venv", ipykernel=False, specs=False),
            env("/v/broken", "venv", version="", reason="no libpython", specs=False),
            env("/v/good", "venv"),
        )
    )
    assert [(row.label, row.state.name) for row in rows] == [
        ("good", "READY"),
        ("pyenv-3.9.1", "READY"),
        ("pyenv-3.10.1", "READY"),
        ("system", "READY"),
        ("bare", "NO_IPYKERNEL"),
        ("broken", "UNUSABLE"),
        ("old", "UNUSABLE"),
    ]
    assert rows[-1].reason == "Python 3.6.9: 3.8 or later is needed"


def test_tool_is_offered_only_when_it_brings_a_kernel() -> None:
    lab, ruff = env("/t/jupyterlab", "tool"), env("/t/ruff", "tool", ipykernel=False, specs=False)
    assert [row.label for row in offers_from(found(lab, ruff))] == ["jupyterlab"]


def test_kernels_of_other_languages_in_an_environment() -> None:
    r = RemoteSpec("ir", "/k/ir", ("/opt/conda/envs/r/lib/R/bin/R", "-e", "x"), "R", "R")
    environment = env("/opt/conda/envs/r")
    rows = offers_from(found(replace(environment, specs=(*environment.specs, r))))
    assert [(row.label, row.language, row.kernel_name) for row in rows] == [
        ("r", "R", "ir"),
        ("r", "python", "python3"),
    ]
    assert (display_name("g", rows[0]), kernel_name("g", rows[0])) == ("g: r", "ssh_g_r_ir")
    assert rows[0].python == "/opt/conda/envs/r/bin/python"


def test_kernelspecs_of_no_environment() -> None:
    ml = "/opt/conda/envs/ml/bin/python"
    specs = (
        RemoteSpec("ir", "/k/ir", ("R", "-e", "x"), "R", "R"),
        RemoteSpec("ml", "/k/ml", (ml, *PLAIN), "ML", "python"),  # `ipykernel install --user`
        RemoteSpec("python3", "/k/python3", ("python3", *PLAIN), "", "python"),
        RemoteSpec("cuda", "/k/cuda", (ml, *PLAIN), "", "python", has_env=True),
        RemoteSpec("far", "/k/far", ("/net/x/bin/python", *PLAIN), "", "python"),
    )
    rows = offers_from(found(env("/opt/conda/envs/ml"), specs=specs))
    assert [(row.label, row.python) for row in rows] == [
        ("ml", ml),
        ("cuda", ml),
        ("far", "/net/x/bin/python"),
        ("ir", "/usr/bin/python3"),
    ]


class TestNamedPython:
    """``--remote-python``: the host was asked about one interpreter only."""

    def test_plain(self) -> None:
        offer = offer_for(found(env("/opt/conda/envs/ml")), "python3")
        assert (offer.label, offer.version, offer.state) == ("ml", "3.12.1", State.READY)

    def test_without_ipykernel(self) -> None:
        bare = env("/v/bare", "venv", ipykernel=False, specs=False)
        assert offer_for(found(bare), "python3").state is State.NO_IPYKERNEL

    def test_kernelspec_of_another_language(self) -> None:
        r = RemoteSpec("ir", "/k/ir", ("R",), "R", "R")
        bare = env("/v/bare", "venv", ipykernel=False, specs=False)
        offer = offer_for(found(bare, specs=(r,)), "IR")
        assert (offer.language, offer.label, offer.state) == ("R", "ir", State.READY)

    def test_kernelspec_that_was_not_seen_is_left_to_the_check(self) -> None:
        bare = env("/v/bare", "venv", ipykernel=False, specs=False)
        assert offer_for(found(bare), "nope").state is State.READY

    def test_too_old(self) -> None:
        old = env("/v/old", "venv", version="2.7.18")
        assert offer_for(found(old), "python3").state is State.UNUSABLE

    @pytest.mark.parametrize(
        ("python", "prefix", "kernel", "name"),
        [
            ("/opt/env/bin/python", "/opt/env", "python3", "ssh_g_env"),
            ("/opt/env/bin/python3", "", "python3", "ssh_g_env"),
            ("/usr/bin/python3", "", "python3", "ssh_g_system"),
            ("~/venv/bin/python", "~/venv", "python3", "ssh_g_venv"),
            ("python3", "", "python3", "ssh_g_python3"),
            ("/usr/bin/python3", "", "ir", "ssh_g_ir"),
        ],
    )
    def test_nobody_looked(self, python: str, prefix: str, kernel: str, name: str) -> None:
        assert kernel_name("g", unseen_offer(python, prefix, kernel)) == name


def test_free_name() -> None:
    assert free_name("a", {"a", "a_2"}) == "a_3"
    assert free_name("a", ()) == "a"


def test_display_name_does_not_repeat_itself() -> None:
    offer = Offer("R", "R", "", "/k", "/p", "", "ir")
    assert display_name("g", offer) == "g: R"
