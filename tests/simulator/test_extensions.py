"""Extensions of machines and of scale sets' models, as the official client handles them."""

from __future__ import annotations

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

GROUP, SET, VM, NAME = "workers", "crew", "lone", "VMAccessForLinux"
PROPERTIES = {
    "publisher": "Microsoft.OSTCExtensions",
    "type": "VMAccessForLinux",
    "typeHandlerVersion": "1.2",
    "autoUpgradeMinorVersion": True,
}


class Extensions:
    """The extensions of a machine, of either kind."""

    def __init__(self, arm, kind):
        self.arm, self.kind = arm, kind
        uniform = kind == "uniform instance"
        self.where = {"resource_group_name": GROUP, "vm_extension_name": NAME}
        self.where |= {"vm_scale_set_name": SET, "instance_id": "0"} if uniform else {"vm_name": VM}
        compute = arm.compute
        self.client = (
            compute.virtual_machine_scale_set_vm_extensions
            if uniform
            else compute.virtual_machine_extensions
        )

    def put(self, *, polling=True, **properties):
        # Without polling nobody moves the clock: a poller has a thread of its own that does.
        body = {"location": "eastus", "properties": PROPERTIES | properties}
        return self.client.begin_create_or_update(
            **self.where, extension_parameters=body, polling=polling
        )

    def get(self, **more):
        return self.client.get(**self.where, **more).as_dict()

    def names(self):
        where = {key: value for key, value in self.where.items() if key != "vm_extension_name"}
        return [one.name for one in self.client.list(**where).value]

    def delete(self, *, polling=True):
        return self.client.begin_delete(**self.where, polling=polling)


@pytest.fixture(params=["uniform instance", "virtual machine"])
def extensions(arm, request):
    return Extensions(arm, request.param)


def test_extension_is_created_as_recorded_and_keeps_its_secrets(extensions):
    extensions.put(polling=False, settings={"a": 1}, protectedSettings={"key": "hidden"})
    answer = extensions.arm.last("PUT")
    assert answer.status == 201
    assert answer.body["properties"]["provisioningState"] == "Creating"
    extensions.arm.advance(60)
    of = "virtualMachineScaleSets/" if extensions.kind.startswith("uniform") else ""
    assert extensions.get() == {
        "name": NAME,
        "id": f"{extensions.arm.ids[extensions.kind]}/extensions/{NAME}",
        "type": f"Microsoft.Compute/{of}virtualMachines/extensions",
        "location": "eastus",
        "properties": PROPERTIES | {"settings": {"a": 1}, "provisioningState": "Succeeded"},
    }
    assert extensions.names() == [NAME]
    assert not any("hidden" in repr(one.body) for one in extensions.arm.answers)
    view = extensions.get(expand="instanceView")["properties"]["instanceView"]
    assert view["statuses"][0]["code"] == "ProvisioningState/succeeded"
    assert view["typeHandlerVersion"] == "1.2"


def test_extension_is_deleted_once_its_operation_has_ended(extensions):
    extensions.put().result()
    extensions.delete(polling=False)
    assert extensions.arm.last("DELETE").status == 202
    assert extensions.names() == [NAME]
    extensions.arm.advance(60)
    assert extensions.names() == []
    with pytest.raises(ResourceNotFoundError):
        extensions.get()
    extensions.delete().result()
    assert extensions.arm.last("DELETE").status == 204


def test_second_extension_on_a_busy_machine_conflicts(extensions):
    extensions.put(polling=False)
    with pytest.raises(ResourceExistsError) as caught:
        extensions.put(forceUpdateTag="2")
    assert caught.value.status_code == 409
    extensions.arm.advance(60)
    extensions.put(forceUpdateTag="2").result()
    assert extensions.arm.last("PUT").status == 200


def test_extension_needs_a_running_machine_and_its_publisher(extensions):
    with pytest.raises(HttpResponseError) as caught:
        extensions.put(publisher="")
    assert (caught.value.status_code, caught.value.error.code) == (400, "InvalidParameter")
    extensions.arm.machine(extensions.kind).power = "deallocated"
    with pytest.raises(ResourceExistsError) as caught:
        extensions.put()
    assert caught.value.error.code == "OperationNotAllowed"


def test_extension_fails_where_the_agent_is_silent(extensions):
    extensions.arm.machine(extensions.kind).agent = False
    with pytest.raises(HttpResponseError) as caught:
        extensions.put().result()
    assert caught.value.error.code == "VMAgentStatusCommunicationError"
    assert extensions.get()["properties"]["provisioningState"] == "Failed"


# --- the model of a scale set ---------------------------------------------------------------------


def put_model(arm, *, polling=True, **properties):
    return arm.compute.virtual_machine_scale_set_extensions.begin_create_or_update(
        GROUP, SET, NAME, {"properties": PROPERTIES | properties}, polling=polling
    )


def instances(arm):
    return list(arm.machine("uniform instance").scale_set.machines.values())


def test_extension_of_the_model_reaches_manual_instances_by_an_upgrade_alone(arm):
    put_model(arm, protectedSettings={"key": "hidden"}).result()
    assert arm.last("PUT").status == 201
    read = arm.compute.virtual_machine_scale_set_extensions.get(GROUP, SET, NAME).as_dict()
    assert read["type"] == "Microsoft.Compute/virtualMachineScaleSets/extensions"
    assert read["properties"]["provisioningState"] == "Succeeded"
    assert [one.latest_model for one in instances(arm)] == [False] * 3
    assert [one.extensions for one in instances(arm)] == [{}] * 3
    arm.compute.virtual_machine_scale_sets.begin_update_instances(
        GROUP, SET, {"instanceIds": ["0", "2"]}
    ).result()
    assert [one.latest_model for one in instances(arm)] == [True, False, True]
    assert [list(one.extensions) for one in instances(arm)] == [[NAME.lower()], [], [NAME.lower()]]
    listed = arm.compute.virtual_machine_scale_set_vm_extensions.list(GROUP, SET, "0")
    assert [one.name for one in listed.value] == [NAME]
    assert not any("hidden" in repr(one.body) for one in arm.answers)


def test_instances_under_an_automatic_policy_take_the_model_by_themselves(arm):
    arm.machine("uniform instance").scale_set.upgrade_policy = "Automatic"
    put_model(arm, polling=False)
    assert [one.latest_model for one in instances(arm)] == [False] * 3
    arm.advance(60)
    assert [one.latest_model for one in instances(arm)] == [True] * 3
    assert all(NAME.lower() in one.extensions for one in instances(arm))


def test_same_model_extension_again_leaves_instances_at_the_latest_model(arm):
    put_model(arm).result()
    arm.compute.virtual_machine_scale_sets.begin_update_instances(
        GROUP, SET, {"instanceIds": ["*"]}
    ).result()
    put_model(arm).result()
    assert [one.latest_model for one in instances(arm)] == [True] * 3


def test_extension_that_leaves_the_model_leaves_instances_at_their_upgrade(arm):
    put_model(arm).result()
    update = arm.compute.virtual_machine_scale_sets.begin_update_instances
    update(GROUP, SET, {"instanceIds": ["*"]}).result()
    arm.compute.virtual_machine_scale_set_extensions.begin_delete(GROUP, SET, NAME).result()
    assert list(arm.compute.virtual_machine_scale_set_extensions.list(GROUP, SET)) == []
    assert [one.latest_model for one in instances(arm)] == [False] * 3
    assert all(one.extensions for one in instances(arm))
    update(GROUP, SET, {"instanceIds": ["*"]}).result()
    assert not any(one.extensions for one in instances(arm))
