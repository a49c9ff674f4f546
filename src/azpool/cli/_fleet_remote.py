"""The seam between the commands and `azpool.fleet`: tests put fleets of their own here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.cli._fleet_target import Target

__all__ = ["AzureFleets", "chosen", "fleets_of"]


class AzureFleets:
    """The real one: everything of azpool.fleet that the commands use goes through this class."""

    def open(self, target: Target, arm: dict[str, Any]) -> Any:
        """Read a fleet; blocks."""
        from azpool.fleet import Fleet

        if target.scale_set:
            return Fleet.scale_set(target.subscription, target.group, target.scale_set, **arm)
        if target.ids:
            return Fleet.vms(ids=target.ids, **arm)
        chosen_by = {"group": target.group or None, "tags": dict(target.tags) or None}
        return Fleet.vms(target.subscription, **chosen_by, **arm)  # type: ignore[arg-type]  # by name

    def resume(self, path: str, **how: Any) -> Any:
        """Go on by a journal; blocks."""
        from azpool.fleet import resume

        return resume(path, **how)


def fleets_of(ctx: Any) -> Any:
    """Answer what this command works on: the caller's of `main`, else the real one."""
    return ctx.obj if ctx.obj is not None else AzureFleets()


def chosen(found: Any, wanted: dict[str, Any]) -> Any:
    """Choose among instances by `conditions`."""
    own = {name: wanted[name] for name in ("kind", "location", "latest_model") if name in wanted}
    given = {name: value for name, value in wanted.items() if name not in own}

    def fits(one: Any) -> bool:
        return all(_is(getattr(one, name), value) for name, value in own.items())

    if own:
        given["predicate"] = fits
    return found.where(**given)


def _is(has: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool):
        return has is wanted
    several = (wanted,) if isinstance(wanted, str) else wanted
    return str(has).lower() in {one.lower() for one in several}
