from __future__ import annotations

import pytest

from sshpyk.discovery.names import kernel_name
from sshpyk.discovery.offers import Offer, State
from sshpyk.discovery.picks import match, pick
from sshpyk.errors import InvalidInput


def offer(label: str, state: State = State.READY, kernel: str = "python3") -> Offer:
    place = f"/opt/envs/{label}"
    return Offer(label, "python", "3.12.1", place, f"{place}/bin/python", place, kernel, state)


OFFERS = [
    offer("analysis"),
    offer("base"),
    offer("ml-gpu"),
    offer("my env"),
    offer("stats", kernel="ir"),
    offer("bare", State.NO_IPYKERNEL),
]


def name_of(item: Offer) -> str:
    return kernel_name("gpu1", item)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("all", ["analysis", "base", "ml-gpu", "my env", "stats"]),
        ("1", ["analysis"]),
        ("3 1", ["analysis", "ml-gpu"]),
        ("1,3-4", ["analysis", "ml-gpu", "my env"]),
        ("2 - 3", ["base", "ml-gpu"]),
        ("Base", ["base"]),
        ("my env", ["my env"]),
        ("ml*, base", ["base", "ml-gpu"]),
        ("ssh_gpu1_ml-gpu", ["ml-gpu"]),
        ("/opt/envs/base", ["base"]),
        ("ir", ["stats"]),
        ("6", ["bare"]),
        ("bare", ["bare"]),
        ("1,1,analysis", ["analysis"]),
        (" , ", []),
    ],
)
def test_pick(text: str, labels: list[str]) -> None:
    assert [item.label for item in pick(text, OFFERS, name_of)] == labels


@pytest.mark.parametrize("text", ["0", "7", "3-1", "nope", "1,nope", "python3", "1-99", "-1"])
def test_pick_what_means_nothing(text: str) -> None:
    with pytest.raises(InvalidInput):
        pick(text, OFFERS, name_of)


def test_match_takes_what_any_pattern_means_in_the_order_of_the_table() -> None:
    assert [item.label for item in match(["m*", "BASE"], OFFERS, name_of)] == [
        "base",
        "ml-gpu",
        "my env",
    ]


def test_match_by_path() -> None:
    assert len(match(["/opt/envs/*"], OFFERS, name_of)) == len(OFFERS)


def test_match_without_any_says_what_there_is() -> None:
    with pytest.raises(InvalidInput, match=r"'x\*' fits nothing.*analysis, base"):
        match(["base", "x*"], OFFERS, name_of)
