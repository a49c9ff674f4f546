"""The arguments of scripts, commands and extensions, checked; what is secret is kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azpool.errors import UsageError
from azpool.identity.secret import Secret

__all__ = ["command_arguments", "extension_arguments", "hidden", "script_arguments"]


def script_arguments(
    script: str,
    parameters: Mapping[str, str] | None,
    protected: Mapping[str, str] | None,
    timeout_seconds: int | None,
    run_as: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answer the arguments of `run_script` and its secrets.

    Raises:
        UsageError: one makes no sense.
    """
    if not _is_text(script):
        raise UsageError("cannot run an empty script: give its text")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise UsageError(
            f"cannot run a script for timeout_seconds={timeout_seconds!r}: give more than 0"
        )
    both = {*(parameters or ())} & {*(protected or ())}
    if both:
        raise UsageError(
            f"cannot give the parameter {min(both)!r} twice: it is protected, or it is not"
        )
    arguments: dict[str, Any] = {"script": script}
    if parameters:
        arguments["parameters"] = _texts(parameters)
    if timeout_seconds is not None:
        arguments["timeout_seconds"] = timeout_seconds
    if run_as is not None:
        arguments["run_as"] = run_as
    return arguments, {"protected_parameters": hidden(_texts(protected))} if protected else {}


def command_arguments(command_id: str, parameters: Mapping[str, str] | None) -> dict[str, Any]:
    """Answer the arguments of `run_deployed_command`.

    Raises:
        UsageError: one makes no sense.
    """
    if not _is_text(command_id):
        raise UsageError("cannot run a command without its id: name one, as 'RunShellScript'")
    arguments: dict[str, Any] = {"command_id": command_id}
    if parameters:
        arguments["parameters"] = _texts(parameters)
    return arguments


def extension_arguments(
    name: str,
    publisher: str,
    kind: str,
    version: str,
    settings: Mapping[str, Any] | None,
    protected: Mapping[str, Any] | None,
    *,
    auto_upgrade_minor: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answer the arguments of `add_extension` and its secrets.

    Raises:
        UsageError: one makes no sense.
    """
    named = {"name": name, "publisher": publisher, "type": kind, "version": version}
    for what, value in named.items():
        if not _is_text(value):
            raise UsageError(f"cannot add an extension with {what}={value!r}: give its {what}")
    arguments: dict[str, Any] = {**named, "auto_upgrade_minor": auto_upgrade_minor}
    if settings:
        arguments["settings"] = dict(settings)
    return arguments, {"protected_settings": hidden(protected)} if protected else {}


def hidden(value: Any) -> Any:
    """Make every string within a secret; the adapter opens them on the node."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping):
        return {name: hidden(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(one) for one in value]
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    given: object = values
    if not isinstance(given, Mapping):
        raise UsageError("cannot use these parameters: give them by name, {'name': 'value'}")
    return {str(name): str(value) for name, value in given.items()}
