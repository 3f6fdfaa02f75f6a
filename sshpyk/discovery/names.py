"""How kernels that are added are called: on this machine, and in a notebook. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from sshpyk.discovery.offers import PYTHON_KERNEL, Offer

_MAX_CHARACTERS = 150


def display_name(host: str, offer: Offer) -> str:
    """Return what a notebook shows: ``gpu1: analysis (Python 3.12)``."""
    if offer.label.lower() == offer.what.lower():
        return f"{host}: {offer.label}"
    return f"{host}: {offer.label} ({offer.what})"


def kernel_name(host: str, offer: Offer) -> str:
    """Return the name that Jupyter lists: ``ssh_gpu1_analysis``, whatever the parts are made of."""
    parts = ["ssh", host, offer.label]
    if offer.kernel_name not in (PYTHON_KERNEL, offer.label):
        parts.append(offer.kernel_name)
    text = "_".join(_safe(part) for part in parts)
    return text[:_MAX_CHARACTERS].rstrip("_.-")


def free_name(name: str, taken: Collection[str]) -> str:
    """Return ``name``, or with a number behind it the first that nobody has."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _safe(text: str) -> str:
    """Replace what Jupyter refuses in a kernel's name; it ignores case."""
    return re.sub(r"[^a-z0-9._-]+", "_", text.lower()).strip("_") or "x"
