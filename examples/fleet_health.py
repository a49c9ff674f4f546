"""A function is called with every machine of a scale set, on the nodes, in the simulator.

For real machines leave out the simulator and its three arguments, and name your own subscription.
"""

from azpool import delete_pool
from azpool.fleet import Fleet
from azpool.testing.arm import Arm

with Arm() as arm:
    arm.scale_set("crew", 30, zones=("1", "2", "3"), public=True)
    fleet = Fleet.scale_set(
        arm.subscription,
        "workers",
        "crew",
        credential=arm.credential,
        base_url=arm.url,
        ca_file=arm.ca_file,
    )
    addresses = {one.name: one.value["private"][0] for one in fleet.ips()}

    def is_healthy(one):
        # Runs on a node; what it uses travels with it. Ask the machine itself here.
        if one.instance_id == "7":
            raise ConnectionError(f"nothing answers at {addresses[one.name]}")
        return f"{one.name} in zone {one.zone}"

    report = fleet.map(is_healthy)
    print(report)
    assert len(report.ok) == 29
    (sick,) = report.failed
    assert "nothing answers at 10." in str(sick.error)
delete_pool()
