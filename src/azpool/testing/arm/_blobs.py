"""The output of run commands, kept whole in append blobs by SAS, as a machine's agent does it.

    Output.begin(uri, text) -> thread -> PUT (append blob, made anew) -> PUT ?comp=appendblock ...

To whatever address it was given, over plain HTTP or HTTPS. The agent's rules (Azure/
run-command-handler-linux, cmds.go): the blob is made before the script runs, and a script whose
blob can't be made doesn't run; an append that fails later is only lost.
"""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

__all__ = ["Output"]

APPEND_BYTES = 4 * 1024 * 1024  # the most that one append takes
VERSION = "2021-12-02"
TIMEOUT_SECONDS = 20.0


class Output:
    """One stream of one script on its way into a blob.

    Attributes:
        refused: why the blob could not be made; None where it was. Without the address's query.
        ended: whether nothing more is going to happen.
    """

    def __init__(self, uri: str, text: str) -> None:
        self.refused: str | None = None
        self.ended = False
        self._uri, self._text = uri, text
        self._thread = threading.Thread(target=self._run, name="azpool-arm-output")
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self.refused = self._write()
        finally:
            self.ended = True

    def _write(self) -> str | None:
        parts = urlsplit(self._uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "the address is none of a blob"
        kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
        connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        appended = f"{target}{'&' if parts.query else '?'}comp=appendblock"
        data = self._text.encode()
        try:
            status = self._put(connection, target, b"", {"x-ms-blob-type": "AppendBlob"})
            if status != 201:
                return f"the service answered {status}"
            for start in range(0, len(data), APPEND_BYTES):
                if self._put(connection, appended, data[start : start + APPEND_BYTES], {}) != 201:
                    break
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}"
        finally:
            connection.close()
        return None

    @staticmethod
    def _put(
        connection: http.client.HTTPConnection, target: str, body: bytes, headers: dict[str, str]
    ) -> int:
        headers |= {"x-ms-version": VERSION, "Content-Length": str(len(body))}
        connection.request("PUT", target, body, headers)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status
