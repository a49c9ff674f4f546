"""`SharedCredential`: a handle that is a credential in the master and on every node.

    get_token -> Holder (this process's tokens) -> broker in this process
                                                 | the master's, over the pool's channel

A process asks once and goes on with the answer until its lease is over; of several threads one
asks. What pickles is the handle, a random name that leads to nothing in any other process.
"""

from __future__ import annotations

import os
import threading
from time import time
from typing import TYPE_CHECKING, Any, Self

from azpool.errors import NotShared, UsageError
from azpool.identity import registry
from azpool.identity.tokens import SERVICE, Ask, Grant
from azpool.pool import context

if TYPE_CHECKING:
    from types import TracebackType

    # For type checkers alone: nothing of Azure is loaded.
    from azure.core.credentials import (  # noqa: TID251
        AccessToken,
        AccessTokenInfo,
        TokenRequestOptions,
    )

    from azpool.identity.registry import Registration

__all__ = ["Held", "Holder", "SharedCredential", "holder_of", "share"]

MANY_HOLDERS = 256  # of handles from elsewhere; the eldest is dropped then, and asks anew

_holders: dict[str, Holder] = {}
_holders_lock = threading.RLock()


class Held:
    """One grant, until when it serves, and what it was last handed out as."""

    __slots__ = ("claims", "grant", "info", "token", "until")

    def __init__(self, grant: Grant, claims: str | None, now: float) -> None:
        self.grant = grant
        self.claims = claims
        self.until = now + grant.lease_seconds
        self.token: Any = None
        self.info: Any = None

    @property
    def value(self) -> str:
        return self.grant.value


class Holder:
    """What this process holds of one shared thing, and how it asks for more. Thread-safe."""

    __slots__ = ("_lock", "handle", "held")

    def __init__(self, handle: str) -> None:
        self.handle = handle
        self.held: dict[tuple[Any, ...], Held] = {}
        # Re-entrant, since a signal's handler may ask in the middle of it.
        self._lock = threading.RLock()

    def get(self, ask: Ask, claims: str | None = None) -> Held:
        """Answer what is held, or ask: blocks until there is an answer.

        Raises:
            NotShared: this process is neither the one that shares it nor one of its nodes.
            Exception: why there is no token, of the credential's own class.
        """
        held = self.held.get(ask)
        if held is not None and claims is None and time() < held.until:
            return held
        seen = held
        with self._lock:
            held = self.held.get(ask)
            if held is not None and time() < held.until:
                if claims is None:
                    return held
                if held is not seen and held.claims == claims:  # another thread's answer, meanwhile
                    return held
            grant = self._ask(ask, claims, 0 if held is None else held.grant.serial)
            if held is None or held.grant.serial != grant.serial:
                held = Held(grant, claims, time())
                self.held[ask] = held
            else:
                held.until = time() + grant.lease_seconds
            return held

    def _ask(self, ask: Ask, claims: str | None, had: int) -> Grant:
        registration = registry.find(self.handle)
        if registration is not None:
            from azpool.identity.broker import ask_here  # the master's alone

            return ask_here(registration, ask, claims, had)
        if context.on_node():
            grant: Grant = context.ask(SERVICE, (self.handle, *ask, claims, had))
            return grant
        raise NotShared(
            "cannot use this credential here: its handle means nothing outside the process that "
            "shared it and the nodes of its pools; share a credential in this process"
        )

    def forget_fork(self) -> None:
        self._lock = threading.RLock()


def holder_of(handle: str) -> Holder:
    """Answer this process's holder for a handle; the same one each time."""
    registration = registry.find(handle)
    if registration is not None:
        return _holder_here(registration)
    holder = _holders.get(handle)
    if holder is None:
        with _holders_lock:
            holder = _holders.setdefault(handle, Holder(handle))
            while len(_holders) > MANY_HOLDERS:
                del _holders[next(iter(_holders))]
    return holder


def _holder_here(registration: Registration) -> Holder:
    holder: Holder | None = registration.holder
    if holder is None:
        with _holders_lock:
            holder = registration.holder = registration.holder or Holder(registration.handle)
    return holder


class SharedCredential:
    """A credential that travels: azure-core's `TokenCredential` in the master and on its nodes.

    It pickles as a handle of a few bytes without any secret; a node asks the master for tokens,
    which signs in once for all. Give it to any client of the Azure SDK, or to azpool's own.
    """

    __slots__ = ("_held", "_holder", "_registration")

    def __init__(self, holder: Holder, registration: Registration | None = None) -> None:
        self._holder = holder
        self._held = holder.held
        self._registration = registration  # in the master: what keeps it alive

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: Any,
    ) -> AccessToken:
        """Answer a token for `scopes`: the one this process holds, or the master's.

        Blocks only while there is no valid token, or `claims` says that it was refused. Arguments
        that azure-core does not name are ignored.

        Raises:
            UsageError: no scope was named.
            NotShared: this process is neither the one that shares it nor one of its nodes.
            Exception: why there is no token, of the credential's own class
                (`ClientAuthenticationError`, `CredentialUnavailableError`).
        """
        held = self._held.get((scopes, tenant_id, enable_cae))
        if held is None or claims or time() >= held.until:
            held = self._holder.get(_checked(scopes, tenant_id, enable_cae), claims or None)
        token = held.token
        if token is None:
            from azpool.identity._types import access_token

            token = held.token = access_token(held.grant)
        return token  # type: ignore[no-any-return]  # made where azure-core is, or is not

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Do as `get_token`, with the token's type and when it is to be refreshed."""
        given: Any = options or {}
        tenant, cae = given.get("tenant_id"), bool(given.get("enable_cae", False))
        claims = given.get("claims")
        held = self._held.get((scopes, tenant, cae))
        if held is None or claims or time() >= held.until:
            held = self._holder.get(_checked(scopes, tenant, cae), claims or None)
        info = held.info
        if info is None:
            from azpool.identity._types import access_token_info

            info = held.info = access_token_info(held.grant)
        return info  # type: ignore[no-any-return]  # as above

    def hold(self, ask: Ask, claims: str | None = None) -> Held:
        """Answer what this process holds, without any type of azure-core: for azpool itself."""
        return self._holder.get(ask, claims)

    def close(self) -> None:
        """Do nothing: others use it too. Close the credential that was shared, where it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        source = getattr(self._registration, "source", None)
        what = type(source.credential).__name__ if source is not None else "of the master"
        return f"<azpool.identity.SharedCredential: {what}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedCredential) and other._holder.handle == self._holder.handle

    def __hash__(self) -> int:
        return hash((SharedCredential, self._holder.handle))

    def __copy__(self) -> SharedCredential:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> SharedCredential:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._registration is not None:
            registry.pin(self._registration)
        return _arrive, (self._holder.handle,)


def _arrive(handle: str) -> SharedCredential:
    return SharedCredential(holder_of(handle), registry.find(handle))


def _checked(scopes: tuple[str, ...], tenant: str | None, cae: bool) -> Ask:  # noqa: FBT001 - a key
    if not scopes:
        raise UsageError("cannot get a token: no scope is named; give what the token is for")
    return Ask(scopes, tenant, cae)


def share(credential: Any) -> SharedCredential:
    """Make a credential usable on all nodes: one sign-in, in this process, serves them.

    The handle may be exported, captured, passed as an argument and kept in objects; it works on
    every pool of this process, made before or after. The same credential gives the same handle. It
    is kept as long as a handle is, and, once sent to nodes, until the last pool is closed.

    Args:
        credential: anything with azure-core's `get_token` or `get_token_info`, sync or async. An
            async one is run on a loop of azpool's own: leave it to azpool alone.

    Raises:
        UsageError: it has neither.
    """
    if isinstance(credential, SharedCredential):
        return credential
    from azpool.identity.sources import CredentialSource

    registration = registry.register(
        ("credential", id(credential)), lambda: CredentialSource(credential)
    )
    return SharedCredential(_holder_here(registration), registration)


def _after_fork() -> None:
    global _holders_lock
    _holders_lock = threading.RLock()
    for holder in _holders.values():
        holder.forget_fork()
    for registration in registry.all_here():
        if registration.holder is not None:
            registration.holder.forget_fork()


os.register_at_fork(after_in_child=_after_fork)
