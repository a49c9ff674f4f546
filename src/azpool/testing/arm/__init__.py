"""A simulator of Azure Resource Manager for machines: the official clients talk to it.

    with Arm(speed=60) as arm:
        arm.scale_set("crew", 5)
        client = ComputeManagementClient(arm.credential, arm.subscription, **arm.client_options)
        client.virtual_machine_scale_sets.begin_start("workers", "crew").result()

What is modelled, what is not, and what is an assumption stands in docs/guide/simulator.md.
"""

from azpool.testing.arm._arm import Arm, ArmCredential
from azpool.testing.arm._clock import Clock
from azpool.testing.arm._faults import Faults, Rule
from azpool.testing.arm._limits import OLDER_POLICIES, Limits
from azpool.testing.arm._operations import Failure
from azpool.testing.arm._run_commands import RunCommands
from azpool.testing.arm._scripts import Script, Scripts, tiny_shell
from azpool.testing.arm._server import Seen
from azpool.testing.arm._world import Machine, ScaleSet, World

__all__ = [
    "OLDER_POLICIES",
    "Arm",
    "ArmCredential",
    "Clock",
    "Failure",
    "Faults",
    "Limits",
    "Machine",
    "Rule",
    "RunCommands",
    "ScaleSet",
    "Script",
    "Scripts",
    "Seen",
    "World",
    "tiny_shell",
]
