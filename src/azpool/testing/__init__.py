"""What tests of azpool, and of programs that use it, run against.

`azpool.testing.azurite` starts the official Azure Storage emulator, `azpool.testing.leaks` finds
what a test left behind, `azpool.testing.tokens` gives tokens as managed identities get them,
`azpool.testing.proxy` cuts connections by a seed, and `inline_pool` lets tasks run in the test
itself. Install the extra `azpool[testing]` for Node.js, which the emulator needs.
"""

from azpool.testing.azurite import Azurite, AzuriteNotFound
from azpool.testing.leaks import Leaks, Snapshot
from azpool.testing.pools import inline_pool
from azpool.testing.proxy import CuttingProxy
from azpool.testing.tokens import TokenEndpoint, TokenRequest

__all__ = [
    "Azurite",
    "AzuriteNotFound",
    "CuttingProxy",
    "Leaks",
    "Snapshot",
    "TokenEndpoint",
    "TokenRequest",
    "inline_pool",
]
