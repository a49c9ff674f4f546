"""Working with a cluster of virtual machines: one call on all of them, each answered for itself.

    Fleet.scale_set(...) | Fleet.vms(...) -> fleet.start(), run_script(...), status(), ips(), ...
    -> FleetReport: one outcome an instance

Needs the extra `azpool[fleet]`: the official clients do the wire.
"""
