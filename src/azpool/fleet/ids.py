"""Resource ids of Azure Resource Manager: parsed, compared and written. Pure.

    /subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME...]

Azure answers with ids in any case (`RESOURCEGROUPS/MY-RG`), and says that they compare without it:
https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules. What is
written keeps the case that it came in; `key` is what is compared and hashed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from azpool.errors import UsageError

__all__ = [
    "ResourceId",
    "checked_group",
    "checked_name",
    "checked_subscription",
    "parse_id",
    "same_id",
    "scale_set_id",
    "scale_set_vm_id",
    "vm_id",
]

COMPUTE = "Microsoft.Compute"
VMS = "virtualMachines"
SCALE_SETS = "virtualMachineScaleSets"

LONGEST_SHOWN = 120
_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Rules of resource names, of that page: groups up to 90 letters, digits and -_.() not ending in a
# full stop. Names of machines are narrower; the service says so better than a copy of its rules.
_GROUP = re.compile(r"[\w.()-]{1,90}(?<!\.)")
_NAME = re.compile(r"[^/?#%&\\<>\x00-\x20\x7f]{1,260}")


@dataclass(frozen=True, slots=True, eq=False)
class ResourceId:
    """A resource id, in its parts. Equal to another of the same parts in any case.

    Attributes:
        subscription: the id of the subscription.
        group: the resource group; "" for what belongs to the subscription itself.
        provider: the namespace, as `Microsoft.Compute`.
        parts: (type, name) from the outermost resource in.
    """

    subscription: str
    group: str
    provider: str
    parts: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The name of the resource itself; the instance id for a machine of a scale set."""
        return self.parts[-1][1]

    @property
    def type(self) -> str:
        """`Microsoft.Compute/virtualMachineScaleSets/virtualMachines`, in the case it came in."""
        return "/".join((self.provider, *(kind for kind, _ in self.parts)))

    @property
    def key(self) -> str:
        """What compares: the id in lower case."""
        return str(self).lower()

    @property
    def parent(self) -> ResourceId | None:
        """The resource that this one is a part of, or None."""
        if len(self.parts) == 1:
            return None
        return ResourceId(self.subscription, self.group, self.provider, self.parts[:-1])

    def is_a(self, *types: str, provider: str = COMPUTE) -> bool:
        """Tell whether it is of these types, from the outermost in, in any case."""
        kinds = [kind.lower() for kind, _ in self.parts]
        wanted = [kind.lower() for kind in types]
        return self.provider.lower() == provider.lower() and kinds == wanted

    @property
    def is_vm(self) -> bool:
        """Whether it is a virtual machine: a plain one, or one of a Flexible scale set."""
        return self.is_a(VMS)

    @property
    def is_scale_set(self) -> bool:
        return self.is_a(SCALE_SETS)

    @property
    def is_scale_set_vm(self) -> bool:
        """Whether it is an instance of a Uniform scale set."""
        return self.is_a(SCALE_SETS, VMS)

    def child(self, kind: str, name: str) -> ResourceId:
        """Name a resource within this one."""
        parts = (*self.parts, (kind, name))
        return ResourceId(self.subscription, self.group, self.provider, parts)

    def __str__(self) -> str:
        group = f"/resourceGroups/{self.group}" if self.group else ""
        tail = "/".join(f"{kind}/{name}" for kind, name in self.parts)
        return f"/subscriptions/{self.subscription}{group}/providers/{self.provider}/{tail}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceId) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


def parse_id(text: str) -> ResourceId:
    """Read a resource id.

    Raises:
        UsageError: it is none; the message names the part that is wrong.
    """
    if not _is_text(text):
        raise UsageError(
            f"cannot read a resource id: it is a {type(text).__name__}; give it as a string, "
            "/subscriptions/..."
        )
    segments = text.strip().removesuffix("/").split("/")
    if segments[0] or len(segments) < 3 or segments[1].lower() != "subscriptions":
        raise _bad(text, "it does not begin with /subscriptions/ID")
    subscription = segments[2]
    if not _SUBSCRIPTION.fullmatch(subscription):
        raise _bad(text, f"{_shown(subscription)} is no subscription id, which is a GUID")
    rest, group = segments[3:], ""
    if rest and rest[0].lower() == "resourcegroups":
        group = rest[1] if len(rest) > 1 else ""
        if not _GROUP.fullmatch(group):
            raise _bad(text, f"{_shown(group)} is no name of a resource group")
        rest = rest[2:]
    if not rest or rest[0].lower() != "providers":
        raise _bad(text, "it names no resource: /providers/NAMESPACE/TYPE/NAME is missing")
    return ResourceId(subscription, group, *_tail(text, rest[1:]))


def _tail(text: str, rest: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    for at in range(len(rest) - 1, 0, -1):
        # An extension of another resource (a lock, an autoscale setting) has a second provider.
        if rest[at].lower() == "providers" and at % 2:
            raise _bad(text, "it has two providers; give the id of the machine itself")
    if len(rest) < 3 or len(rest) % 2 == 0:
        raise _bad(text, "a type stands there without a name, or a name without a type")
    pairs = tuple(zip(rest[1::2], rest[2::2], strict=True))
    for part in (rest[0], *(part for pair in pairs for part in pair)):
        if not _NAME.fullmatch(part):
            raise _bad(text, f"{_shown(part)} is no name")
    return rest[0], pairs


def _bad(text: str, cause: str) -> UsageError:
    return UsageError(
        f"cannot read the resource id {_shown(text)}: {cause}; "
        "an id is what `az vm list --query [].id` prints"
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _shown(value: object) -> str:
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        value = f"{value[:LONGEST_SHOWN]}…"
    return repr(value)


def same_id(one: str, other: str) -> bool:
    """Tell whether two ids are of the same resource: they compare without case."""
    return one.strip().rstrip("/").lower() == other.strip().rstrip("/").lower()


def vm_id(subscription: str, group: str, name: str) -> ResourceId:
    """Write the id of a virtual machine."""
    return ResourceId(subscription, group, COMPUTE, ((VMS, name),))


def scale_set_id(subscription: str, group: str, name: str) -> ResourceId:
    """Write the id of a scale set."""
    return ResourceId(subscription, group, COMPUTE, ((SCALE_SETS, name),))


def scale_set_vm_id(subscription: str, group: str, name: str, instance_id: str) -> ResourceId:
    """Write the id of an instance of a Uniform scale set."""
    return scale_set_id(subscription, group, name).child(VMS, instance_id)


def checked_subscription(text: str) -> str:
    """Answer the id of a subscription as it is; a whole resource id of one will do.

    Raises:
        UsageError: it is none.
    """
    bare = text.strip() if _is_text(text) else ""
    if bare.lower().startswith("/subscriptions/"):
        bare = bare.split("/")[2]
    if not _SUBSCRIPTION.fullmatch(bare):
        raise UsageError(
            f"cannot use {_shown(text)} as a subscription: its id is a GUID; see `az account list`"
        )
    return bare


def checked_group(text: str) -> str:
    """Answer the name of a resource group as it is.

    Raises:
        UsageError: no group can have that name.
    """
    if not _is_text(text) or not _GROUP.fullmatch(text):
        raise UsageError(
            f"cannot use {_shown(text)} as a resource group: a name has up to 90 letters, digits "
            "and -_.(), and does not end in a full stop"
        )
    return text


def checked_name(text: str, what: str) -> str:
    """Answer the name of a resource as it is; `what` says of which, for the message.

    Raises:
        UsageError: no resource can have that name.
    """
    if not _is_text(text) or not _NAME.fullmatch(text):
        raise UsageError(
            f"cannot use {_shown(text)} as the name of a {what}: no resource is called so"
        )
    return text
