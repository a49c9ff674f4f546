"""What a fleet is read from, and how it is read again; and the states of machines that are known.

    Fleet.scale_set | Fleet.vms -> Source.read(link) -> instances
    Fleet.sync of a part, Fleet.status -> read_again(link, instances) -> the same, as they are now

One list for many, single reads for few, and for those that a list should have had and has not:
whether they are gone is for the service to say.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from azpool.errors import UsageError
from azpool.fleet import listing
from azpool.fleet.ids import ResourceId, parse_id
from azpool.fleet.instance import Instance, InstanceKind, Power
from azpool.fleet.reading import Json, States, instance_of

if TYPE_CHECKING:
    from azpool.fleet._link import Link
    from azpool.fleet.calls import Procedure
    from azpool.fleet.listing import Pages

__all__ = ["GroupSource", "IdsSource", "ScaleSetSource", "Source", "checked_ids", "read_again"]

T = TypeVar("T")

# Up to so many machines are read one by one: a list of a subscription may have pages that are
# nobody's business here, and needs a permission on all of it.
FEW = 4
# Who may not list, or lists what is gone, may still read the single machine, or be told of it.
NOT_THIS_WAY = frozenset({403, 404})


@dataclass(frozen=True, slots=True)
class ScaleSetSource:
    """All machines of a scale set, of either kind."""

    owner: ResourceId

    def read(self, link: Link) -> tuple[Instance, ...]:
        """Read it; see `listing.members`."""
        (found,) = link.gather([listing.members(self.owner)])
        return tuple(found)

    def __str__(self) -> str:
        return f"scale set {self.owner.name}"


@dataclass(frozen=True, slots=True)
class GroupSource:
    """The virtual machines of a resource group, or of a subscription, that have these tags."""

    subscription: str
    group: str | None
    tags: tuple[tuple[str, str | None], ...]

    def read(self, link: Link) -> tuple[Instance, ...]:
        """Read it: one list of machines, one of states.

        Raises:
            FleetError: a list can't be read to its end.
        """
        where = f"resource group {self.group!r}" if self.group else "the subscription"
        found = link.gather(
            [
                listing.machines(self.subscription, self.group),
                listing.statuses(self.subscription),
            ]
        )
        models = found[0].checked(f"the machines of {where}")
        read = [instance_of(one) for one in models]
        chosen = [one for one in read if has_tags(one.tags, self.tags)]
        if found[1].refused is not None and found[1].refused.status not in NOT_THIS_WAY:
            found[1].checked(f"the states of the machines of {where}")
        return tuple(_with_states(link, chosen, found[1]))

    def __str__(self) -> str:
        tags = ", ".join(f"{name}={value}" for name, value in self.tags)
        return f"{self.group or 'subscription ' + self.subscription}{f' ({tags})' if tags else ''}"


@dataclass(frozen=True, slots=True)
class IdsSource:
    """Machines by their ids, of any kind and any number of subscriptions."""

    ids: tuple[ResourceId, ...]

    def read(self, link: Link) -> tuple[Instance, ...]:
        """Read them; who can't be read is there all the same, and says why in `unread`."""
        blanks = [listing.blank(one) for one in self.ids]
        return tuple(read_again(link, blanks))

    def __str__(self) -> str:
        return f"{len(self.ids):,} ids"


Source: TypeAlias = ScaleSetSource | GroupSource | IdsSource


def has_tags(tags: Mapping[str, str], wanted: Sequence[tuple[str, str | None]]) -> bool:
    """Tell whether all of the wanted tags are there: names without case, values as globs."""
    own = {name.lower(): value for name, value in tags.items()}
    return all(
        name.lower() in own and (value is None or fnmatch.fnmatchcase(own[name.lower()], value))
        for name, value in wanted
    )


def checked_ids(ids: Sequence[str]) -> tuple[ResourceId, ...]:
    """Read the ids of machines; one that is given twice counts once.

    Raises:
        UsageError: there are none, one is malformed, or is no machine's.
    """
    if isinstance(ids, str):
        raise UsageError("cannot use one string as ids: give a list of resource ids")
    found: dict[str, ResourceId] = {}
    for text in ids:
        one = parse_id(text)
        if one.is_scale_set:
            raise UsageError(
                f"cannot use {text!r} as a machine: it is a scale set; use Fleet.scale_set"
            )
        if not (one.is_vm or one.is_scale_set_vm):
            raise UsageError(f"cannot use {text!r} as a machine: it is a {one.type}")
        found.setdefault(one.key, one)
    if not found:
        raise UsageError("cannot make a fleet of no ids: give one at least")
    return tuple(found.values())


def read_again(link: Link, instances: Sequence[Instance]) -> list[Instance]:
    """Read machines that are known, all at once, and answer them in their order.

    A machine that is gone, or can't be read, keeps what was known of it but for its states, and
    says why in `unread`.
    """
    groups = listing.by_owner(instances)
    lists: list[tuple[list[Instance], ResourceId | str]] = []
    singles: list[Instance] = []
    for owner, some in groups.items():
        if len(some) <= FEW:
            singles += some
        else:
            lists.append((some, owner))
    procedures: list[Procedure[Pages]] = []
    for some, owner in lists:
        procedures += _procedures(owner, some)
    read = iter(link.gather(procedures))
    found: dict[str, Instance] = {}
    for some, owner in lists:
        models = next(read)
        states = next(read) if isinstance(owner, str) else None
        troubled = next((one.refused for one in (models, states) if one and one.refused), None)
        if troubled is not None and troubled.status not in NOT_THIS_WAY:
            # Throttled, or out of order: hundreds of single reads would make it worse.
            words = listing.why(troubled)
            found |= {one.key: _lost(one, replace(one, unread=words)) for one in some}
            continue
        items = {str(item.get("id")).lower(): item for item in models.items}
        views = None if states is None else listing.states_by_key(states.items)
        for one in some:
            item = items.get(one.key)
            if item is None or (views is not None and one.key not in views):
                singles.append(one)
            else:
                found[one.key] = _read(one, item, views)
    again = link.gather([listing.machine(one.parsed) for one in singles])
    for known, one in zip(singles, again, strict=True):
        found[known.key] = _lost(known, one) if one.unread else _of(known, one)
    return [found[one.key] for one in instances]


def _procedures(owner: ResourceId | str, some: Sequence[Instance]) -> list[Procedure[Pages]]:
    if isinstance(owner, str):
        return [listing.machines(owner, None), listing.statuses(owner)]
    return [listing.listed(owner, flexible=some[0].kind is not InstanceKind.UNIFORM)]


def _read(known: Instance, item: Json, views: Mapping[str, States] | None) -> Instance:
    one = instance_of(item)
    if views is not None:
        states = views[known.key]
        one = replace(one, power=states.power)
    return _of(known, one)


def _of(known: Instance, one: Instance) -> Instance:
    """Keep what a list does not say of a machine of a Flexible set: whose it is."""
    if one.kind is InstanceKind.VM and known.kind is InstanceKind.FLEXIBLE:
        return replace(one, kind=known.kind, scale_set=known.scale_set)
    return one


def _lost(known: Instance, one: Instance) -> Instance:
    return replace(known, power=Power.UNKNOWN, provisioning="", unread=one.unread)


def _with_states(link: Link, chosen: Sequence[Instance], states: Pages) -> list[Instance]:
    """Give machines their states, from one list, or one by one where that may not be read."""
    views = listing.states_by_key(states.items)
    lacking = [one for one in chosen if one.key not in views]
    again = link.gather([listing.machine(one.parsed) for one in lacking])
    found = {one.key: new for one, new in zip(lacking, again, strict=True)}
    return [
        replace(one, power=views[one.key].power)
        if one.key in views
        else (_lost(one, found[one.key]) if found[one.key].unread else found[one.key])
        for one in chosen
    ]
