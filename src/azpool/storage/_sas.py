"""What nodes get in place of an account's key: a SAS for one container, which ends within the hour.

Written here and not asked of the service, so it costs microseconds. Source: "Create a service SAS"
of the Blob service's REST reference; compared with azure-storage-blob's own in
tests/unit/storage/test_sas.py.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from urllib.parse import quote

from azpool.errors import UsageError
from azpool.identity.tokens import Token

__all__ = ["SAS_VERSION", "SasLender", "decode_key"]

# The version of the form of the signature, which has not changed since; requests say their own.
SAS_VERSION = "2021-12-02"
SAS_SECONDS = 3600
# Read, add, create, write, delete, list, tags: all that `Store` does with blobs.
PERMISSIONS = "racwdlt"


def decode_key(key: str, account: str) -> bytes:
    """Answer the bytes of an account's key.

    Raises:
        UsageError: it is no base64.
    """
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        # `from None`: the decoder's error would carry the key in its traceback.
        raise UsageError(
            f"cannot use the key of account {account!r}: it is not base64; "
            "copy it whole from the portal or AZURE_STORAGE_KEY"
        ) from None
    return decoded


@dataclass(frozen=True, slots=True)
class SasLender:
    """Lends an account's key as SAS; the purpose is a container and the protocols."""

    account: str

    def lend(self, secret: str, purpose: tuple[str, ...], now: float) -> Token:
        """Sign a SAS for one container."""
        import hashlib  # see `_signing`
        import hmac

        container, protocols = purpose
        ends = int(now) + SAS_SECONDS
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
        fields = (
            PERMISSIONS,
            "",  # from when: at once, so that a clock that is ahead does no harm
            expiry,
            f"/blob/{self.account}/{container}",
            "",  # stored policy
            "",  # addresses
            protocols,
            SAS_VERSION,
            "c",  # the whole container
            *("",) * 7,  # snapshot, encryption scope, and five headers of answers
        )
        digest = hmac.new(
            decode_key(secret, self.account), "\n".join(fields).encode(), hashlib.sha256
        ).digest()
        signature = quote(base64.b64encode(digest).decode(), safe="")
        query = (
            f"sv={SAS_VERSION}&spr={quote(protocols)}&sr=c&sp={PERMISSIONS}"
            f"&se={quote(expiry, safe='')}&sig={signature}"
        )
        return Token(value=query, expires_on=float(ends), kind="SAS")
