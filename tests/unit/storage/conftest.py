"""Stores for tests without a server: one in memory, and one that fails by a script."""

import hashlib
import itertools
import threading
from typing import NamedTuple

import pytest

from azpool.errors import Conflict, IntegrityError, NotFound
from azpool.storage import _stores
from azpool.storage._http import ClientOptions
from azpool.storage._recipe import StoreRecipe
from azpool.storage._signing import Anonymous
from azpool.storage.store import NO_PROPERTIES, BlobInfo, Prefix, Properties


class Kept(NamedTuple):
    """What is stored with a blob beside its bytes."""

    content_type: str | None = None
    metadata: dict[str, str] = {}  # noqa: RUF012 -- never changed
    properties: Properties = NO_PROPERTIES
    md5: bytes | None = None


class MemoryStore:
    """Keeps blobs in a dict; `script[method]` is a list of errors (or None) for its next calls."""

    page_items = 5000
    last_modified = None

    def __init__(self, script=None):
        self.blobs = {}
        self.kept = {}
        self.blocks = {}
        self.script = {name: iter(errors) for name, errors in (script or {}).items()}
        self.calls = []
        self._lock = threading.Lock()
        self._etags = itertools.count(1)

    def _enter(self, method, name):
        with self._lock:
            self.calls.append((method, name))
            error = next(self.script.get(method, iter(())), None)
        if isinstance(error, BaseException):
            raise error
        if callable(error):
            error(name)

    def _info(self, name):
        body, etag = self.blobs[name]
        kept = self.kept[name]
        return BlobInfo(
            name=name,
            size_bytes=len(body),
            etag=etag,
            last_modified=self.last_modified,
            md5=kept.md5,
            content_type=kept.content_type,
            metadata=kept.metadata,
            is_directory_marker=name.endswith("/"),
        )

    def _write(self, name, body, overwrite, kept=None):
        if not overwrite and name in self.blobs:
            raise Conflict(
                f"cannot upload {name!r}: it exists; overwrite it",
                status=409,
                code="BlobAlreadyExists",
                path=name,
            )
        self.blobs[name] = (bytes(body), f'"{next(self._etags)}"')
        self.kept[name] = kept or Kept()
        return self._info(name)

    def put(
        self,
        name,
        body,
        *,
        content_type=None,
        metadata=None,
        properties=NO_PROPERTIES,
        md5=None,
        overwrite=True,
    ):
        self._enter("put", name)
        self._check(name, body, md5)
        kept = Kept(
            content_type, dict(metadata or {}), properties, hashlib.md5(bytes(body)).digest()
        )
        return self._write(name, body, overwrite, kept)

    def _check(self, name, body, md5):
        if md5 is not None and md5 != hashlib.md5(bytes(body)).digest():
            raise IntegrityError(f"cannot upload {name!r}: its bytes were changed", status=400)

    def stage(self, name, block_id, body, *, md5=None):
        self._enter("stage", name)
        self._check(name, body, md5)
        with self._lock:
            self.blocks.setdefault(name, {})[block_id] = bytes(body)

    def commit(
        self,
        name,
        block_ids,
        *,
        content_type=None,
        metadata=None,
        properties=NO_PROPERTIES,
        md5=None,
        overwrite=True,
    ):
        self._enter("commit", name)
        staged = self.blocks.pop(name)
        kept = Kept(content_type, dict(metadata or {}), properties, md5)
        return self._write(name, b"".join(staged[block] for block in block_ids), overwrite, kept)

    def staged(self, name):
        return {block: len(body) for block, body in self.blocks.get(name, {}).items()}

    def get(self, name, *, offset=0, length=None, etag=None, into=None):
        self._enter("get", name)
        info = self.head(name)
        if etag not in {None, info.etag}:
            raise Conflict(f"cannot download {name!r}: it changed; download it again", status=412)
        body = self.blobs[name][0]
        body = body[offset : None if length is None else offset + length]
        if into is not None:
            into.write(memoryview(body))
            return info, b""
        return info, body

    def head(self, name):
        self._enter("head", name)
        if name not in self.blobs:
            raise NotFound(f"cannot look up {name!r}: no such blob", code="BlobNotFound", path=name)
        return self._info(name)

    def delete(self, name):
        self._enter("delete", name)
        self.head(name)
        del self.blobs[name]

    def list(self, prefix="", *, delimiter=None):
        marker = ""
        while True:
            items, marker = self.list_page(prefix, delimiter=delimiter, marker=marker)
            yield from items
            if not marker:
                return

    def list_page(self, prefix="", *, delimiter=None, marker=""):
        self._enter("list", prefix)
        items = list(self._entries(prefix, delimiter))
        at = int(marker or 0)
        end = at + self.page_items
        return items[at:end], str(end) if end < len(items) else ""

    def _entries(self, prefix, delimiter):
        seen = set()
        for name in sorted(self.blobs):
            if not name.startswith(prefix):
                continue
            head, slash, _ = name[len(prefix) :].partition(delimiter or "\0")
            if not slash:
                yield self._info(name)
            elif head not in seen:
                seen.add(head)
                yield Prefix(prefix + head + slash)

    def close(self):
        pass

    def fill(self, *names, body=b"x"):
        for name in names:
            self._write(name, body, overwrite=True)


@pytest.fixture
def recipe():
    return StoreRecipe(
        account_url="http://memory.invalid/dev",
        container="data",
        auth=Anonymous(),
        options=ClientOptions(),
    )


@pytest.fixture
def make_store(recipe):
    """Make the store that the recipe opens, in this process."""

    def make(**script):
        _stores._stores[recipe.key] = store = MemoryStore(script)
        return store

    yield make
    _stores._stores.pop(recipe.key, None)


@pytest.fixture
def store(make_store):
    return make_store()
