"""`Fleet`: a frozen snapshot of machines, and what can be done to all of them.

    Fleet.scale_set(...) | Fleet.vms(...) -> where, slices -> start(), run_script(), ips(), ...
      -> plan.make_plan -> run.run on the nodes of a pool -> FleetReport

No logic of its own: reading is in `listing` and `_sources`, what is done to machines in
`procedures`. An operation on an empty fleet sends nothing and answers with an empty report: a
selection that finds nothing is no error; making a fleet of no ids is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from azpool.errors import UsageError
from azpool.fleet import _doing, _lookups, _scripts, _sources
from azpool.fleet._link import PoolOptions, link_to
from azpool.fleet._members import Members
from azpool.fleet._options import How, OperationOptions, ScriptHow
from azpool.fleet.ids import checked_group, checked_name, checked_subscription, scale_set_id
from azpool.fleet.listing import owner_of
from azpool.identity.secret import Secret

if TYPE_CHECKING:
    from azpool.fleet.instance import Instance
    from azpool.fleet.outcome import FleetReport
    from azpool.fleet.plan import Plan
    from azpool.pool.session import AnyPool

__all__ = ["Fleet"]


class Fleet(Members):
    """Some machines as they were when they were read; a sequence of `Instance`s.

    Slices and `where` answer with smaller fleets; `sync` reads it again. It pickles, with a handle
    of its credential: a node of this process's pools can use it.

    Every operation takes the keywords of `OperationOptions` (`wait`, `timeout_seconds`,
    `max_failures`, `batch`, `progress`, `journal`, `min_pool_size`, `max_pool_size`, `pool`) and
    answers with a `FleetReport`: one outcome for each instance, in the fleet's order.
    """

    __slots__ = ()

    # --- made -----------------------------------------------------------------------------------

    @classmethod
    def scale_set(
        cls,
        subscription: str,
        group: str,
        name: str,
        *,
        credential: Any = None,
        base_url: str | None = None,
        ca_file: str | None = None,
        scopes: Sequence[str] = (),
        min_pool_size: int = 2,
        max_pool_size: int = 10,
        pool: AnyPool | None = None,
    ) -> Fleet:
        """Read all machines of a scale set, Uniform or Flexible; blocks.

        Args:
            subscription: its id.
            group: the resource group.
            name: of the scale set.
            credential: any of azure-identity; None is DefaultAzureCredential.
            base_url: Azure Resource Manager's address; None is the public cloud's.
            ca_file: certificates to trust instead of the system's, as a simulator's.
            scopes: what tokens are for; () is what the cloud takes.
            min_pool_size: nodes that the session's pool has at least.
            max_pool_size: it is grown up to this by the number of calls; 0 is serial, without one.
            pool: another pool than the session's.

        Raises:
            UsageError: an argument makes no sense; nothing was sent.
            FleetError: it can't be read: there is none, or it may not be.
        """
        owner = scale_set_id(
            checked_subscription(subscription),
            checked_group(group),
            checked_name(name, "scale set"),
        )
        options = PoolOptions(min_pool_size=min_pool_size, max_pool_size=max_pool_size, pool=pool)
        link = link_to(
            credential, base_url=base_url, ca_file=ca_file, scopes=scopes, options=options
        )
        source = _sources.ScaleSetSource(owner)
        return cls(source.read(link), link, source)

    @classmethod
    def vms(
        cls,
        subscription: str | None = None,
        *,
        ids: Sequence[str] | None = None,
        group: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        credential: Any = None,
        base_url: str | None = None,
        ca_file: str | None = None,
        scopes: Sequence[str] = (),
        min_pool_size: int = 2,
        max_pool_size: int = 10,
        pool: AnyPool | None = None,
    ) -> Fleet:
        """Read virtual machines by their ids, or those of a group or a subscription; blocks.

        Ids may be of several subscriptions, each with its own budgets, and of instances of Uniform
        scale sets. One that can't be read is in the fleet all the same, with the reason as its
        `unread`.

        Args:
            subscription: its id; not together with `ids`.
            ids: resource ids, in any case; one that is given twice counts once.
            group: a resource group; None is all of them.
            tags: which a machine must have; values are globs, None is any.
            credential: any of azure-identity; None is DefaultAzureCredential.
            base_url: Azure Resource Manager's address; None is the public cloud's.
            ca_file: certificates to trust instead of the system's, as a simulator's.
            scopes: what tokens are for; () is what the cloud takes.
            min_pool_size: nodes that the session's pool has at least.
            max_pool_size: it is grown up to this by the number of calls; 0 is serial, without one.
            pool: another pool than the session's.

        Raises:
            UsageError: an argument makes no sense (no ids, a malformed one); nothing was sent.
            FleetError: the list can't be read.
        """
        source: _sources.Source
        if ids is not None:
            if subscription is not None or group is not None or tags is not None:
                raise UsageError(
                    "cannot choose machines by ids and by something else: give ids alone, "
                    "and choose among them by where()"
                )
            source = _sources.IdsSource(_sources.checked_ids(ids))
        elif subscription is None:
            raise UsageError("cannot find machines: give ids=[...], or a subscription")
        else:
            source = _sources.GroupSource(
                checked_subscription(subscription),
                None if group is None else checked_group(group),
                tuple((tags or {}).items()),
            )
        options = PoolOptions(min_pool_size=min_pool_size, max_pool_size=max_pool_size, pool=pool)
        link = link_to(
            credential, base_url=base_url, ca_file=ca_file, scopes=scopes, options=options
        )
        return cls(source.read(link), link, source)

    # --- read -----------------------------------------------------------------------------------

    def sync(self) -> Fleet:
        """Read it again and answer the fleet as it is now; blocks.

        A whole scale set, group or list of ids is read as it was first: machines that are new are
        in it, those that are gone are not (ids stay, with their `unread`). A part keeps its
        instances; those that are gone say so in `unread`.

        Raises:
            FleetError: it can't be read.
        """
        if self._source is not None:
            return Fleet(self._source.read(self._link), self._link, self._source)
        return Fleet(_sources.read_again(self._link, self._instances), self._link)

    def status(self) -> FleetReport:
        """Tell the state of every instance as it is now: one list for all; blocks.

        `value` of an outcome has `power`, `provisioning`, `zone`, `size` and `latest_model`; one
        that is gone is unknown.
        """
        return _doing.status(self._link, self._instances)

    def ips(self) -> FleetReport:
        """Tell the addresses of every instance as they are now; blocks.

        `value` of an outcome has `private`, `public` and `fqdns`, each a list.
        """
        return _doing.ips(self._link, self._instances)

    def nics(self) -> list[dict[str, Any]]:
        """Answer the JSON of the network interfaces of all instances."""
        found = _lookups.networks(self._link, self._instances)
        keys = [one.resource_id.lower() for each in found.interfaces.values() for one in each]
        return [dict(found.bodies[key]) for key in keys]

    def public_ip_resources(self) -> list[dict[str, Any]]:
        """Answer the JSON of the public addresses of all instances."""
        found = _lookups.networks(self._link, self._instances)
        return [dict(found.bodies[key]) for key in found.public]

    def vnets(self) -> list[dict[str, Any]]:
        """Answer the JSON of the virtual networks that the instances are in.

        Raises:
            FleetError: one can't be read; as for all look-ups.
        """
        parts = _lookups.networks(self._link, self._instances).parts()
        return _lookups.resources(self._link, parts.vnet_ids)

    def nsgs(self) -> list[dict[str, Any]]:
        """Answer the JSON of the network security groups of the instances' interfaces."""
        parts = _lookups.networks(self._link, self._instances).parts()
        return _lookups.resources(self._link, parts.security_group_ids)

    def load_balancers(self) -> list[dict[str, Any]]:
        """Answer the JSON of the load balancers in front of the instances."""
        parts = _lookups.networks(self._link, self._instances).parts()
        return _lookups.resources(self._link, parts.load_balancer_ids)

    def disks(self) -> list[dict[str, Any]]:
        """Answer the JSON of the instances' managed disks."""
        return _lookups.resources(
            self._link, (each for one in self._instances for each in one.disk_ids)
        )

    def autoscaler(self) -> dict[str, Any] | None:
        """Answer the JSON of the scale set's autoscale settings; None where it has none.

        Raises:
            UsageError: the instances are not all of one scale set.
            FleetError: they can't be read.
        """
        owners = {owner_of(one) for one in self._instances}
        if isinstance(self._source, _sources.ScaleSetSource):
            owners.add(self._source.owner)
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None:
            raise UsageError("cannot look for an autoscaler: not all are of one scale set")
        return _lookups.autoscaler(self._link, owner)

    # --- done to it -----------------------------------------------------------------------------

    def plan(
        self,
        operation: str,
        *,
        wait: bool = True,
        batch: int | None = None,
        **arguments: Any,
    ) -> Plan:
        """Tell what an operation would send, and what that takes; sends nothing.

        Args:
            operation: a method's name: `start`, `stop`, `run_script`, ...; or any of `do`.
            wait: as of the operation.
            batch: as of the operation.
            arguments: the operation's own: `deallocate=False`, `script="uptime"`.

        Raises:
            UsageError: there is no such operation, the fleet is empty, or an argument makes no
                sense.
        """
        return _doing.plan(
            self._instances, operation, arguments, OperationOptions(wait=wait, batch=batch)
        )

    def start(self, **how: Unpack[How]) -> FleetReport:
        """Start the machines."""
        return self._do("start", {}, how)

    def stop(self, *, deallocate: bool = True, **how: Unpack[How]) -> FleetReport:
        """Stop the machines, and give them back so that they are not paid for.

        Args:
            deallocate: with False they stay where they are, stopped and paid for.
            how: see `OperationOptions`.
        """
        return self._do("stop", {"deallocate": deallocate}, how)

    def restart(self, **how: Unpack[How]) -> FleetReport:
        """Restart the machines."""
        return self._do("restart", {}, how)

    def redeploy(self, **how: Unpack[How]) -> FleetReport:
        """Move the machines to other hosts; they are restarted."""
        return self._do("redeploy", {}, how)

    def reimage(self, *, data_disks: bool = False, **how: Unpack[How]) -> FleetReport:
        """Give the machines their image again: what is on their system disks is lost.

        Args:
            data_disks: those of the data disks too, which Uniform scale sets alone have.
            how: see `OperationOptions`.
        """
        return self._do("reimage", {"data_disks": data_disks}, how)

    def resize(self, size: str, *, deallocate: bool = False, **how: Unpack[How]) -> FleetReport:
        """Give virtual machines another size; a running one is restarted.

        Args:
            size: as `Standard_D4s_v5`.
            deallocate: stop them first and start them again, for sizes that their present hosts
                don't have.
            how: see `OperationOptions`.
        """
        return self._do("resize", {"size": size, "deallocate": deallocate}, how)

    def delete(self, **how: Unpack[How]) -> FleetReport:
        """Delete the machines; this can't be undone."""
        return self._do("delete", {}, how)

    def run_script(
        self,
        script: str,
        *,
        parameters: Mapping[str, str] | None = None,
        protected_parameters: Mapping[str, str] | None = None,
        timeout_seconds: int | None = None,
        run_as: str | None = None,
        output_container: str | None = None,
        read_output: Callable[[str], bytes] | None = None,
        whole_timeout_seconds: float | None = None,
        **how: Unpack[ScriptHow],
    ) -> FleetReport:
        """Run a script on the machines: a shell's on Linux, PowerShell's on Windows.

        An outcome has `exit_code`, `stdout` and `stderr`, and is ok where the exit code is 0. The
        service gives back the last 4 KB of each, and says `truncated` then.

        Args:
            script: its text, of some 4 MB at most.
            parameters: by name; a shell finds them as variables.
            protected_parameters: the same, for what no log, journal or repr may hold.
            timeout_seconds: for the script, on each machine.
            run_as: the user that it runs as; None is the agent's own, root.
            output_container: the URL of a blob container with a SAS to create, append, write and
                read; all of the output is then kept there, in two blobs a machine, and read back.
            read_output: reads one of these blobs by its URL; needed with `output_container`.
            whole_timeout_seconds: for all machines together; None waits as long as it takes.
            how: see `OperationOptions`.

        Raises:
            UsageError: the script is empty or too long (ARM takes 4 MiB, parameters included), or
                an argument makes no sense; nothing was sent.
        """
        arguments, secrets = _scripts.script_arguments(
            script, parameters, protected_parameters, timeout_seconds, run_as
        )
        if output_container is not None:
            if read_output is None:
                raise UsageError(
                    "cannot read outputs back from output_container: give read_output, which "
                    "reads a blob by its URL"
                )
            secrets["output_container"] = Secret(output_container)
        options = OperationOptions(**how, timeout_seconds=whole_timeout_seconds)
        report = _doing.do(self._link, self._instances, "run_script", arguments, options, secrets)
        if output_container is None or read_output is None:
            return report
        return _doing.with_outputs(report, output_container, read_output)

    def run_deployed_command(
        self,
        command_id: str,
        *,
        parameters: Mapping[str, str] | None = None,
        **how: Unpack[How],
    ) -> FleetReport:
        """Run a command that the service keeps, as `IPConfig` or `RunShellScript`, on the machines.

        Args:
            command_id: its id in the service.
            parameters: by name.
            how: see `OperationOptions`.
        """
        arguments = _scripts.command_arguments(command_id, parameters)
        return self._do("run_deployed_command", arguments, how)

    def add_extension(
        self,
        name: str,
        *,
        publisher: str,
        type: str,  # noqa: A002 - the service's own word
        version: str,
        settings: Mapping[str, Any] | None = None,
        protected_settings: Mapping[str, Any] | None = None,
        auto_upgrade_minor: bool = True,
        **how: Unpack[How],
    ) -> FleetReport:
        """Put an extension on the machines, and see that it gets there.

        In a Uniform scale set it becomes part of the set's model; instances under a manual upgrade
        policy are then told to take that, for nothing reaches them otherwise.

        Args:
            name: of the extension on the machine.
            publisher: as `Microsoft.Azure.Extensions`.
            type: as `CustomScript`.
            version: as `2.1`.
            settings: its own settings, as JSON.
            protected_settings: the same, for what no log, journal or repr may hold.
            auto_upgrade_minor: take newer minor versions.
            how: see `OperationOptions`.
        """
        arguments, secrets = _scripts.extension_arguments(
            name, publisher, type, version, settings, protected_settings,
            auto_upgrade_minor=auto_upgrade_minor,
        )  # fmt: skip
        return self._do("add_extension", arguments, how, secrets)

    def do(
        self,
        operation: str,
        *,
        options: Mapping[str, Any] | None = None,
        **how: Unpack[How],
    ) -> FleetReport:
        """Do any operation that the official client has for one machine, on all of them.

        Args:
            operation: its name: `reapply`, `begin_reapply`, `perform_maintenance`, ...
            options: its arguments beside the machine's own, by the client's names; bodies as the
                JSON that the service takes.
            how: see `OperationOptions`.

        Raises:
            UsageError: there is no such operation for these machines; nothing was sent.
        """
        return self._do(operation, dict(options or {}), how)

    def map(
        self, f: Callable[[Instance], Any], *, timeout_seconds: float | None = None
    ) -> FleetReport:
        """Call `f` with every instance on the nodes; `value` of an outcome is what it answered.

        One that raises is a failed outcome, and the others go on.

        Args:
            f: any function; what it answers must pickle.
            timeout_seconds: for each instance, after which its node is ended.
        """
        return _doing.mapped(self._link, self._instances, f, timeout_seconds)

    def _do(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        how: How,
        secrets: Mapping[str, Any] | None = None,
    ) -> FleetReport:
        options = OperationOptions(**how)
        return _doing.do(self._link, self._instances, operation, arguments, options, secrets)
