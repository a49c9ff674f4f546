"""Machines and scale sets of both kinds: what they are, and what operations do to them."""

from __future__ import annotations

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

GROUP, SET, VM = "workers", "crew", "lone"


def powers(arm, name=SET):
    listed = arm.compute.virtual_machine_scale_set_vms.list(GROUP, name, expand="instanceView")
    return {one.instance_id: state(one.instance_view) for one in listed}


def state(view):
    return view.statuses[1].code.removeprefix("PowerState/")


def sets(arm):
    return arm.compute.virtual_machine_scale_sets


def some(*ids):
    return {"instanceIds": list(ids)}


def test_instance_of_a_uniform_set_reads_as_recorded(arm):
    arm.compute.virtual_machine_scale_set_vms.get(GROUP, SET, "0", expand="instanceView")
    body = arm.last("GET").body
    assert body["name"] == "crew_0"
    assert body["instanceId"] == "0"
    assert body["type"] == "Microsoft.Compute/virtualMachineScaleSets/virtualMachines"
    assert body["sku"] == {"name": "Standard_D2s_v5", "tier": "Standard"}
    properties = body["properties"]
    assert properties["latestModelApplied"] is True
    assert properties["modelDefinitionApplied"] == "VirtualMachineScaleSet"
    assert properties["osProfile"]["computerName"] == "crew000000"
    assert properties["networkProfile"] == {
        "networkInterfaces": [{"id": f"{body['id']}/networkInterfaces/crewNic"}]
    }
    codes = [one["code"] for one in properties["instanceView"]["statuses"]]
    assert codes == ["ProvisioningState/succeeded", "PowerState/running"]
    assert properties["instanceView"]["statuses"][1]["displayStatus"] == "VM running"


def test_start_of_many_instances_is_one_operation_that_takes_time(arm):
    sets(arm).begin_deallocate(GROUP, SET, some("0", "2")).result()
    assert powers(arm) == {"0": "deallocated", "1": "running", "2": "deallocated"}
    sets(arm).begin_start(GROUP, SET, some("0"), polling=False)
    answer = arm.last("POST")
    assert (answer.status, answer.body) == (202, None)
    assert {"Azure-AsyncOperation", "Location", "Retry-After"} <= set(answer.headers)
    assert powers(arm) == {"0": "starting", "1": "running", "2": "deallocated"}
    document = arm.ask(answer.headers["Azure-AsyncOperation"]).body
    assert document["status"] == "InProgress"
    assert "endTime" not in document
    assert arm.ask(answer.headers["Location"]).status == 202
    arm.advance(60)
    document = arm.ask(answer.headers["Azure-AsyncOperation"]).body
    assert set(document) == {"startTime", "endTime", "status", "name"}
    assert (document["status"], document["startTime"] < document["endTime"]) == ("Succeeded", True)
    assert arm.ask(answer.headers["Location"]).status == 200
    assert powers(arm) == {"0": "running", "1": "running", "2": "deallocated"}


def test_no_instance_ids_are_all_of_them_and_unknown_ones_are_refused(arm):
    sets(arm).begin_power_off(GROUP, SET).result()
    assert set(powers(arm).values()) == {"stopped"}
    sets(arm).begin_restart(GROUP, SET, some("*")).result()
    assert set(powers(arm).values()) == {"running"}
    for ids in (some("1", "77"), some()):
        with pytest.raises(HttpResponseError) as caught:
            sets(arm).begin_start(GROUP, SET, ids)
        assert (caught.value.status_code, caught.value.error.code) == (400, "InvalidParameter")
    assert set(powers(arm).values()) == {"running"}


def test_machine_under_an_operation_refuses_the_next(arm):
    sets(arm).begin_restart(GROUP, SET, some("0"), polling=False)
    instances = arm.compute.virtual_machine_scale_set_vms
    for call in (
        lambda: instances.begin_start(GROUP, SET, "0"),
        lambda: sets(arm).begin_start(GROUP, SET, some("0", "1")),
    ):
        with pytest.raises(ResourceExistsError) as caught:
            call()
        assert (caught.value.status_code, caught.value.error.code) == (409, "Conflict")
    instances.begin_restart(GROUP, SET, "1").result()
    arm.advance(60)
    instances.begin_restart(GROUP, SET, "0").result()


def test_each_power_operation_of_a_machine_ends_in_its_state(arm):
    machines = arm.compute.virtual_machines
    for operation, ends in (
        ("begin_power_off", "stopped"),
        ("begin_start", "running"),
        ("begin_deallocate", "deallocated"),
        ("begin_start", "running"),
        ("begin_restart", "running"),
        ("begin_redeploy", "running"),
        ("begin_reimage", "running"),
        ("begin_reapply", "running"),
    ):
        getattr(machines, operation)(GROUP, VM).result()
        assert state(machines.instance_view(GROUP, VM)) == ends
        assert machines.get(GROUP, VM).provisioning_state == "Succeeded"


def test_deallocated_machine_cannot_be_powered_off(arm):
    arm.compute.virtual_machines.begin_deallocate(GROUP, VM).result()
    with pytest.raises(ResourceExistsError) as caught:
        arm.compute.virtual_machines.begin_power_off(GROUP, VM)
    assert caught.value.error.code == "OperationNotAllowed"


def test_reimage_gives_a_new_disk_and_forgets_run_commands(arm):
    machines = arm.compute.virtual_machines
    before = machines.get(GROUP, VM).storage_profile.os_disk.name
    arm.machine("virtual machine").run_commands["x"] = None
    machines.begin_reimage(GROUP, VM).result()
    assert machines.get(GROUP, VM).storage_profile.os_disk.name != before
    assert arm.machine("virtual machine").run_commands == {}


def test_resize_and_tags_are_there_once_the_operation_has_ended(arm):
    machines = arm.compute.virtual_machines
    change = {
        "properties": {"hardwareProfile": {"vmSize": "Standard_D8s_v5"}},
        "tags": {"role": "boss"},
    }
    machines.begin_update(GROUP, VM, change, polling=False)
    assert arm.last("PATCH").status == 200
    assert machines.get(GROUP, VM).provisioning_state == "Updating"
    assert machines.get(GROUP, VM).hardware_profile.vm_size == "Standard_D2s_v5"
    arm.advance(60)
    read = machines.get(GROUP, VM)
    assert (read.hardware_profile.vm_size, read.tags) == ("Standard_D8s_v5", {"role": "boss"})


def test_deleted_machines_are_gone_and_deleting_again_is_no_error(arm):
    machines = arm.compute.virtual_machines
    machines.begin_delete(GROUP, VM).result()
    with pytest.raises(ResourceNotFoundError) as caught:
        machines.get(GROUP, VM)
    assert caught.value.error.code == "ResourceNotFound"
    machines.begin_delete(GROUP, VM).result()
    assert arm.last("DELETE").status == 204
    sets(arm).begin_delete_instances(GROUP, SET, some("1")).result()
    assert set(powers(arm)) == {"0", "2"}
    with pytest.raises(ResourceNotFoundError):
        arm.compute.virtual_machine_scale_set_vms.get_instance_view(GROUP, SET, "1")


def test_scale_set_that_is_being_deleted_refuses_and_then_is_gone(arm):
    sets(arm).begin_delete(GROUP, SET, polling=False)
    assert sets(arm).get(GROUP, SET).provisioning_state == "Deleting"
    with pytest.raises(ResourceExistsError) as caught:
        sets(arm).begin_start(GROUP, SET, some("0"))
    assert caught.value.error.code == "OperationNotAllowed"
    arm.advance(60)
    with pytest.raises(ResourceNotFoundError):
        sets(arm).get(GROUP, SET)
    with pytest.raises(ResourceNotFoundError):
        list(arm.compute.virtual_machine_scale_set_vms.list(GROUP, SET))


@pytest.mark.parametrize("uniform", [True, False])
def test_machines_of_a_set_that_is_being_deleted_may_be_read_and_deleted_alone(arm, uniform):
    made = arm.sim.scale_set("gone", 2, uniform=uniform)
    one, _ = made.machines.values()
    sets(arm).begin_delete(GROUP, "gone", polling=False)
    assert arm.ask(f"{arm.sim.url}{one.id}?api-version=1").body["properties"][
        "provisioningState"
    ] == ("Deleting")
    command = {"location": "x", "properties": {"source": {"script": "true"}}}
    for method, path, body in (
        ("POST", "/start", None),
        ("PUT", "/runCommands/one", command),
        ("POST", "/runCommand", {"commandId": "RunShellScript", "script": ["true"]}),
        ("PUT", "/extensions/one", {"properties": {}}),
        ("PUT", "", {"location": "eastus", "tags": {}}),
    ):
        more = {} if body is None else {"json": body}
        answer = arm.ask(f"{arm.sim.url}{one.id}{path}?api-version=1", method, **more)
        assert (answer.status, answer.body["error"]["code"]) == (409, "OperationNotAllowed")
        assert "since the VM is marked for deletion" in answer.body["error"]["message"]
    assert arm.ask(f"{arm.sim.url}{one.id}?api-version=1", "DELETE").status == 202
    arm.advance(60)
    assert arm.ask(f"{arm.sim.url}{one.id}?api-version=1").status == 404
    with pytest.raises(ResourceNotFoundError):
        sets(arm).get(GROUP, "gone")


def test_operation_that_ends_meanwhile_does_not_free_a_machine_of_a_set_being_deleted(arm):
    made = arm.sim.scale_set("gone", 1, uniform=False, power="stopped")
    (one,) = made.machines.values()
    arm.sim.seconds["delete"] = 600
    arm.compute.virtual_machines.begin_start(GROUP, one.name, polling=False)
    sets(arm).begin_delete(GROUP, "gone", polling=False)
    arm.advance(60)
    with pytest.raises(ResourceExistsError, match="marked for deletion"):
        arm.compute.virtual_machines.begin_restart(GROUP, one.name)


def test_set_whose_deletion_fails_is_there_and_may_be_deleted_again(arm):
    arm.sim.faults.fail("delete", "InUse", times=1)
    sets(arm).begin_delete(GROUP, SET, polling=False)
    arm.advance(60)
    assert sets(arm).get(GROUP, SET).provisioning_state == "Failed"
    sets(arm).begin_start(GROUP, SET, polling=False)
    arm.advance(60)
    sets(arm).begin_delete(GROUP, SET).result()
    with pytest.raises(ResourceNotFoundError):
        sets(arm).get(GROUP, SET)


def test_capacity_makes_and_removes_instances(arm):
    sets(arm).begin_update(GROUP, SET, {"sku": {"capacity": 5}}).result()
    assert set(powers(arm)) == {"0", "1", "2", "3", "4"}
    sets(arm).begin_update(GROUP, SET, {"sku": {"capacity": 2}}).result()
    assert set(powers(arm)) == {"0", "1"}
    sets(arm).begin_update(GROUP, SET, {"sku": {"capacity": 3}}).result()
    assert set(powers(arm)) == {"0", "1", "5"}  # numbers are not given twice


def test_views_of_a_flexible_set_stand_in_the_filtered_list_of_machines_alone(arm):
    flex = arm.sim.scale_set("flex", 2, uniform=False)
    arm.sim.vm("another")
    own = f"'virtualMachineScaleSet/id' eq '{flex.id}'"
    machines = arm.compute.virtual_machines
    for found in (
        machines.list(GROUP, filter=own, expand="instanceView"),
        machines.list_all(filter=own, expand="instanceView"),
    ):
        codes = [one.instance_view.statuses[1].code for one in found]
        assert codes == ["PowerState/running"] * 2
    listed = arm.compute.virtual_machine_scale_set_vms.list(GROUP, "flex", expand="instanceView")
    assert [one.instance_view for one in listed] == [None, None]
    with pytest.raises(HttpResponseError, match=r"\$filter"):
        list(machines.list(GROUP, expand="instanceView"))


def test_flexible_instances_are_virtual_machines_of_the_set(arm):
    arm.sim.scale_set("flex", 3, uniform=False, zones=("1", "2"), public=True)
    machines = arm.compute.virtual_machines
    scale_set = sets(arm).get(GROUP, "flex")
    assert scale_set.orchestration_mode == "Flexible"
    wanted = f"'virtualMachineScaleSet/id' eq '{scale_set.id}'"
    found = list(machines.list(GROUP, filter=wanted, expand="instanceView"))
    assert len(found) == 3
    assert {one.virtual_machine_scale_set.id for one in found} == {scale_set.id}
    assert [one.zones for one in found] == [["1"], ["2"], ["1"]]
    assert {state(one.instance_view) for one in found} == {"running"}
    assert not list(
        arm.network.network_interfaces.list_virtual_machine_scale_set_network_interfaces(
            GROUP, "flex"
        )
    )
    nic = found[0].network_profile.network_interfaces[0].id.rpartition("/")[2]
    assert arm.network.network_interfaces.get(GROUP, nic).virtual_machine.id == found[0].id
    machines.begin_delete(GROUP, found[0].name).result()
    assert len(list(machines.list(GROUP, filter=wanted))) == 2
    with pytest.raises(ResourceNotFoundError):
        arm.network.network_interfaces.get(GROUP, nic)


def test_lists_come_in_pages_that_hold_each_machine_once(arm):
    arm.world.page_size = 7
    arm.sim.scale_set("big", 30)
    arm.sim.scale_set("bigflex", 16, uniform=False)
    listed = [
        one.instance_id for one in arm.compute.virtual_machine_scale_set_vms.list(GROUP, "big")
    ]
    assert listed == [str(number) for number in range(30)]
    names = [one.name for one in arm.compute.virtual_machines.list_all(status_only="true")]
    assert len(names) == len(set(names)) == 17
    assert {one.name for one in sets(arm).list(GROUP)} == {"crew", "big", "bigflex"}
    links = [one.body.get("nextLink") for one in arm.answers if "/big/" in one.url]
    assert [bool(link) for link in links] == [True] * 4 + [False]


def test_failure_of_some_leaves_the_others_done(arm):
    sets(arm).begin_deallocate(GROUP, SET).result()
    arm.sim.faults.fail("start", "AllocationFailed", "No room.", only=["1"], times=1)
    with pytest.raises(HttpResponseError) as caught:
        sets(arm).begin_start(GROUP, SET, some("*")).result()
    assert caught.value.error.code == "AllocationFailed"
    assert powers(arm) == {"0": "running", "1": "deallocated", "2": "running"}
    read = arm.compute.virtual_machine_scale_set_vms.get_instance_view(GROUP, SET, "1")
    assert read.statuses[0].code == "ProvisioningState/failed/AllocationFailed"
    assert (read.statuses[0].level, read.statuses[0].message) == ("Error", "No room.")
    sets(arm).begin_start(GROUP, SET, some("1")).result()
    assert powers(arm)["1"] == "running"


def test_each_instance_of_one_operation_fails_in_its_own_way(arm):
    ways = {"0": "AllocationFailed", "2": "OSProvisioningTimedOut"}
    for key, code in ways.items():
        arm.sim.faults.fail("restart", code, f"{code} of {key}.", only=[key])
    with pytest.raises(HttpResponseError) as caught:
        sets(arm).begin_restart(GROUP, SET).result()
    assert caught.value.error.code == "AllocationFailed"
    listed = arm.compute.virtual_machine_scale_set_vms.list(GROUP, SET, expand="instanceView")
    found = {one.instance_id: one.instance_view.statuses[0] for one in listed}
    assert {key: one.code for key, one in found.items()} == {
        "0": "ProvisioningState/failed/AllocationFailed",
        "1": "ProvisioningState/succeeded",
        "2": "ProvisioningState/failed/OSProvisioningTimedOut",
    }
    assert found["2"].message == "OSProvisioningTimedOut of 2."
    arm.sim.faults.clear()
    sets(arm).begin_restart(GROUP, SET).result()
    assert {one.provisioning for one in instances(arm)} == {"Succeeded"}


def test_failure_by_resource_id_hits_that_machine_alone(arm):
    arm.sim.scale_set("other", 1)
    arm.sim.faults.fail("restart", "AllocationFailed", only=[arm.ids["uniform instance"]])
    sets(arm).begin_restart(GROUP, "other", some("0")).result()
    with pytest.raises(HttpResponseError):
        sets(arm).begin_restart(GROUP, SET, some("0")).result()
    sets(arm).begin_restart(GROUP, SET, some("1")).result()


def instances(arm):
    return arm.machine("uniform instance").scale_set.machines.values()


def test_reimage_of_all_disks_renews_data_disks_too(arm):
    arm.sim.scale_set("disks", 2, data_disks=2)
    instances = arm.compute.virtual_machine_scale_set_vms

    def disks():
        read = instances.get(GROUP, "disks", "0").storage_profile
        return [read.os_disk.name, *(one.name for one in read.data_disks)]

    first = disks()
    assert len(set(first)) == 3
    for name in first:
        assert arm.compute.disks.get(GROUP, name).disk_state == "Attached"
    instances.begin_reimage(GROUP, "disks", "0").result()
    second = disks()
    assert second[0] != first[0]
    assert second[1:] == first[1:]
    instances.begin_reimage_all(GROUP, "disks", "0").result()
    third = disks()
    assert not set(third) & set(second)
    for name in set(first) | set(second) - set(third):
        with pytest.raises(ResourceNotFoundError):
            arm.compute.disks.get(GROUP, name)
    sets(arm).begin_delete_instances(GROUP, "disks", some("0")).result()
    left = {one.name for one in arm.compute.disks.list()}
    assert not left & set(third)


def test_disk_of_a_machine_of_its_own_stays_behind(arm):
    name = arm.compute.virtual_machines.get(GROUP, VM).storage_profile.os_disk.name
    arm.compute.virtual_machines.begin_delete(GROUP, VM).result()
    assert arm.compute.disks.get(GROUP, name).disk_state == "Unattached"
