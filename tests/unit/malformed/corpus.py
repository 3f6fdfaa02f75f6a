"""The corpus: one file for each thing that another process said, or might say.

``corpus/DECODER/NAME`` is read by the decoder of that name, which must accept it when NAME begins with
``valid`` and refuse it when NAME begins with ``refused``; every other decoder must merely survive it.
The valid ones are also what the property tests mutate. To add a file (a name in words, what it is)::

    python -m tests.unit.malformed.corpus frames refused-hello-of-4-gib < FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.unit.malformed.decoders import DECODERS

FOLDER = Path(__file__).parent / "corpus"


def entries() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def judge(decoder: str, name: str, data: bytes) -> str:
    """Return what is wrong with the decoder's verdict on ``data``; nothing if nothing is."""
    refused = DECODERS[decoder]([data])
    if name.startswith("valid") and refused:
        return f"{decoder} refuses what is valid"
    if name.startswith("refused") and not refused:
        return f"{decoder} accepts what it should refuse"
    return ""


def add(decoder: str, name: str, data: bytes) -> Path:
    wrong = judge(decoder, name, data)
    if wrong:
        raise SystemExit(wrong)
    path = FOLDER / decoder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    print(add(sys.argv[1], sys.argv[2], sys.stdin.buffer.read()))  # noqa: T201
