"""`azpool login-check`: which credential answers `--login`, as whom, and until when.

The token itself is never shown. What azure-identity logs of credentials that it tried in vain is
told only where none gave a token.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from azpool.cli import _options as options
from azpool.cli import _words as words
from azpool.cli._exit import Code
from azpool.cli._help import Command, new_app
from azpool.cli._term import Terminal
from azpool.errors import AccessDenied, UsageError

if TYPE_CHECKING:
    from azpool.identity.login import Login

__all__ = ["app"]

app = new_app()

STORAGE = "https://storage.azure.com/.default"

ScopeOption = Annotated[
    str,
    typer.Option("--scope", metavar="SCOPE", help=f"What the token is for. Default: {STORAGE}"),
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="ID", help="The tenant to sign in to.")
]


@app.command("login-check", cls=Command, epilog="azpool login-check --json")
def login_check(
    scope: ScopeOption = STORAGE,
    tenant: TenantOption = None,
    quiet: options.QuietOption = False,
    json_: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> int:
    """Sign in as --login does and tell which credential answered, as whom, and until when.

    The token itself is never shown.
    """
    terminal = Terminal()
    if not debug:
        # What was tried in vain is part of the one message, if there is one.
        logging.getLogger("azure").setLevel(logging.CRITICAL)
    found = _sign_in(scope, tenant, terminal, quiet=quiet)
    seconds_left = found.expires_on - time.time()
    if json_:
        terminal.result(json.dumps(_facts(found, seconds_left)))
    elif not quiet:
        for name, text in _lines(found, seconds_left):
            terminal.result(f"{name:<11} {words.printable(text)}")
    terminal.flush()
    return Code.DONE


def _sign_in(scope: str, tenant: str | None, terminal: Terminal, *, quiet: bool) -> Login:
    from azpool.identity.login import look
    from azpool.identity.sources import default_credential

    if not scope.strip():
        raise UsageError("cannot sign in: --scope is empty; leave it out for storage")
    credential = default_credential()
    try:
        return look(credential, scope, tenant=tenant)
    except Exception as error:
        first, *others = str(error).strip().splitlines() or [type(error).__name__]
        if not quiet:
            for line in others:
                terminal.say(words.printable(line.expandtabs(2)), "dim")
        raise AccessDenied(
            f"cannot sign in: {type(error).__name__}: {words.printable(first).rstrip('.')}; "
            "run az login, or set the variables of a service principal"
        ) from error
    finally:
        credential.close()


def _lines(found: Login, seconds_left: float) -> list[tuple[str, str]]:
    ends = datetime.fromtimestamp(found.expires_on, UTC).astimezone()
    kind = "person" if found.person else "program"
    return [
        ("credential", " > ".join(found.credentials)),
        ("tenant", found.tenant or "the token does not say"),
        ("account", f"{found.account} ({kind})" if found.account else "the token does not say"),
        ("scope", found.scope),
        ("expires", f"{ends:%Y-%m-%d %H:%M:%S}, in {words.seconds(max(0.0, seconds_left))}"),
    ]


def _facts(found: Login, seconds_left: float) -> dict[str, object]:
    return {
        "event": "login",
        "credential": found.credentials[-1],
        "credentials": list(found.credentials),
        "tenant": found.tenant,
        "account": found.account,
        "person": found.person,
        "object_id": found.object_id,
        "scope": found.scope,
        "expires_on": datetime.fromtimestamp(found.expires_on, UTC).isoformat(),
        "seconds_left": round(seconds_left),
    }
