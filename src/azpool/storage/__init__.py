"""Files to and from Azure Blob storage, moved by the nodes of a pool.

    container -> _sources + naming (what goes where) -> plan (jobs) -> transfer -> _batch (nodes)
                                                                     _batch -> _files, store (_rest)

Importing this loads no azure.* and no client.
"""

from azpool.storage._retry import RetryOptions as RetryOptions
from azpool.storage.container import Container as Container
from azpool.storage.container import Endpoint as Endpoint
from azpool.storage.outcome import FileOutcome as FileOutcome
from azpool.storage.outcome import Progress as Progress
from azpool.storage.store import BlobInfo as BlobInfo
from azpool.storage.store import Prefix as Prefix

__all__ = [
    "BlobInfo",
    "Container",
    "Endpoint",
    "FileOutcome",
    "Prefix",
    "Progress",
    "RetryOptions",
]
