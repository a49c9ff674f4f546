"""The options that commands share, and what their values mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from azpool.errors import UsageError

if TYPE_CHECKING:
    from azpool.cli._term import Terminal

__all__ = [
    "AccountOption",
    "AnonymousOption",
    "Auth",
    "ConnectionStringOption",
    "DebugOption",
    "EndpointOption",
    "JsonOption",
    "KeyOption",
    "LoginOption",
    "ProgressMode",
    "ProgressOption",
    "QuietOption",
    "ReportOption",
    "SasOption",
    "VerboseOption",
    "YesOption",
]


class ProgressMode(str, Enum):  # noqa: UP042 - typer shows the values of a str enum on 3.11 too
    """When to draw the live view."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"

    def live(self, terminal: Terminal) -> bool:
        """Whether to draw it on this terminal."""
        if self is ProgressMode.AUTO:
            return terminal.can_move_cursor
        return self is ProgressMode.ALWAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """How to sign in, as the options say; all of them unset: as the environment says."""

    account: str | None = None
    endpoint: str | None = None
    connection_string: str | None = None
    key: str | None = None
    sas: str | None = None
    anonymous: bool = False
    login: bool = False

    def __post_init__(self) -> None:
        given = [
            name
            for name, value in (
                ("--connection-string", self.connection_string),
                ("--key", self.key),
                ("--sas", self.sas),
                ("--anonymous", self.anonymous),
                ("--login", self.login),
            )
            if value
        ]
        if len(given) > 1:
            raise UsageError(
                f"cannot sign in: {' and '.join(given)} are different ways to; give one of them"
            )

    def __repr__(self) -> str:
        return "Auth(***)"

    def arguments(self) -> dict[str, Any]:
        """Answer what `azpool.storage` takes, without what is unset."""
        arguments: dict[str, Any] = {
            "account": self.account,
            "endpoint": self.endpoint,
            "connection_string": self.connection_string,
            "key": self.key,
            "sas": self.sas,
            "anonymous": self.anonymous or None,
            "credential": _default_credential() if self.login else None,
        }
        return {name: value for name, value in arguments.items() if value is not None}


def _default_credential() -> Any:
    from azpool.identity.sources import default_credential

    return default_credential()


AccountOption = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="NAME",
        help="The storage account of az:// addresses. Default: AZURE_STORAGE_ACCOUNT.",
        rich_help_panel="Credentials",
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="The account's address for az://, where it is not "
        "https://ACCOUNT.blob.core.windows.net (an emulator, a private cloud).",
        rich_help_panel="Credentials",
    ),
]
ConnectionStringOption = Annotated[
    str | None,
    typer.Option(
        "--connection-string",
        metavar="TEXT",
        help="Discouraged, as is --key: other users of the machine see arguments. Set "
        "AZURE_STORAGE_CONNECTION_STRING.",
        rich_help_panel="Credentials",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="The account's key. Discouraged: set AZURE_STORAGE_KEY.",
        rich_help_panel="Credentials",
    ),
]
SasOption = Annotated[
    str | None,
    typer.Option(
        "--sas",
        metavar="TOKEN",
        help="A shared access signature. Discouraged: set AZURE_STORAGE_SAS_TOKEN.",
        rich_help_panel="Credentials",
    ),
]
LoginOption = Annotated[
    bool,
    typer.Option(
        "--login",
        help="Sign in as azure-identity finds: az login, a managed identity, the environment.",
        rich_help_panel="Credentials",
    ),
]
AnonymousOption = Annotated[
    bool,
    typer.Option(
        "--anonymous", help="Sign in as nobody: public containers.", rich_help_panel="Credentials"
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON object a line on standard output.",
        rich_help_panel="Output",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but what failed.", rich_help_panel="Output"),
]
ProgressOption = Annotated[
    ProgressMode,
    typer.Option(
        "--progress",
        metavar="WHEN",
        help="Live progress: auto (on a terminal), never (plain lines), always.",
        rich_help_panel="Output",
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Name each file as it ends.", rich_help_panel="Output"),
]
ReportOption = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write what became of each file: as JSON or CSV, by the ending.",
        rich_help_panel="Output",
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output"),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
