"""Files to and from Azure Blob storage, moved by the nodes of a pool.

    container -> _sources + naming (what goes where) -> plan (jobs) -> transfer -> _batch (nodes)
                                                                     _batch -> _files, store (_rest)

Names are loaded when they are first used: a node that moves files loads `_batch` and what is below
it, and nobody loads azure.*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.storage._dry_run import Plan as Plan
    from azpool.storage._retry import RetryOptions as RetryOptions
    from azpool.storage.container import Container as Container
    from azpool.storage.container import Endpoint as Endpoint
    from azpool.storage.options import Overwrite as Overwrite
    from azpool.storage.options import TransferOptions as TransferOptions
    from azpool.storage.outcome import FileOutcome as FileOutcome
    from azpool.storage.outcome import Progress as Progress
    from azpool.storage.store import BlobInfo as BlobInfo
    from azpool.storage.store import Prefix as Prefix

__all__ = [
    "BlobInfo",
    "Container",
    "Endpoint",
    "FileOutcome",
    "Overwrite",
    "Plan",
    "Prefix",
    "Progress",
    "RetryOptions",
    "TransferOptions",
]

_HOMES = {
    "BlobInfo": "store",
    "Container": "container",
    "Endpoint": "container",
    "FileOutcome": "outcome",
    "Overwrite": "options",
    "Plan": "_dry_run",
    "Prefix": "store",
    "Progress": "outcome",
    "RetryOptions": "_retry",
    "TransferOptions": "options",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"azpool.storage.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
