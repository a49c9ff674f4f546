"""When a node has had its time, and what it takes to know that."""

from __future__ import annotations

import os
from dataclasses import dataclass

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """When a node is replaced by a fresh one between two items, against leaks.

    The RSS counts what a node shares with the others, such as preloaded modules.
    """

    max_items_per_node: int | None = None
    max_node_rss_bytes: int | None = None


def count_of_nodes(size: int) -> str:
    """Say how many nodes there are."""
    return "1 node" if size == 1 else f"{size} nodes"


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 where it can't be read."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
