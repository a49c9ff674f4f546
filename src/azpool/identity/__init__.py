"""One sign-in for all nodes: the master holds the credentials, the nodes ask it for tokens.

    share(credential) -> SharedCredential, which pickles as a handle

    shared, secret -> registry -> broker (the master) -> book (decides), sources (sign in)

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.identity.shared import SharedCredential as SharedCredential
    from azpool.identity.shared import share as share

__all__ = ["SharedCredential", "share"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("azpool.identity.shared"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
