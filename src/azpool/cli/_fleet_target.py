"""What the arguments of `azpool fleet` name: a scale set, machines by id, or those of a group.

    SUBSCRIPTION/GROUP/SCALE_SET   a scale set
    GROUP/SCALE_SET                the same in the subscription of the environment
    SUBSCRIPTION                   its virtual machines, with --group and --tag only some
    /subscriptions/...             the resource id of a scale set or of a machine; ids may be many
    -                              resource ids from standard input, one a line

Nothing is looked up here; what an id means in the end is `azpool.fleet`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azpool.cli import _values as values
from azpool.errors import UsageError

__all__ = ["Target", "conditions", "parse_target", "read_ids"]

_SUBSCRIPTION = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SCALE_SET = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.Compute"
    r"/virtualMachineScaleSets/([^/]+)/?",
    re.IGNORECASE,
)
FORMS = (
    "give SUBSCRIPTION/GROUP/SCALE_SET, GROUP/SCALE_SET with AZURE_SUBSCRIPTION_ID set, or "
    "resource ids"
)
# What `Fleet.where` compares, and how it is written here.
FIELDS = (
    "name", "power", "provisioning", "zone", "size", "kind", "location", "latest_model",
)  # fmt: skip
POWERS = (
    "running", "starting", "stopped", "stopping", "deallocated", "deallocating", "unknown", "off",
)  # fmt: skip
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a command is for.

    Exactly one of `scale_set`, `ids` and the virtual machines of `subscription` is meant, the first
    that is set.

    Attributes:
        subscription: the id of it; "" where `ids` say it.
        group: of a scale set, or the one whose machines are meant, or "".
        scale_set: its name, or "".
        ids: resource ids of machines.
        tags: those that machines of a subscription must have.
    """

    subscription: str = ""
    group: str = ""
    scale_set: str = ""
    ids: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Name it for a heading."""
        if self.scale_set:
            return f"{self.group}/{self.scale_set}"
        if self.ids:
            return self.ids[0].rsplit("/", 1)[-1] if len(self.ids) == 1 else "their ids"
        return self.group or f"subscription {self.subscription}"


def parse_target(
    names: Sequence[str],
    *,
    group: str | None = None,
    tags: Sequence[str] | None = None,
    environ: Mapping[str, str],
) -> Target:
    """Read the arguments, `-` replaced by what standard input held.

    Raises:
        UsageError: they name nothing, or things of which no one fleet can be made.
    """
    wanted = values.pairs("--tag", tags)
    plain = [name for name in names if not name.startswith("/")]
    ids = [name for name in names if name.startswith("/")]
    scale_sets = [found for found in map(_SCALE_SET.fullmatch, ids) if found]
    if len(names) > 1 and (plain or scale_sets):
        named = plain[0] if plain else scale_sets[0][3]
        raise UsageError(
            f"cannot work on {named!r} and others at once: only ids of machines may be several; "
            "run a command for each"
        )
    if names and not (plain or ids):
        raise UsageError(f"cannot work on {names[0]!r}: it names nothing; {FORMS}")
    if ids or (plain and "/" in plain[0]):
        if group or wanted:
            option = "--group" if group else "--tag"
            raise UsageError(
                f"cannot use {option} with {names[0]!r}: it chooses among the machines of a "
                "subscription; use --where to choose among these"
            )
        if scale_sets:
            subscription, its_group, name = scale_sets[0].groups()
            return Target(subscription=subscription, group=its_group, scale_set=name)
        return Target(ids=tuple(dict.fromkeys(ids))) if ids else _short(plain[0], environ)
    subscription = plain[0] if plain else environ.get("AZURE_SUBSCRIPTION_ID", "")
    if not plain and not (group or wanted):
        raise UsageError(f"cannot tell which machines are meant: nothing names them; {FORMS}")
    if not _SUBSCRIPTION.fullmatch(subscription):
        if plain:
            raise UsageError(f"cannot work on {plain[0]!r}: it is no subscription's id; {FORMS}")
        raise UsageError(
            "cannot tell whose machines are meant: no subscription is named; name its id, or set "
            "AZURE_SUBSCRIPTION_ID"
        )
    return Target(subscription=subscription, group=group or "", tags=wanted)


def _short(text: str, environ: Mapping[str, str]) -> Target:
    parts = text.split("/")
    if len(parts) == 3 and all(parts):
        return Target(subscription=parts[0], group=parts[1], scale_set=parts[2])
    if len(parts) == 2 and all(parts):
        if _SUBSCRIPTION.fullmatch(parts[0]):
            return Target(subscription=parts[0], group=parts[1])
        subscription = environ.get("AZURE_SUBSCRIPTION_ID", "")
        if subscription:
            return Target(subscription=subscription, group=parts[0], scale_set=parts[1])
        raise UsageError(
            f"cannot work on {text!r}: no subscription is named; give SUBSCRIPTION/{text}, or set "
            "AZURE_SUBSCRIPTION_ID"
        )
    raise UsageError(f"cannot work on {text!r}: it has {len(parts)} parts; {FORMS}")


def read_ids(text: str) -> list[str]:
    """Read ids that stand one a line; empty lines and what follows a # are passed over.

    Raises:
        UsageError: a line holds something else.
    """
    ids = [line.partition("#")[0].strip() for line in text.splitlines()]
    for one in ids:
        if one and not one.startswith("/"):
            raise UsageError(
                f"cannot work on {one[:100]!r} of standard input: it is no resource id; give one "
                "/subscriptions/... a line"
            )
    return [one for one in ids if one]


def conditions(texts: Sequence[str] | None, option: str = "--where") -> dict[str, Any]:
    """Read `power=stopped,zone=1` into what `Fleet.where` takes; all of them must hold.

    `|` parts values of which any will do: `power=stopped|deallocated`. `tag.NAME=VALUE` compares a
    tag.

    Raises:
        UsageError: a condition is none, names an unknown field or one twice.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            field_name = name.lower().replace("-", "_")
            if not (equals and name and value):
                raise UsageError(
                    f"cannot use {option}={text!r}: {part!r} is no condition; give {option} "
                    "power=stopped,zone=1"
                )
            if field_name.startswith("tag."):
                _add(found.setdefault("tags", {}), name[4:], value, option, text)
            elif field_name in FIELDS:
                _add(found, field_name, _value_of(field_name, value, option, text), option, text)
            else:
                raise UsageError(
                    f"cannot use {option}={text!r}: no field {name!r}; there are "
                    f"{', '.join(FIELDS)} and tag.NAME"
                )
    return found


def _add(found: dict[str, Any], name: str, value: Any, option: str, text: str) -> None:
    if not name:
        raise UsageError(f"cannot use {option}={text!r}: it names no tag; give tag.NAME=VALUE")
    if name in found:
        raise UsageError(
            f"cannot use {option}={text!r}: {name} is given twice; for any of several values give "
            f"{name}=one|other"
        )
    found[name] = value


def _value_of(field_name: str, text: str, option: str, whole: str) -> Any:
    if field_name == "latest_model":
        truth = _TRUTHS.get(text.lower())
        if truth is None:
            raise UsageError(
                f"cannot use {option}={whole!r}: latest_model is yes or no, not {text!r}"
            )
        return truth
    several = [one.strip() for one in text.split("|")]
    if field_name == "power":
        for one in several:
            if one.lower() not in POWERS:
                raise UsageError(
                    f"cannot use {option}={whole!r}: no power state {one!r}; there are "
                    f"{', '.join(POWERS)}"
                )
        several = [one.lower() for one in several]
    return several[0] if len(several) == 1 else tuple(several)
