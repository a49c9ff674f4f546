"""`Arm`: the simulator as users hold it: start it, put machines into it, look at what came."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from azpool.errors import UsageError
from azpool.testing.arm import (  # noqa: F401 -- each module registers its own routes
    _action_commands,
    _extensions,
    _groups,
    _interfaces,
    _machines,
    _resources,
    _run_commands,
    _scale_sets,
)
from azpool.testing.arm._clock import Clock
from azpool.testing.arm._disks import attach, detach
from azpool.testing.arm._extensions import apply_model
from azpool.testing.arm._faults import Faults
from azpool.testing.arm._network import Network
from azpool.testing.arm._resources import add_autoscale
from azpool.testing.arm._run_commands import RunCommands
from azpool.testing.arm._server import Seen, Server, Service
from azpool.testing.arm._world import AUTOMATIC, MANUAL, Machine, ScaleSet, World
from azpool.testing.tokens import TENANT, unsigned_token

if TYPE_CHECKING:
    from azpool.testing.arm._limits import Limits

__all__ = ["Arm", "ArmCredential"]

SUBSCRIPTION = "00000000-0000-0000-0000-00000000a5a5"
PRINCIPAL = "00000000-0000-0000-0000-0000000000c0"
CA_FILE = "ca.pem"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # the rule of scale sets, roughly
PUBLIC_AUDIENCE = "https://management.azure.com"  # what clients of the real service ask for


class AccessToken(NamedTuple):
    """A token and when it ends; by the names that azure-core reads."""

    token: str
    expires_on: int


class ArmCredential:
    """Gives tokens that the simulator takes and no service of Azure does.

    Attributes:
        requests: how many were asked for in this process.
    """

    def __init__(self, principal: str = PRINCIPAL, life_seconds: float = 3600) -> None:
        self.principal, self.life_seconds = principal, life_seconds
        self.requests = 0

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Make a token for the first scope's resource."""
        self.requests += 1
        now = time.time()
        audience = (scopes[0] if scopes else PUBLIC_AUDIENCE).removesuffix("/.default")
        expires_on = int(now + self.life_seconds)
        token = unsigned_token(
            aud=audience, iat=int(now), exp=expires_on, tid=TENANT, oid=self.principal
        )
        return AccessToken(token, expires_on)

    def __repr__(self) -> str:
        return f"<ArmCredential of {self.principal}>"


class Arm:
    """The simulator, between `start` and `stop`.

    Attributes:
        world: all that is simulated; read and change it under `world.lock`.
        faults: what goes wrong.
        subscription: where machines are made that name no other.
        credential: tokens of a principal that may do everything.

    Args:
        speed: simulated seconds that pass in a real one; 0 for a clock that `advance` alone moves.
        limits: None for no rate limits.
        latency_seconds: how long each answer takes, in real time, the work for it included.

    Raises:
        UsageError: `speed` or `latency_seconds` is negative.
    """

    def __init__(
        self,
        *,
        speed: float = 1.0,
        limits: Limits | None = None,
        latency_seconds: float = 0.0,
        subscription: str = SUBSCRIPTION,
        group: str = "workers",
    ) -> None:
        if speed < 0 or latency_seconds < 0:
            raise UsageError("cannot make a simulator: time runs backwards; take 0 or more")
        self.world = World(Clock(speed))
        self.faults = Faults()
        self.subscription, self.group = subscription, group
        self.credential = ArmCredential()
        self._service = Service(self.world, limits, self.faults)
        self._service.latency_seconds = latency_seconds
        self._server: Server | None = None
        self._process = 0  # that started it
        self._folder: Path | None = None
        self.world.operations.failures = self.faults.of_operation
        self.world.joined += [self._connect]
        self.world.left += [self._disconnect]
        self.world.add_group(subscription, group)

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen on a free port of loopback, with a certificate of its own; twice is harmless."""
        if self._server is not None:
            return self
        import trustme  # only here: it belongs to the extra `testing`, and is slow to load

        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self._folder = Path(tempfile.mkdtemp(prefix="azpool-arm-"))
        authority.cert_pem.write_to_path(str(self._folder / CA_FILE))
        self._service.closing.clear()
        self._process = os.getpid()
        self._server = Server(self._service, context)
        self.world.base = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._service.audiences = {self.url, PUBLIC_AUDIENCE, "https://management.core.windows.net"}
        return self

    def stop(self) -> None:
        """Cut all connections and stop; twice is harmless, and in a fork nothing is done."""
        if self._server is not None and self._process != os.getpid():
            return
        server, self._server = self._server, None
        if server is not None:
            server.close()
        RunCommands.of(self.world).close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Arm {self.url if self._server else 'stopped'}>"

    def __reduce__(self) -> Any:
        raise UsageError(
            "cannot pickle a simulator: it is a server of this process; send its url, ca_file and "
            "credential instead"
        )

    def _folder_of(self, what: str) -> Path:
        if self._folder is None:
            raise UsageError(
                f"cannot tell the {what} of a simulator that is not running; call start(), or use "
                "it within `with`"
            )
        return self._folder

    def _own(self) -> World:
        """Give the world, in the process that it is in.

        Raises:
            UsageError: this is a fork, whose copy of it no client sees.
        """
        if self._server is not None and self._process != os.getpid():
            raise UsageError(
                "cannot look into a simulator from a fork: it runs in process "
                f"{self._process}; do it there"
            )
        return self.world

    # --- how to reach it ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Its address: the clients' `base_url`.

        Raises:
            UsageError: it doesn't run. A client without an address would ask Azure itself.
        """
        self._folder_of("address")
        return self.world.base

    @property
    def ca_file(self) -> str:
        """The certificate of its throw-away CA: the clients' `connection_verify`.

        Raises:
            UsageError: it doesn't run: `start` makes the file, and `stop` removes it.
        """
        return str(self._folder_of("CA file") / CA_FILE)

    @property
    def scopes(self) -> list[str]:
        """What clients ask tokens for: their `credential_scopes`."""
        return [f"{PUBLIC_AUDIENCE}/.default"]

    @property
    def client_options(self) -> dict[str, Any]:
        """What makes an official client talk to it, without retries of its own and fast polls."""
        return {
            "base_url": self.url,
            "credential_scopes": self.scopes,
            "connection_verify": self.ca_file,
            "retry_total": 0,
            "polling_interval": 0.01,
        }

    # --- what is in it ------------------------------------------------------------------------

    def scale_set(
        self,
        name: str,
        instances: int,
        *,
        uniform: bool = True,
        group: str | None = None,
        subscription: str | None = None,
        power: str = "running",
        zones: Sequence[str] = (),
        manual: bool = True,
        public: bool = False,
        balanced: bool = True,
        allocation: str = "Static",
        tags: dict[str, str] | None = None,
        size: str = "Standard_D2s_v5",
        data_disks: int = 0,
    ) -> ScaleSet:
        """Make a scale set with its network and instances.

        Raises:
            UsageError: there is one of that name, or it is none, or a number is negative.
        """
        _check(name, instances=instances, data_disks=data_disks)
        world = self._own()
        with world.lock:
            home = world.add_group(subscription or self.subscription, group or self.group)
            scale_set = ScaleSet(
                home,
                name,
                home.location,
                "Uniform" if uniform else "Flexible",
                tuple(zones),
                size,
                MANUAL if manual else AUTOMATIC,
                dict(tags or {}),
                data_disks=data_disks,
            )
            if scale_set.id.lower() in world.scale_sets:
                raise UsageError(f"cannot make scale set '{name}': it is there; take another name")
            Network.of(world).connect(
                world, scale_set, public=public, balanced=balanced, allocation=allocation
            )
            return world.add_scale_set(scale_set, instances, power=power)

    def vm(
        self,
        name: str,
        *,
        group: str | None = None,
        subscription: str | None = None,
        power: str = "running",
        zone: str | None = None,
        tags: dict[str, str] | None = None,
        public: bool = False,
        allocation: str = "Static",
        size: str = "Standard_D2s_v5",
        data_disks: int = 0,
    ) -> Machine:
        """Make a virtual machine of its own; the first of a group decides over public addresses.

        Raises:
            UsageError: there is one of that name, or it is none, or a number is negative.
        """
        _check(name, data_disks=data_disks)
        world = self._own()
        with world.lock:
            home = world.add_group(subscription or self.subscription, group or self.group)
            Network.of(world).connect(world, home, public=public, allocation=allocation)
            machine = Machine(
                home,
                name,
                home.location,
                zone=zone,
                size=size,
                power=power,
                tags=dict(tags or {}),
                data_disks=data_disks,
            )
            if machine.id.lower() in world.machines:
                raise UsageError(f"cannot make machine '{name}': it is there; take another name")
            return world.add_machine(machine)

    def autoscale(self, scale_set: ScaleSet, *, minimum: int = 1, maximum: int = 10) -> str:
        """Give a scale set autoscale settings (which never act), and their id."""
        with self._own().lock:
            return add_autoscale(self.world, scale_set, minimum=minimum, maximum=maximum).id

    # --- what happens in it -------------------------------------------------------------------

    @property
    def run_commands(self) -> RunCommands:
        """How scripts go: `arm.run_commands.scripts = ...` says what they do."""
        return RunCommands.of(self.world)

    @property
    def seconds(self) -> dict[str, float]:
        """How long operations take, by kind, in simulated seconds; change it at will."""
        return self.world.operations.seconds

    def advance(self, seconds: float) -> None:
        """Let simulated time pass at once."""
        with self._own().lock:
            self.world.clock.advance(seconds)
            self.world.settle()

    def deny(self, prefix: str, principal: str = "") -> None:
        """Answer 403 for what begins with this id, to one principal or (empty) to all."""
        with self._own().lock:
            self.world.denied.append((principal, prefix.lower()))

    def lock(self, prefix: str) -> None:
        """Put a lock on what begins with this id: all but reads answer 409 (`ScopeLocked`)."""
        with self._own().lock:
            self.world.locked.append(prefix.lower())

    @property
    def requests(self) -> list[Seen]:
        """What came so far: a copy."""
        with self._own().lock:
            return list(self._service.requests)

    @property
    def broken(self) -> list[str]:
        """Tracebacks of the simulator's own mistakes; a test may want it to be empty."""
        return self._service.broken

    @property
    def connections(self) -> int:
        """How many connections were accepted since it started."""
        return self._server.connections if self._server is not None else 0

    @property
    def limits(self) -> Limits | None:
        """How often may be asked; None: as often as one likes. May be changed at any time."""
        return self._service.limits

    @limits.setter
    def limits(self, limits: Limits | None) -> None:
        with self._own().lock:
            self._service.limits = limits

    @property
    def latency_seconds(self) -> float:
        """How long an answer takes, in real time; may be changed at any time."""
        return self._service.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._service.latency_seconds = seconds

    def _connect(self, machine: Machine) -> None:
        Network.of(self.world).join(self.world, machine)
        attach(self.world, machine)
        if machine.scale_set is not None:
            apply_model(self.world, machine)

    def _disconnect(self, machine: Machine) -> None:
        Network.of(self.world).leave(self.world, machine)
        detach(self.world, machine)


def _check(name: str, **counts: float) -> None:
    """Refuse names and numbers that no service would take.

    Raises:
        UsageError: one of them is such a one.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"cannot make '{name}': it is no name; take letters, digits, '-', '_' and '.'"
        )
    for what, count in counts.items():
        if count < 0:
            raise UsageError(f"cannot make '{name}': {what} is {count}; take 0 or more")
