"""The Blob service's requests, built by pure functions: `_rest.py` signs and sends them.

Names travel exactly: each is checked by `naming.check_blob_name` and percent-encoded whole, so
that nothing on the way finds a dot segment, a query or a fragment in it. Every request that has
or could have a body says its length, zero included.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from azpool.errors import NameRefused, UsageError
from azpool.storage._signing import Request
from azpool.storage.naming import check_blob_name
from azpool.storage.store import NO_PROPERTIES, Properties, check_metadata

__all__ = [
    "Builder",
    "encode_block_id",
    "encode_name",
    "encode_query",
]

PLAIN_CHARACTERS = 1000  # longer names are looked at more closely
MAX_BLOCK_ID_BYTES = 64  # before base64; Put Block's own limit
PAGE_ITEMS = 5000  # the service's maximum, and its default

_CONTAINER = re.compile(r"\$root|\$web|\$logs|[a-z0-9](?:-?[a-z0-9]){2,62}")
_PLAIN = re.compile(r"[A-Za-z0-9._~/-]+")
_DOTS = re.compile(r"(?:^|/)\.\.?(?:/|$)")


def encode_name(name: str, *, verb: str = "store") -> str:
    """Check a blob's name and percent-encode all of it but slashes."""
    if (
        _PLAIN.fullmatch(name)
        and "./" not in name
        and name[-1] != "."
        and len(name) <= PLAIN_CHARACTERS
    ):
        return name  # most names: no dot segment, nothing to encode
    check_blob_name(name, verb=verb)
    # The check is the CLI's and the planner's too; a name that is folded must not pass even if
    # they change their minds.
    if _DOTS.search(name):
        raise NameRefused(f"cannot {verb} {name!r}: it has a dot segment; rename it", path=name)
    return name if _PLAIN.fullmatch(name) else quote(name, safe="/~")


def encode_query(query: tuple[tuple[str, str], ...]) -> str:
    """Percent-encode a query."""
    return "&".join([f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query])


def encode_block_id(block_id: str) -> str:
    """Give a block's id as the service wants it: base64 of at most 64 bytes."""
    raw = block_id.encode()
    if not 0 < len(raw) <= MAX_BLOCK_ID_BYTES:
        raise UsageError(f"cannot use block id {block_id!r}: it must have 1 to 64 bytes")
    return base64.b64encode(raw).decode()


def check_container_name(name: str) -> None:
    """Refuse what the service refuses, with a reason: 3-63 lower-case letters, digits, hyphens."""
    if not _CONTAINER.fullmatch(name) or len(name) > 63:
        raise NameRefused(
            f"cannot use container {name!r}: names have 3 to 63 lower-case letters, digits and "
            "single hyphens; rename it",
            path=name,
        )


class Builder:
    """Builds the requests of one container; `root` is the account's path ("" or "/account")."""

    def __init__(self, root: str, container: str) -> None:
        check_container_name(container)
        self._container = f"{root}/{container}"
        self._prefix = f"{root}/{container}/"
        self._rendered: tuple[Properties, Mapping[str, str]] = (NO_PROPERTIES, {})

    def put(
        self,
        name: str,
        size_bytes: int,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> Request:
        headers = {
            "Content-Length": str(size_bytes),
            "Content-Type": content_type or "application/octet-stream",
            "x-ms-blob-type": "BlockBlob",
        }
        if md5 is not None:
            headers["Content-MD5"] = _encode_md5(md5)  # checked and kept
        self._add_stored(headers, metadata, properties)
        return self._write(name, (), headers, overwrite=overwrite)

    def stage(
        self, name: str, block_id: str, size_bytes: int, *, md5: bytes | None = None
    ) -> Request:
        query = (("blockid", encode_block_id(block_id)), ("comp", "block"))
        headers = {"Content-Length": str(size_bytes)}
        if md5 is not None:
            headers["Content-MD5"] = _encode_md5(md5)
        return Request("PUT", self._prefix + encode_name(name, verb="upload"), query, headers)

    def commit(
        self,
        name: str,
        size_bytes: int,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> Request:
        headers = {
            "Content-Length": str(size_bytes),
            "Content-Type": "application/xml",
            "x-ms-blob-content-type": content_type or "application/octet-stream",
        }
        if md5 is not None:
            headers["x-ms-blob-content-md5"] = _encode_md5(md5)  # kept; nothing checks it
        self._add_stored(headers, metadata, properties)
        return self._write(name, (("comp", "blocklist"),), headers, overwrite=overwrite)

    def _add_stored(
        self,
        headers: dict[str, str],
        metadata: Mapping[str, str] | None,
        properties: Properties,
    ) -> None:
        if metadata:
            check_metadata(metadata)
            for key, value in metadata.items():
                headers[f"x-ms-meta-{key}"] = value
        if properties is not NO_PROPERTIES:
            seen, rendered = self._rendered
            if seen is not properties:  # they are the same for all blobs of a call
                rendered = _property_headers(properties)
                self._rendered = (properties, rendered)
            headers.update(rendered)

    def _write(
        self,
        name: str,
        query: tuple[tuple[str, str], ...],
        headers: dict[str, str],
        *,
        overwrite: bool,
    ) -> Request:
        if not overwrite:
            # Sent twice, the second would be refused because of the first.
            headers["If-None-Match"] = "*"
        path = self._prefix + encode_name(name, verb="upload")
        return Request("PUT", path, query, headers, overwrite)

    def staged(self, name: str) -> Request:
        query = (("blocklisttype", "uncommitted"), ("comp", "blocklist"))
        return Request("GET", self._prefix + encode_name(name, verb="look up"), query, {})

    def get(self, name: str, offset: int, length: int | None, etag: str | None) -> Request:
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"cannot read {name!r}: offset and length are 0 or more")
        headers: dict[str, str] = {}
        if length is not None:
            headers["x-ms-range"] = f"bytes={offset}-{offset + length - 1}"
        elif offset:
            headers["x-ms-range"] = f"bytes={offset}-"
        if etag is not None:
            headers["If-Match"] = etag
        return Request("GET", self._prefix + encode_name(name, verb="download"), (), headers)

    def head(self, name: str) -> Request:
        return Request("HEAD", self._prefix + encode_name(name, verb="look up"), (), {})

    def delete(self, name: str) -> Request:
        # Sent twice, the second would find nothing.
        headers = {"x-ms-delete-snapshots": "include"}
        path = self._prefix + encode_name(name, verb="delete")
        return Request("DELETE", path, (), headers, repeatable=False)

    def list(
        self, prefix: str, delimiter: str | None, marker: str, *, items: int = PAGE_ITEMS
    ) -> Request:
        query = [("comp", "list"), ("include", "metadata"), ("restype", "container")]
        query += [("prefix", prefix)] if prefix else []
        query += [("delimiter", delimiter)] if delimiter else []
        query += [("marker", marker)] if marker else []
        query.append(("maxresults", str(items)))
        return Request("GET", self._container, tuple(query), {})

    def create_container(self) -> Request:
        return self._of_container("PUT", {"Content-Length": "0"}, repeatable=False)

    def delete_container(self) -> Request:
        return self._of_container("DELETE", {}, repeatable=False)

    def head_container(self) -> Request:
        # GET, because a HEAD's error has no body and some proxies drop its x-ms-error-code.
        return self._of_container("GET", {}, repeatable=True)

    def _of_container(
        self, method: str, headers: Mapping[str, str], *, repeatable: bool
    ) -> Request:
        query = (("restype", "container"),)
        return Request(method, self._container, query, headers, repeatable)


def list_containers_request(root: str, prefix: str, marker: str) -> Request:
    """Build List Containers."""
    query = [("comp", "list")]
    query += [("prefix", prefix)] if prefix else []
    query += [("marker", marker)] if marker else []
    return Request("GET", f"{root}/", tuple(query), {})


def block_list_body(block_ids: Sequence[str]) -> bytes:
    """Write the body of Put Block List; `Latest` prefers the staged block to a committed one."""
    items = "".join([f"<Latest>{encode_block_id(block_id)}</Latest>" for block_id in block_ids])
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()


def _encode_md5(md5: bytes) -> str:
    return binascii.b2a_base64(md5, newline=False).decode()


def _property_headers(properties: Properties) -> dict[str, str]:
    pairs = {
        "x-ms-blob-cache-control": properties.cache_control,
        "x-ms-blob-content-encoding": properties.content_encoding,
        "x-ms-blob-content-language": properties.content_language,
        "x-ms-blob-content-disposition": properties.content_disposition,
        "x-ms-access-tier": properties.tier,
        "x-ms-tags": encode_query(tuple(properties.tags.items())),
    }
    return {name: text for name, text in pairs.items() if text}
