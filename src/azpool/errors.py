"""Every error that azpool raises, and nothing else.

    AzpoolError
    ├── UsageError (ValueError)          an argument that can't be right, before anything was done
    ├── PoolError
    │   ├── NoPool (RuntimeError)        the session has no pool
    │   ├── PoolClosed (RuntimeError)    this pool was closed or deleted
    │   ├── PoolBroken (BrokenExecutor)  nodes fail to start; the cause is attached
    │   ├── NodeDied                     the node that ran (or held) the item is gone
    │   ├── TaskTimeout (TimeoutError)   the item passed its deadline; its node was killed
    │   ├── CannotPickle (TypeError)     a function, argument or result that can't travel
    │   └── RemoteError                  an exception of a node that can't travel; its text can
    ├── StorageError                     .status .code .path .request_id .retryable
    │   ├── NotFound                     no such blob, container or account
    │   ├── AccessDenied                 refused credentials (401, 403)
    │   ├── Conflict                     exists already, leased, or a condition failed (409, 412)
    │   ├── Throttled                    503/429; .retry_after_seconds where the server said so
    │   ├── ServerError                  any other 5xx
    │   ├── ConnectionFailed             no server there, cut off, timed out, bad certificate
    │   ├── BadResponse                  an answer that is not what the protocol says
    │   ├── NameRefused (ValueError)     a name that can't be stored or written safely
    │   ├── LocalFileError               the local side: missing, unreadable, no space left
    │   └── IntegrityError               bytes that arrived are not the bytes that were sent
    ├── FleetError                       .status .code .resource_id .request_id .correlation_id
    ├── NotShared (LookupError)          a shared credential where its handle means nothing
    └── SomeFailed                       raised by Report.raise_for_failures(); .report

All of them survive pickling, with their attributes. The facts of a message are attributes too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.report import Report

__all__ = [
    "AccessDenied",
    "AzpoolError",
    "BadResponse",
    "CannotPickle",
    "Conflict",
    "ConnectionFailed",
    "FleetError",
    "IntegrityError",
    "LocalFileError",
    "NameRefused",
    "NoPool",
    "NodeDied",
    "NotFound",
    "NotShared",
    "PoolBroken",  # noqa: F822 - made by __getattr__
    "PoolClosed",
    "PoolError",
    "RemoteError",
    "ServerError",
    "SomeFailed",
    "StorageError",
    "TaskTimeout",
    "Throttled",
    "UsageError",
]


class AzpoolError(Exception):
    """The base of every error that azpool raises.

    Subclasses take keyword-only facts; pickling keeps the message and every attribute.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[AzpoolError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> AzpoolError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UsageError(AzpoolError, ValueError):
    """An argument that can't be right; nothing was done."""


class PoolError(AzpoolError):
    """The base of the pool's errors."""


class NoPool(PoolError, RuntimeError):
    """The session has no pool; `init_pool()` makes one."""


class PoolClosed(PoolError, RuntimeError):
    """The pool was closed; it takes no more work."""


class NodeDied(PoolError):
    """A node ended while it held this item.

    Attributes:
        node: index of the node, 0..n-1.
        pid: its process id.
        signal: number of the signal that ended it, or None.
        exit_code: its exit code, or None where a signal ended it.
        begun: whether the item had begun. One that had not is run elsewhere, so this is False only
            where node after node ended before it could begin: it is what ends them.
        stderr: the last lines that the process wrote to its standard error.
    """

    def __init__(
        self,
        message: str = "a node died",
        *,
        node: int = -1,
        pid: int = 0,
        signal: int | None = None,
        exit_code: int | None = None,
        begun: bool = True,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.node = node
        self.pid = pid
        self.signal = signal
        self.exit_code = exit_code
        self.begun = begun
        self.stderr = stderr


class TaskTimeout(PoolError, TimeoutError):
    """An item passed its deadline; its node was killed and replaced."""

    def __init__(
        self, message: str = "deadline passed", *, node: int = -1, seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.node = node
        self.seconds = seconds


class CannotPickle(PoolError, TypeError):
    """Something that had to travel between the master and a node can't be pickled."""


class RemoteError(PoolError):
    """An exception of a node that can't be rebuilt in the master, in words.

    Attributes:
        type_name: qualified name of the exception's class on the node.
        text: `str()` of it.
        traceback: the node's traceback, formatted.
    """

    def __init__(
        self, message: str = "", *, type_name: str = "", text: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message or f"{type_name}: {text}")
        self.type_name = type_name
        self.text = text
        self.traceback = traceback


class StorageError(AzpoolError):
    """A storage operation failed.

    Attributes:
        status: HTTP status, or None where no answer came.
        code: the service's own error code (`BlobNotFound`), an errno's name (`ENOSPC`,
            `ETIMEDOUT`) where it is the local side's or the network's, or None.
        path: what the operation was about: a blob's name, a container or a local path.
        request_id: the service's `x-ms-request-id`, for a support ticket, or None.
        retryable: whether the same request may succeed later.
        retry_after_seconds: what the server asked for, or None.
    """

    retryable_by_default = False

    def __init__(
        self,
        message: str = "storage operation failed",
        *,
        status: int | None = None,
        code: str | None = None,
        path: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.path = path
        self.request_id = request_id
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.retry_after_seconds = retry_after_seconds


class NotFound(StorageError):
    """No such blob, container or account."""


class AccessDenied(StorageError):
    """The service refused the credentials (401, 403)."""


class Conflict(StorageError):
    """It exists already, is leased, is being deleted, or a condition failed (409, 412)."""


class Throttled(StorageError):
    """The service asks for fewer requests (429, 503)."""

    retryable_by_default = True


class ServerError(StorageError):
    """The service failed (any other 5xx)."""

    retryable_by_default = True


class ConnectionFailed(StorageError):
    """No answer: nothing listens there, the connection was cut, timed out, or TLS failed."""

    retryable_by_default = True


class BadResponse(StorageError):
    """An answer that the protocol does not allow: no blob service speaks at that address."""


class NameRefused(StorageError, ValueError):
    """A name that can't be stored in Azure, or that would leave the target folder."""


class LocalFileError(StorageError):
    """The local side failed: missing, unreadable, not a file, no space left."""


class IntegrityError(StorageError):
    """What arrived is not what was sent: too short, changed meanwhile, or another checksum."""

    retryable_by_default = True


class FleetError(AzpoolError):
    """A request to Azure Resource Manager, or what it began, did not end well.

    Attributes:
        status: HTTP status, or None where no answer came.
        code: the service's own error code (`Conflict`, `AuthorizationFailed`), or None.
        resource_id: what it was about, or None.
        request_id: the service's `x-ms-request-id`, for a support ticket, or None.
        correlation_id: the service's `x-ms-correlation-request-id`, which its logs of all that
            followed from the request hold, or None.
    """

    def __init__(
        self,
        message: str = "a request to Azure Resource Manager failed",
        *,
        status: int | None = None,
        code: str | None = None,
        resource_id: str | None = None,
        request_id: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.resource_id = resource_id
        self.request_id = request_id
        self.correlation_id = correlation_id


class NotShared(AzpoolError, LookupError):
    """A shared credential or secret is used where its handle means nothing.

    It means something in the process that shared it and on the nodes of that process's pools.
    """


class SomeFailed(AzpoolError):
    """Some of many things failed; `report` has one outcome for each of them."""

    def __init__(self, message: str = "some failed", *, report: Report[Any] | None = None) -> None:
        super().__init__(message)
        self.report = report


def __getattr__(name: str) -> Any:
    # PoolBroken derives from concurrent.futures.BrokenExecutor, whose import costs a node 20 ms;
    # it is made when it is first needed.
    if name == "PoolBroken":
        from azpool._broken import PoolBroken

        globals()[name] = PoolBroken
        return PoolBroken
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
