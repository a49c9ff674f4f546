"""The fast path to Azure Blob: a small REST client that fills the protocols of `store.py`.

Requests are built by `_requests.py`, signed by `_signing.py`, sent by `_http.py` and read by
`_answers.py`; this file joins them. One store is one container, safe for many threads; nothing is
retried here. No azure.* module is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from azpool.errors import (
    AccessDenied,
    AzpoolError,
    BadResponse,
    Conflict,
    ConnectionFailed,
    IntegrityError,
    NotFound,
    StorageError,
    UsageError,
)
from azpool.storage import _answers
from azpool.storage._flight import Flight
from azpool.storage._http import Answer, ClientOptions, Exchange, HttpClient
from azpool.storage._http1 import Into
from azpool.storage._requests import (
    Builder,
    block_list_body,
    encode_query,
    list_containers_request,
)
from azpool.storage._signing import Auth, BearerSigner, BorrowedSigner, Request, Signed, make_signer
from azpool.storage.store import NO_PROPERTIES

if TYPE_CHECKING:
    from azpool.storage.store import Account, BlobInfo, Body, Prefix, Properties, Sink, Steps, Store

__all__ = ["open_account", "open_store"]

P = ParamSpec("P")
ParsedT = TypeVar("ParsedT")
ValueT = TypeVar("ValueT")


def open_store(
    account_url: str, container: str, auth: Auth, options: ClientOptions | None = None
) -> Store:
    """Give one container of the account at `account_url`; connections are made when needed.

    `account_url` is `https://ACCOUNT.blob.core.windows.net`, or with the account as its path, as
    emulators have it. A store is not for pickling: each process opens its own.

    Raises:
        UsageError: the address or the credentials can't be right.
        NameRefused: no container can have that name.
    """
    return _RestStore(account_url, container, auth, options)


def open_account(account_url: str, auth: Auth, options: ClientOptions | None = None) -> Account:
    """Give the account itself: see `open_store`."""
    return _RestAccount(account_url, auth, options)


class _Service:
    """One account's origin, signer and connections: sends requests, raises what is no success."""

    def __init__(
        self,
        account_url: str,
        auth: Auth,
        options: ClientOptions | None,
        container: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            parts = urlsplit(account_url)
        except ValueError as error:
            raise UsageError(f"cannot use the account's address: {error}") from None
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise UsageError("cannot use the account's address: it has more than host and path")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.root = parts.path.rstrip("/")
        self._sign = make_signer(auth, account_url, container)
        self._client = HttpClient(self.origin, options)
        self._clock = clock

    def send(
        self,
        request: Request,
        body: Body | None,
        ok: tuple[int, ...],
        verb: str,
        path: str,
        into: Into | None = None,
    ) -> Answer:
        """Send, and block until there is an answer: see `steps`."""
        return self.run(self.steps(request, body, ok, verb, path, into))

    def run(self, steps: Steps[ValueT]) -> ValueT:
        """Take steps one after the other, each of them blocking."""
        try:
            exchange = next(steps)
            while True:
                try:
                    answer = self._client.send(
                        exchange.method,
                        exchange.url,
                        exchange.headers,
                        exchange.body,
                        repeatable=exchange.repeatable,
                        into=exchange.into,
                    )
                except Exception as error:
                    exchange = steps.throw(error)
                else:
                    exchange = steps.send(answer)
        except StopIteration as done:
            value: ValueT = done.value
            return value

    def flight(self) -> Flight:
        """Open a flight on this one's connections, for many steps at once."""
        return Flight(self._client)

    def steps(
        self,
        request: Request,
        body: Body | None,
        ok: tuple[int, ...],
        verb: str,
        path: str,
        into: Into | None = None,
    ) -> Steps[Answer]:
        """Ask, and a second time with other credentials where that may help.

        `path` is the blob's or container's name, for errors.
        """
        again = False
        while True:
            try:  # as `_signing_in`, without its calls: for every file
                signed = self._sign(request, self._clock())
            except AzpoolError:
                raise
            except Exception as error:
                raise _no_token(verb, path, error) from error
            try:
                answer: Answer = yield self._exchange(request, signed, body, into)
            except (ConnectionFailed, BadResponse) as error:
                raise _about(error, verb, path) from error.__cause__
            if answer.status in ok:
                return answer
            refused = answer.status in (401, 403) and not again
            if not refused or not _signing_in(verb, path, self._has_another, answer, signed):
                raise _answers.error_of(answer, verb=verb, thing=repr(path), path=path)
            again = True

    def _has_another(self, answer: Answer, signed: Signed) -> bool:
        """Get other credentials for the refused ones, where that may help; once a request."""
        if isinstance(self._sign, BearerSigner):
            claims = _answers.challenge_of(answer)
            if claims is None:
                return False
            # The token was revoked, or has to prove more.
            self._sign.challenged(claims)
            return True
        # What was lent may have ended in the middle, by the server's clock.
        ended = _answers.code_of(answer) == "AuthenticationFailed"
        return ended and isinstance(self._sign, BorrowedSigner) and self._sign.refused(signed.query)

    def _exchange(
        self, request: Request, signed: Signed, body: Body | None, into: Into | None
    ) -> Exchange:
        url = self.origin + request.path
        if not request.query:
            url = f"{url}?{signed.query}" if signed.query else url
        else:
            query = encode_query(request.query)
            joint = "&" if query and signed.query else ""
            url = f"{url}?{query}{joint}{signed.query}"
        return Exchange(request.method, url, signed.headers, body, request.repeatable, into)

    def close(self) -> None:
        self._client.close()


def _signing_in(
    verb: str, path: str, call: Callable[P, ParsedT], *args: P.args, **kwargs: P.kwargs
) -> ParsedT:
    """Call what may have to sign in; a credential's own errors become the store's."""
    try:
        return call(*args, **kwargs)
    except AzpoolError:
        raise
    except Exception as error:
        raise _no_token(verb, path, error) from error


def _no_token(verb: str, path: str, error: Exception) -> AccessDenied:
    return AccessDenied(
        f"cannot {verb} {path!r}: no token: {type(error).__name__}: {error}; "
        "check the sign-in with azpool login-check",
        path=path,
    )


def _about(error: StorageError, verb: str, path: str) -> StorageError:
    reason = str(error).removeprefix("cannot ")
    return type(error)(
        f"cannot {verb} {path!r}: could not {reason}",
        status=error.status,
        code=error.code,
        path=path,
        retryable=error.retryable,
    )


def _blocking(
    operation: Callable[Concatenate[_RestStore, P], Steps[ValueT]],
) -> Callable[Concatenate[_RestStore, P], ValueT]:
    """Make the call that takes all steps of an operation."""

    @wraps(operation)
    def call(self: _RestStore, /, *args: P.args, **kwargs: P.kwargs) -> ValueT:
        return self._service.run(operation(self, *args, **kwargs))

    return call


class _RestStore:
    def __init__(
        self, account_url: str, container: str, auth: Auth, options: ClientOptions | None
    ) -> None:
        self._service = _Service(account_url, auth, options, container)
        self._build = Builder(self._service.root, container)
        self._container = container

    def flight(self) -> Flight:
        return self._service.flight()

    def put_steps(
        self,
        name: str,
        body: Body,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> Steps[BlobInfo]:
        size = _size_of(body)
        request = self._build.put(
            name,
            size,
            content_type=content_type,
            metadata=metadata,
            properties=properties,
            md5=md5,
            overwrite=overwrite,
        )
        answer = yield from self._service.steps(request, body, (201,), "upload", name)
        return _answers.blob_of_write(name, answer.headers, size)

    put = _blocking(put_steps)

    def stage(self, name: str, block_id: str, body: Body, *, md5: bytes | None = None) -> None:
        request = self._build.stage(name, block_id, _size_of(body), md5=md5)
        self._service.send(request, body, (201,), "upload", name)

    def commit(
        self,
        name: str,
        block_ids: Sequence[str],
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        properties: Properties = NO_PROPERTIES,
        md5: bytes | None = None,
        overwrite: bool = True,
    ) -> BlobInfo:
        body = block_list_body(block_ids)
        request = self._build.commit(
            name,
            len(body),
            content_type=content_type,
            metadata=metadata,
            properties=properties,
            md5=md5,
            overwrite=overwrite,
        )
        answer = self._service.send(request, body, (201,), "upload", name)
        # The MD5 of this answer is the block list's own, not the blob's.
        headers = {key: text for key, text in answer.headers.items() if key != "content-md5"}
        return _answers.blob_of_headers(name, headers, -1)

    def staged(self, name: str) -> dict[str, int]:
        try:
            answer = self._service.send(self._build.staged(name), None, (200,), "look up", name)
        except NotFound as error:
            if error.code == "ContainerNotFound":
                raise
            return {}
        return _read(answer, _answers.parse_block_list, "look up", name)

    def get_steps(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int | None = None,
        etag: str | None = None,
        into: Sink | None = None,
    ) -> Steps[tuple[BlobInfo, bytes]]:
        if length == 0:  # HTTP has no word for an empty range
            return (yield from self._checked_head(name, etag)), b""
        request = self._build.get(name, offset, length, etag)
        if into is not None and length is None:
            raise UsageError(f"cannot read {name!r} into a file: say how much of it")
        place = None if into is None or length is None else Into(into, length)
        try:
            answer = yield from self._service.steps(
                request, None, (200, 206, 416), "download", name, place
            )
        except IntegrityError as error:
            if error.path is not None:  # the sink's own
                raise
            raise IntegrityError(
                f"cannot download {name!r}: {error}; try again", status=error.status, path=name
            ) from error
        if answer.status == 416:
            return (yield from self._checked_head(name, etag)), b""
        ranged = "x-ms-range" in request.headers
        total = _check_range(answer, name, offset if ranged else 0, length if ranged else None)
        return _answers.blob_of_headers(name, answer.headers, total), answer.body

    get = _blocking(get_steps)

    def _checked_head(self, name: str, etag: str | None) -> Steps[BlobInfo]:
        info = yield from self.head_steps(name)
        if etag is not None and info.etag != etag:
            raise Conflict(
                f"cannot download {name!r}: it has changed meanwhile; start again", path=name
            )
        return info

    def head_steps(self, name: str) -> Steps[BlobInfo]:
        request = self._build.head(name)
        answer = yield from self._service.steps(request, None, (200,), "look up", name)
        length = answer.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise BadResponse(
                f"cannot look up {name!r}: the answer has no size; check the address",
                status=answer.status,
                path=name,
            )
        return _answers.blob_of_headers(name, answer.headers, int(length))

    head = _blocking(head_steps)

    def delete_steps(self, name: str) -> Steps[None]:
        request = self._build.delete(name)
        yield from self._service.steps(request, None, (202,), "delete", name)

    delete = _blocking(delete_steps)

    def list(
        self, prefix: str = "", *, delimiter: str | None = None
    ) -> Iterator[BlobInfo | Prefix]:
        marker = ""
        while True:
            items, marker = self.list_page(prefix, delimiter=delimiter, marker=marker)
            yield from items
            if not marker:
                return

    def list_page(
        self, prefix: str = "", *, delimiter: str | None = None, marker: str = ""
    ) -> tuple[Sequence[BlobInfo | Prefix], str]:
        request = self._build.list(prefix, delimiter, marker)
        answer = self._service.send(request, None, (200,), "list", self._container)
        return _read(answer, _answers.parse_blobs, "list", self._container)

    def create_container(self) -> None:
        request = self._build.create_container()
        self._service.send(request, b"", (201,), "create container", self._container)

    def delete_container(self) -> None:
        request = self._build.delete_container()
        self._service.send(request, None, (202,), "delete container", self._container)

    def container_exists(self) -> bool:
        request = self._build.head_container()
        try:
            self._service.send(request, None, (200,), "look up container", self._container)
        except NotFound:
            return False
        except AccessDenied:
            # A SAS for a container may list it, and yet not look at its properties.
            return self._may_be_listed()
        return True

    def _may_be_listed(self) -> bool:
        request = self._build.list("", None, "", items=1)
        try:
            self._service.send(request, None, (200,), "look up container", self._container)
        except NotFound:
            return False
        return True

    def close(self) -> None:
        self._service.close()


class _RestAccount:
    def __init__(self, account_url: str, auth: Auth, options: ClientOptions | None) -> None:
        self._service = _Service(account_url, auth, options)
        self._name = account_url

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        marker = ""
        while True:
            request = list_containers_request(self._service.root, prefix, marker)
            answer = self._service.send(request, None, (200,), "list containers of", self._name)
            names, marker = _read(
                answer, _answers.parse_containers, "list containers of", self._name
            )
            yield from names
            if not marker:
                return

    def close(self) -> None:
        self._service.close()


def _size_of(body: Body) -> int:
    return body.nbytes if isinstance(body, memoryview) else len(body)


def _read(answer: Answer, parse: Callable[[bytes], ParsedT], verb: str, path: str) -> ParsedT:
    try:
        return parse(answer.body)
    except BadResponse as error:
        raise BadResponse(
            f"cannot {verb} {path!r}: {error}; check the address", status=answer.status, path=path
        ) from error


def _check_range(answer: Answer, name: str, offset: int, length: int | None) -> int:
    """Check that the answer is the range that was asked for; give the whole blob's size."""
    have = answer.body_bytes
    found = _answers.range_total(answer.headers)
    if answer.status == 200:
        if offset or (length is not None and have > length):
            raise _not_what_was_asked(answer, name, f"the server ignored the range of {offset:,}")
        return have
    if found is None:
        raise _not_what_was_asked(answer, name, "a part came without its place")
    first, last, total = found
    wanted = total - offset if length is None else min(length, total - offset)
    if first != offset or last - first + 1 != have or have != wanted:
        raise _not_what_was_asked(answer, name, f"{have:,} of {wanted:,} bytes came")
    return total


def _not_what_was_asked(answer: Answer, name: str, cause: str) -> IntegrityError:
    return IntegrityError(
        f"cannot download {name!r}: {cause}; try again",
        status=answer.status,
        path=name,
        request_id=answer.headers.get("x-ms-request-id"),
    )
