"""F49: whatever comes in, a decoder takes it or refuses it in the one way that it documents.

Nothing hangs (pytest's time limit), nothing else is raised, and no memory is taken by what was merely
announced.
"""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.malformed.corpus import FOLDER, entries, judge
from tests.unit.malformed.decoders import DECODERS

CORPUS = entries()
# Beside what was fed: as many streams as there may be, and the texts of errors. JSON takes twenty
# times its size once it is read.
SPARE_BYTES = 4 << 20
FACTOR = 40


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Warnings are what a refusal is; thousands of them are no news."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def seeds(decoder: str) -> list[bytes]:
    return [path.read_bytes() for path in CORPUS if path.parent.name == decoder]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut ``data`` into pieces of these sizes, over and over."""
    pieces, place = [], 0
    while data:
        size = sizes[place % len(sizes)]
        pieces.append(data[:size])
        data, place = data[size:], place + 1
    return pieces


FAULTS = ["flip", "huge", "cut", "repeat", "insert", "splice", "drop"]
HUGE = [b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x10\x00\x01", bytes(8), b"[" * 5000]


@st.composite
def mutated(draw: st.DrawFn, decoder: str) -> bytes:
    """A recording with a few faults in it; some with none, or nothing but faults."""
    data = bytearray(draw(st.sampled_from(seeds(decoder))))
    if len(data) > 20_000:
        del data[draw(st.integers(100, 20_000)) :]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 64))
        fault = draw(st.sampled_from(FAULTS))
        if fault == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif fault == "huge":
            word = draw(st.sampled_from(HUGE))
            data[at : at + len(word)] = word
        elif fault == "cut":
            del data[at:]
        elif fault == "repeat":
            data[at:at] = data[at : at + length * 4]
        elif fault == "insert":
            data[at:at] = draw(st.binary(max_size=64))
        elif fault == "splice":
            other = draw(st.sampled_from(seeds(decoder)))
            data[at:] = other[draw(st.integers(0, min(len(other), 20_000))) :][:20_000]
        elif fault == "drop":
            del data[at : at + length]
    return bytes(data)


def bounded(decoder: str, pieces: list[bytes]) -> bool:
    """Run a decoder; return whether it refused; fail if it took more memory than it was given."""
    fed = sum(map(len, pieces))
    tracemalloc.start()
    try:
        refused = DECODERS[decoder](pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < SPARE_BYTES + FACTOR * fed, f"{peak} bytes for {fed}"
    return refused


sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=5)
often = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("decoder", DECODERS)
@often
@given(data=st.data())
def test_f49_arbitrary_bytes_are_taken_or_refused(decoder: str, data: st.DataObject):
    junk = data.draw(st.binary(max_size=2000))
    bounded(decoder, cut(junk, data.draw(sizes)))


@pytest.mark.parametrize("decoder", DECODERS)
@often
@given(data=st.data())
def test_f49_recordings_with_faults_in_them_are_taken_or_refused(decoder: str, data: st.DataObject):
    faulty = data.draw(mutated(decoder))
    bounded(decoder, cut(faulty, data.draw(sizes)))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_f49_the_corpus_through_every_decoder(path: Path, decoder: str):
    data = path.read_bytes()
    whole = bounded(decoder, [data])
    # Where it was cut decides nothing; what is large in one-byte pieces is only slow.
    size = 1 if len(data) < 5000 else 4096
    assert DECODERS[decoder](cut(data, [size])) == whole
    if decoder == path.parent.name:
        assert not judge(decoder, path.name, data)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_corpus_has_something_valid_and_something_refused_for_each_decoder(decoder: str):
    names = [path.name for path in CORPUS if path.parent.name == decoder]
    assert any(name.startswith("valid") for name in names)
    assert any(name.startswith("refused") for name in names)
