"""Ask a container what it holds, with retries and as few requests as the question allows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from azpool.errors import NotFound, StorageError
from azpool.storage._retry import RetryOptions, delay_before_retry
from azpool.storage.store import BlobInfo

if TYPE_CHECKING:
    from azpool.storage.store import Prefix, Store

__all__ = ["Listing", "with_retries"]

T = TypeVar("T")

LOOK_UP_THREADS = 16
# A listing's page has 5,000 names and takes about as long as this many look-ups side by side.
LIST_FROM_NAMES = 64


def with_retries(call: Callable[[], T], retry: RetryOptions) -> T:
    """Make one call in this thread, again where its error says that it may succeed."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except StorageError as error:
            pause = delay_before_retry(error, attempt, retry, random.random())
            if pause is None:
                raise
        time.sleep(pause)


class Listing:
    """What a container holds, as far as one call has asked.

    Args:
        store: the container.
        retry: how persistent each question is.
        folders: whether a blob is also asked about blobs below its name.
    """

    def __init__(self, store: Store, retry: RetryOptions, *, folders: bool = True) -> None:
        self._store = store
        self._retry = retry
        self._folders = folders
        self._known: dict[str, tuple[BlobInfo | None, bool]] = {}

    def under(self, prefix: str) -> Iterator[BlobInfo]:
        """Yield all blobs whose names begin with `prefix`, in order, page by page."""
        for page in self.pages(prefix):
            yield from (entry for entry in page if isinstance(entry, BlobInfo))

    def pages(
        self, prefix: str, *, delimiter: str | None = None
    ) -> Iterator[Sequence[BlobInfo | Prefix]]:
        """Yield a listing's pages; each is asked for again where that may help."""
        marker = ""
        while True:
            page, marker = with_retries(
                partial(self._store.list_page, prefix, delimiter=delimiter, marker=marker),
                self._retry,
            )
            yield page
            if not marker:
                return

    def begins_with(self, name: str) -> BlobInfo | None:
        """Answer the first blob whose name begins so; no look at the blob itself is needed."""
        return next(self.under(name), None)

    def find(self, name: str) -> tuple[BlobInfo | None, bool]:
        """Answer the blob of this name, if there is one, and whether it is a folder as well."""
        if name not in self._known:
            self._known[name] = with_retries(lambda: self._ask(name), self._retry)
        return self._known[name]

    def _ask(self, name: str) -> tuple[BlobInfo | None, bool]:
        try:
            info = self._store.head(name)
        except NotFound:
            return None, False
        return info, self._folders and next(iter(self._store.list(name + "/")), None) is not None

    def look_up(self, names: Sequence[str]) -> None:
        """Ask for many names ahead of `find`: side by side, or by listing their folder.

        Raises:
            StorageError: the first one that a name met, save that it is not there.
        """
        folders: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        single: list[str] = []
        for group in folders.values():
            if len(group) < LIST_FROM_NAMES:
                single += group
            else:
                self._list_folder(group)
        if len(single) > 1:
            self._ask_side_by_side(single)

    def _list_folder(self, names: list[str]) -> None:
        """Find all of `names`, of one folder, by listing from what they have in common."""
        first, last = min(names), max(names)
        same = next((i for i, c in enumerate(first) if last[i : i + 1] != c), len(first))
        wanted = dict.fromkeys(names)
        blobs: dict[str, BlobInfo] = {}
        folders: set[str] = set()
        for page in self.pages(first[:same], delimiter="/"):
            for entry in page:
                if isinstance(entry, BlobInfo):
                    if entry.name in wanted:
                        blobs[entry.name] = entry
                elif entry.name[:-1] in wanted:
                    folders.add(entry.name)
        for name in names:
            self._known[name] = (blobs.get(name), name + "/" in folders)

    def _ask_side_by_side(self, names: list[str]) -> None:
        work = iter(names)
        lock = threading.Lock()
        errors: list[StorageError] = []

        def run() -> None:
            while not errors:
                with lock:
                    name = next(work, None)
                if name is None:
                    return
                try:
                    self.find(name)
                except StorageError as error:
                    errors.append(error)

        threads = [
            threading.Thread(target=run, name=f"azpool-listing-{n}", daemon=True)
            for n in range(min(LOOK_UP_THREADS, len(names)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
