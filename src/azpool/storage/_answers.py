"""The Blob service's answers, read by pure functions: blobs, listings, and errors as azpool's own.

XML is read by expat with document types refused, so that no entity can be declared and nothing
outside is ever loaded.
"""

from __future__ import annotations

import base64
import binascii
import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from azpool.errors import (
    AccessDenied,
    BadResponse,
    Conflict,
    IntegrityError,
    NotFound,
    ServerError,
    StorageError,
    Throttled,
)
from azpool.storage.store import BlobInfo, Prefix

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from azpool.storage._http1 import Answer

__all__ = [
    "blob_of_headers",
    "blob_of_write",
    "challenge_of",
    "code_of",
    "error_of",
    "parse_blobs",
    "parse_block_list",
    "parse_containers",
    "range_total",
]

_META = "x-ms-meta-"
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,128})</Code>")
_ERROR_MESSAGE = re.compile(rb"<Message>([^<\r\n]{1,300})")
# Of continuous access evaluation: Bearer ..., error="insufficient_claims", claims="BASE64"
_CHALLENGE = re.compile(r'(?i)^bearer\b.*\bclaims="([A-Za-z0-9+/_-]+)={0,2}"')
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
# What the service itself calls temporary, besides 429 and 5xx.
_RETRYABLE_CODES = frozenset({"ContainerBeingDeleted", "OperationTimedOut", "RequestTimeout"})
_NAMED_STATUS = {
    401: "credentials refused",
    403: "access denied",
    404: "it does not exist",
    408: "the server waited too long for the request",
    409: "it exists already or is in use",
    412: "it has changed meanwhile",
    416: "the range is outside it",
    429: "too many requests",
    503: "the server is busy",
}
_NAMED_CODE = {
    "AuthenticationFailed": "credentials refused",
    "AuthorizationFailure": "access denied",
    "AuthorizationPermissionMismatch": "the credentials don't allow this",
    "BlobAlreadyExists": "it exists already",
    "BlobNotFound": "it does not exist",
    "ContainerAlreadyExists": "it exists already",
    "ContainerBeingDeleted": "the container is being deleted",
    "ContainerNotFound": "the container does not exist",
    "Md5Mismatch": "its bytes were changed on the way",
    "NoAuthenticationInformation": "credentials are needed",
    "PublicAccessNotPermitted": "credentials are needed",
    "ResourceNotFound": "it does not exist, or credentials are needed",
}
_REMEDIES: dict[type[StorageError], str] = {
    AccessDenied: "check the key, SAS or sign-in and what it allows",
    NotFound: "check the name",
    Conflict: "look at what is there",
    IntegrityError: "try again",
    Throttled: "try again later",
    ServerError: "try again later",
}


@lru_cache(maxsize=256)  # many blobs of a second have the same
def parse_date(text: str | None) -> datetime | None:
    """Read HTTP's date; None where it is missing or none."""
    found = _DATE.fullmatch(text) if text else None
    if found is None or found[2] not in _MONTHS:
        return None
    day, month, year, hour, minute, second = found.groups()
    try:
        seconds = timegm((int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second)))
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def challenge_of(answer: Answer) -> str | None:
    """Read the claims that a refused token lacks, as `get_token` takes them, or None."""
    if answer.status != 401:
        return None
    found = _CHALLENGE.search(answer.headers.get("www-authenticate", ""))
    if found is None:
        return None
    try:
        text = found[1] + "=" * (-len(found[1]) % 4)
        return base64.urlsafe_b64decode(text).decode()
    except (binascii.Error, ValueError):
        return None


def parse_md5(text: str | None) -> bytes | None:
    """Read a Content-MD5; None where it is missing or none."""
    try:
        digest = base64.b64decode(text, validate=True) if text else b""
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 16 else None


def blob_of_headers(name: str, headers: Mapping[str, str], size_bytes: int) -> BlobInfo:
    """Read a blob's properties out of an answer's headers."""
    metadata = {key[10:]: text for key, text in headers.items() if key[:10] == _META}
    return _blob(name, headers, size_bytes, metadata)


def blob_of_write(name: str, headers: Mapping[str, str], size_bytes: int) -> BlobInfo:
    """Read what the answer to a write says of the blob: nothing of its metadata."""
    return _blob(name, headers, size_bytes, {})


def _blob(
    name: str, headers: Mapping[str, str], size_bytes: int, metadata: dict[str, str]
) -> BlobInfo:
    # Of a range, Content-MD5 would be the range's.
    md5 = headers.get("x-ms-blob-content-md5") or (
        None if "content-range" in headers else headers.get("content-md5")
    )
    return BlobInfo(
        name=name,
        size_bytes=size_bytes,
        etag=headers.get("etag"),
        last_modified=parse_date(headers.get("last-modified")),
        md5=parse_md5(md5) if md5 else None,
        content_type=headers.get("content-type"),
        metadata=metadata,
        is_directory_marker=_is_marker(name, size_bytes, metadata),
    )


def _is_marker(name: str, size_bytes: int, metadata: Mapping[str, str]) -> bool:
    if name.endswith("/") and size_bytes == 0:
        return True
    return bool(metadata) and any(
        key.lower() == "hdi_isfolder" and value.lower() == "true" for key, value in metadata.items()
    )


def range_total(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Read Content-Range as (first, last, total); (0, -1, total) where no range was satisfied."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if found is None:
        return None
    if found[1] is None:
        return 0, -1, int(found[3])
    return int(found[1]), int(found[2]), int(found[3])


def _parse_xml(body: bytes) -> Element:
    from xml.etree.ElementTree import ParseError, XMLParser  # only listings need XML: 5 ms

    # Without a document type nothing can be declared. Names have their `<` escaped, and without
    # a NUL it is no UTF-16 (which a document may choose by its first bytes), so these bytes are all
    # that can begin one.
    if b"<!DOCTYPE" in body or b"\0" in body:
        raise BadResponse("the answer declares a document type")
    parser = XMLParser(encoding="utf-8")  # noqa: S314 -- as said
    try:
        parser.feed(body)
        return parser.close()
    except (ParseError, LookupError, ValueError) as error:
        raise BadResponse("the answer is no XML") from error


def parse_blobs(body: bytes) -> tuple[list[BlobInfo | Prefix], str]:
    """Read one page of List Blobs: its items in order, and the marker of the next or ""."""
    return _plain_blobs(body) or _any_blobs(body)


def _plain_blobs(body: bytes) -> tuple[list[BlobInfo | Prefix], str] | None:
    """Read a page that has the usual elements in their usual order and no entity; else None.

    Without comments and the like each `<` begins a tag, so what stands between two of them can be
    cut out: half of the time that a tree of 20 elements a blob takes.
    """
    if b"<!" in body or b"&" in body or b"\0" in body or b"\r" in body:
        return None
    try:
        text = body.decode("utf-8-sig")  # Azure begins with a mark
    except UnicodeDecodeError:
        return None
    found = _PLAIN_PAGE.fullmatch(text)
    if found is None:
        return None
    at, end = found.span(1)
    blobs: list[BlobInfo | Prefix] = []
    while at < end:
        blob, at = _plain_blob(text, at)
        if blob is None:
            return None
        blobs.append(blob)
    return blobs, found[2] or ""


# The container's name and what was asked for stand before the blobs.
_PLAIN_PAGE = re.compile(
    r"(?:<\?xml [^<>]*\?>)?\s*<EnumerationResults(?: [^<>]*)?>"
    r"(?:<(?:Prefix|Marker|MaxResults|Delimiter)(?: ?/>|>[^<]*</[A-Za-z]+>))*"
    r"<Blobs>(.*)</Blobs>(?:<NextMarker ?/>|<NextMarker>([^<]*)</NextMarker>)"
    r"</EnumerationResults>\s*",
    re.DOTALL,
)
_PLAIN_BEGIN, _PLAIN_MIDDLE = "<Blob><Name>", "</Name><Properties>"
_PLAIN_END = re.compile(
    r"(?:<Metadata ?/>"
    r"|<Metadata>((?:<(?!/Metadata>)[^<]*)*+)</Metadata>)?(?:<OrMetadata ?/>)?</Blob>"
)
_PLAIN_FIELD = re.compile(r"<([^<>/ ]+)(?: ?/>|>([^<]*)</\1>)")
_READ_PROPERTIES = [
    (name, f"<{name}>")
    for name in (
        "Last-Modified", "Etag", "Content-Length", "Content-Type", "Content-MD5", "ResourceType"
    )
]  # fmt: skip


def _plain_blob(text: str, at: int) -> tuple[BlobInfo | None, int]:
    """Read the blob at a place, and tell where it ends; None where there is anything unusual."""
    name_at = at + len(_PLAIN_BEGIN)
    name_end = text.find("<", name_at)
    begin = name_end + len(_PLAIN_MIDDLE)
    end = text.find("</Properties>", begin)
    found = _PLAIN_END.match(text, end + len("</Properties>")) if end > 0 else None
    usual = text.startswith(_PLAIN_BEGIN, at) and text.startswith(_PLAIN_MIDDLE, name_end)
    if found is None or not usual or name_at == name_end:
        return None, at
    facts = {}
    for name, tag in _READ_PROPERTIES:
        at = text.find(tag, begin, end)
        if at >= 0:
            at += len(tag)
            facts[name] = text[at : text.find("<", at)]
    metadata = {}
    if stored := found[1]:
        pairs = _PLAIN_FIELD.findall(stored)
        if stored.count("<") != 2 * len(pairs) - stored.count("/>"):
            return None, at
        metadata = dict(pairs)
    return _blob_of_listing(text[name_at:name_end], facts, metadata), found.end()


def _any_blobs(body: bytes) -> tuple[list[BlobInfo | Prefix], str]:
    root = _parse_xml(body)
    blobs = root.find("Blobs")
    if root.tag != "EnumerationResults" or blobs is None:
        raise BadResponse("the answer is no listing of blobs")
    items: list[BlobInfo | Prefix] = []
    for element in blobs:
        if element.tag == "Blob":
            items.append(_listed_blob(element))
        elif element.tag == "BlobPrefix":
            items.append(Prefix(_listed_name(element)))
    return items, root.findtext("NextMarker") or ""


def _listed_name(element: Element) -> str:
    name = element.find("Name")
    if name is None or not name.text:
        raise BadResponse("the listing has an item without a name")
    # Names with characters that XML has no place for come percent-encoded.
    return unquote(name.text) if name.get("Encoded") == "true" else name.text


def _listed_blob(element: Element) -> BlobInfo:
    name = _listed_name(element)
    facts: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for part in element:  # half of the time of `iterfind`
        if part.tag == "Properties":
            facts = {child.tag: child.text or "" for child in part}
        elif part.tag == "Metadata":
            metadata = {child.tag: child.text or "" for child in part}
    return _blob_of_listing(name, facts, metadata)


def _blob_of_listing(name: str, facts: dict[str, str], metadata: dict[str, str]) -> BlobInfo:
    length = facts.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        if facts.get("ResourceType") != "directory":
            raise BadResponse("the listing has a blob without a size")
        length = "0"
    etag = facts.get("Etag")
    directory = facts.get("ResourceType") == "directory"
    return BlobInfo(
        name=name,
        size_bytes=int(length),
        # Listings leave out the quotes that headers have.
        etag=etag if not etag or etag.startswith(('"', "W/")) else f'"{etag}"',
        last_modified=parse_date(facts.get("Last-Modified")),
        md5=parse_md5(facts.get("Content-MD5")),
        content_type=facts.get("Content-Type") or None,
        metadata=metadata,
        is_directory_marker=directory or _is_marker(name, int(length), metadata),
    )


def parse_containers(body: bytes) -> tuple[list[str], str]:
    """Read one page of List Containers: the names, and the marker of the next or ""."""
    root = _parse_xml(body)
    containers = root.find("Containers")
    if root.tag != "EnumerationResults" or containers is None:
        raise BadResponse("the answer is no listing of containers")
    names = [_listed_name(element) for element in containers if element.tag == "Container"]
    return names, root.findtext("NextMarker") or ""


def parse_block_list(body: bytes) -> dict[str, int]:
    """Read the uncommitted blocks of Get Block List; ids that are not text are not ours."""
    root = _parse_xml(body)
    if root.tag != "BlockList":
        raise BadResponse("the answer is no list of blocks")
    return dict(_blocks(root))


def _blocks(root: Element) -> Iterator[tuple[str, int]]:
    for element in root.iterfind("UncommittedBlocks/Block"):
        name, size = element.findtext("Name", ""), element.findtext("Size", "")
        try:
            yield base64.b64decode(name, validate=True).decode(), int(size)
        except (binascii.Error, ValueError):
            continue


def error_of(answer: Answer, *, verb: str, thing: str, path: str) -> StorageError:
    """Turn an answer that is no success into the error to raise."""
    headers, status = answer.headers, answer.status
    code = code_of(answer)
    request_id = headers.get("x-ms-request-id")
    kind = _kind_of(status, code)
    if kind is None:
        return BadResponse(
            f"cannot {verb} {thing}: the server answers {status}, which is no blob service's "
            "answer; check the address",
            status=status, code=code, path=path, request_id=request_id,
        )  # fmt: skip
    cause = _NAMED_CODE.get(code or "") or _NAMED_STATUS.get(status) or _said(answer.body)
    shown = f"{cause} ({status} {code})" if code else f"{cause} ({status})"
    remedy = _REMEDIES.get(kind, "look the code up in the service's documentation")
    return kind(
        f"cannot {verb} {thing}: {shown}; {remedy}",
        status=status,
        code=code,
        path=path,
        request_id=request_id,
        retryable=True if code in _RETRYABLE_CODES or status == 408 else None,
        retry_after_seconds=_retry_after(headers),
    )


def _kind_of(status: int, code: str | None) -> type[StorageError] | None:
    if status == 400 and code == "Md5Mismatch":
        return IntegrityError
    if status in (401, 403):
        return AccessDenied
    if status in (404, 410):
        return NotFound
    if status in (409, 412):
        return Conflict
    if status in (429, 503):
        return Throttled
    if status >= 500:
        return ServerError
    # A redirect, or a refusal without the service's own code, is some other server's.
    return StorageError if status >= 400 and (code or status in (408, 413, 416)) else None


def code_of(answer: Answer) -> str | None:
    """Read the service's own word for an error, from the headers or the body."""
    if "x-ms-error-code" in answer.headers:
        return answer.headers["x-ms-error-code"]
    found = _ERROR_CODE.search(answer.body[:4096])
    return found[1].decode() if found else None


def _said(body: bytes) -> str:
    found = _ERROR_MESSAGE.search(body[:4096])
    return found[1].decode("utf-8", "replace").strip().rstrip(".") if found else "refused"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    # In the service's own header milliseconds, in HTTP's seconds; its dates are not used here.
    for name, unit in (("x-ms-retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 9:
            return int(text) / unit
    return None
