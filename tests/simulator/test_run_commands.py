"""Run commands of the simulator as the official client sees them, beside what was recorded."""

from __future__ import annotations

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

GROUP, SET, VM, NAME = "workers", "crew", "lone", "check"
UNIFORM, PLAIN = "uniform instance", "virtual machine"


class Commands:
    """Run commands of one machine, of either kind, by one set of names."""

    def __init__(self, arm, kind):
        self.arm, self.kind = arm, kind
        compute = arm.compute
        uniform = kind == UNIFORM
        self.where = {"resource_group_name": GROUP}
        self.where |= {"vm_scale_set_name": SET, "instance_id": "0"} if uniform else {"vm_name": VM}
        machines = compute.virtual_machine_scale_set_vm_run_commands
        self.client = machines if uniform else compute.virtual_machine_run_commands
        self.actions = (
            compute.virtual_machine_scale_set_vms if uniform else compute.virtual_machines
        )
        self.id = arm.ids[UNIFORM if uniform else PLAIN]

    def put(self, script, name=NAME, *, polling=True, **properties):
        # Without polling nobody moves the clock: a poller has a thread of its own that does.
        properties = {"source": {"script": script}, **properties}
        body = {"location": "eastus", "properties": properties}
        return self.client.begin_create_or_update(
            **self.where, run_command_name=name, run_command=body, polling=polling
        )

    def patch(self, name=NAME, **properties):
        return self.client.begin_update(
            **self.where, run_command_name=name, run_command={"properties": properties}
        )

    def get(self, name=NAME):
        if self.kind == UNIFORM:
            return self.client.get(
                **self.where, run_command_name=name, expand="instanceView"
            ).as_dict()
        return self.client.get_by_virtual_machine(
            **self.where, run_command_name=name, expand="instanceView"
        ).as_dict()

    def view(self, name=NAME):
        return self.get(name)["properties"]["instanceView"]

    def list(self):
        listed = self.client.list if self.kind == UNIFORM else self.client.list_by_virtual_machine
        return [one.as_dict() for one in listed(**self.where)]

    def delete(self, name=NAME):
        return self.client.begin_delete(**self.where, run_command_name=name)

    def act(self, *lines, polling=True, **more):
        body = {"commandId": "RunShellScript", "script": list(lines), **more}
        return self.actions.begin_run_command(**self.where, parameters=body, polling=polling)


@pytest.fixture(params=[UNIFORM, PLAIN])
def commands(arm, request):
    return Commands(arm, request.param)


def test_failed_script_under_a_successful_operation_reads_as_recorded(commands):
    folder = "/var/lib/waagent/run-command-handler/download/check/0"
    error = f"{folder}/script.sh: line 1: Write-Host: command not found\n"
    commands.arm.settings.scripts = lambda *_: (127, "", error, 0)
    body = commands.put("Write-Host Hello World!").result().as_dict()
    assert body["properties"]["provisioningState"] == "Succeeded"
    of = "virtualMachineScaleSets/" if commands.kind == UNIFORM else ""
    read = commands.get()
    view = read["properties"].pop("instanceView")
    assert read == {
        "name": "check",
        "id": f"{commands.id}/runCommands/check",
        "type": f"Microsoft.Compute/{of}virtualMachines/runCommands",
        "location": "eastus",
        "properties": {
            "source": {"script": "Write-Host Hello World!"},
            "timeoutInSeconds": 0,
            "provisioningState": "Succeeded",
            "asyncExecution": False,
        },
    }
    assert view.pop("startTime") <= view.pop("endTime")
    assert view == {
        "exitCode": 127,
        "executionState": "Failed",
        "executionMessage": (
            "Execution failed: failed to execute command: command terminated with exit status=127"
        ),
        "output": "",
        "error": (
            "/var/lib/waagent/run-command-handler/download/check/0/script.sh: line 1: "
            "Write-Host: command not found\n"
        ),
    }


def test_put_and_delete_answer_with_the_status_and_headers_recorded(commands):
    commands.put("true").result()
    first = commands.arm.last("PUT")
    assert first.status == 201
    assert {"Azure-AsyncOperation"} == {"Azure-AsyncOperation", "Location"} & set(first.headers)
    assert first.body["properties"]["provisioningState"] == "Creating"
    commands.patch(source={"script": "false"}, timeoutInSeconds=3600).result()
    second = commands.arm.last("PATCH")
    assert (second.status, second.body["properties"]["provisioningState"]) == (200, "Updating")
    assert second.body["properties"]["timeoutInSeconds"] == 3600
    assert [one["name"] for one in commands.list()] == ["check"]
    commands.delete().result()
    third = commands.arm.last("DELETE")
    assert (third.status, third.body) == (202, None)
    assert {"Azure-AsyncOperation", "Location"} <= set(third.headers)
    assert "monitor=true" in third.headers["Location"]
    with pytest.raises(ResourceNotFoundError) as caught:
        commands.get()
    assert caught.value.error.code == "ResourceNotFound"
    commands.delete().result()
    assert commands.arm.last("DELETE").status == 204


def test_script_is_pending_then_runs_then_has_ended(commands):
    arm = commands.arm
    arm.operations.seconds["runCommand"] = 26
    commands.put("sleep 100\necho done", polling=False)
    assert commands.view()["executionState"] == "Pending"
    arm.advance(20)
    view = commands.view()
    assert (view["executionState"], view["exitCode"]) == ("Running", 0)
    assert "endTime" not in view
    assert commands.get()["properties"]["provisioningState"] == "Creating"
    arm.advance(100)
    view = commands.view()
    assert (view["executionState"], view["output"]) == ("Succeeded", "done\n")
    arm.advance(10)
    assert commands.get()["properties"]["provisioningState"] == "Succeeded"


def test_async_execution_ends_the_operation_while_the_script_runs(commands):
    commands.put("sleep 1000\nexit 4", asyncExecution=True).result()
    assert commands.get()["properties"]["provisioningState"] == "Succeeded"
    assert commands.view()["executionState"] == "Running"
    commands.arm.advance(1000)
    assert commands.view()["exitCode"] == 4


def test_script_failure_fails_the_operation_where_that_is_asked(commands):
    with pytest.raises(HttpResponseError) as caught:
        commands.put("exit 9", treatFailureAsDeploymentFailure=True).result()
    assert caught.value.error.code == "VMExtensionProvisioningError"
    assert commands.get()["properties"]["provisioningState"] == "Failed"
    assert commands.view()["exitCode"] == 9
    commands.put("exit 0", name="other", treatFailureAsDeploymentFailure=True).result()
    assert commands.get("other")["properties"]["provisioningState"] == "Succeeded"


@pytest.mark.parametrize("state", ["Failed", "TimedOut"])
def test_script_that_passes_its_time_out_is_killed(commands, state):
    commands.arm.settings.killed_state = state
    commands.put("echo begun\nsleep 60", timeoutInSeconds=5).result()
    view = commands.view()
    assert (view["executionState"], view["exitCode"], view["output"]) == (state, -1, "begun\n")
    # The state follows from the script's end, not from when somebody looks.
    assert view["startTime"] < view["endTime"]


def test_output_is_the_last_4096_bytes_of_each_stream(commands):
    text = "".join(f"line {number}\n" for number in range(2000))
    commands.arm.settings.scripts = lambda *_: (0, text, "é" * 3000, 0)
    commands.put("much").result()
    view = commands.view()
    assert view["output"] == text[-4096:]
    assert view["error"] == "é" * 2048


def test_protected_parameters_reach_the_script_and_are_never_given_back(commands):
    seen = []

    def scripts(machine, source, parameters):
        seen.append((machine.id, source, dict(parameters)))
        return 0, "", "", 0

    commands.arm.settings.scripts = scripts
    commands.put(
        "run",
        parameters=[{"name": "a", "value": "1"}, {"name": "", "value": "first"}],
        protectedParameters=[{"name": "key", "value": "hidden"}],
        runAsUser="root",
        runAsPassword="hidden",
    ).result()
    assert seen == [(commands.id, "run", {"a": "1", "1": "first", "key": "hidden"})]
    properties = commands.get()["properties"]
    assert properties["parameters"][0] == {"name": "a", "value": "1"}
    assert properties["runAsUser"] == "root"
    assert "hidden" not in repr(commands.get()) + repr(commands.list())
    assert not any("hidden" in repr(answer.body) for answer in commands.arm.answers)


def test_same_put_again_does_not_run_the_script_again(commands):
    runs = []
    commands.arm.settings.scripts = lambda *_: (0, f"{runs.append(1)}", "", 0)
    for _ in range(2):
        commands.put("once").result()
    assert len(runs) == 1
    commands.put("twice").result()
    commands.patch(parameters=[{"name": "a", "value": "b"}]).result()
    assert len(runs) == 3
    commands.arm.settings.repeat_same = True
    commands.put("twice", parameters=[{"name": "a", "value": "b"}]).result()
    assert len(runs) == 4


def test_run_commands_of_one_machine_run_beside_each_other(commands):
    for name in ("one", "two", "three"):
        commands.put("sleep 50", name=name, polling=False)
    commands.arm.advance(30)
    assert {commands.view(name)["executionState"] for name in ("one", "two", "three")} == {
        "Running"
    }


def test_26th_run_command_is_refused_in_the_words_reported(commands):
    for number in range(25):
        commands.put("true", name=f"c{number}", polling=False)
    with pytest.raises(HttpResponseError) as caught:
        commands.put("true", name="c25", polling=False)
    assert caught.value.status_code == 409
    assert caught.value.error.message.startswith(
        "The maximum number of managed Run commands (max=25, current=25) has been exceeded. Use "
        "fewer Run commands and retry the request."
    )
    commands.put("true", name="c7", polling=False)  # one that is there may be changed
    commands.delete("c7").result()
    commands.put("true", name="c25").result()
    assert len(commands.list()) == 25


@pytest.mark.parametrize("power", ["deallocated", "stopped"])
def test_machine_that_does_not_run_runs_nothing(commands, power):
    commands.arm.machine(commands.kind).power = power
    for call, words in (
        (commands.put, "Cannot modify extensions in the VM when the VM is not running."),
        (commands.act, "The operation requires the VM to be running (or set to run)."),
    ):
        with pytest.raises(ResourceExistsError) as caught:
            call("true")
        assert (caught.value.status_code, caught.value.error.code) == (409, "OperationNotAllowed")
        assert caught.value.error.message == words


def test_silent_agent_fails_the_operation_and_nothing_is_known_of_the_script(commands):
    commands.arm.machine(commands.kind).agent = False
    with pytest.raises(HttpResponseError) as caught:
        commands.put("true").result()
    assert caught.value.error.code == "VMAgentStatusCommunicationError"
    assert commands.view()["executionState"] == "Unknown"
    assert commands.get()["properties"]["provisioningState"] == "Failed"


def test_unreadable_requests_are_refused(commands):
    where = {**commands.where, "run_command_name": NAME}
    for body, code in (
        ({"properties": {"source": {"script": "true"}}}, "LocationRequired"),
        ({"location": "eastus", "properties": {}}, "InvalidParameter"),
        ({"location": "eastus", "properties": {"source": {"script": ""}}}, "InvalidParameter"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            commands.client.begin_create_or_update(**where, run_command=body)
        assert (caught.value.status_code, caught.value.error.code) == (400, code)
    with pytest.raises(ResourceNotFoundError):
        commands.patch(name="never", timeoutInSeconds=1)


# --- v1 -------------------------------------------------------------------------------------------


def test_v1_gives_both_streams_in_one_message_as_recorded(commands):
    commands.arm.settings.scripts = lambda *_: (0, "out\n", "err\n", 0)
    result = commands.act("whatever").result().as_dict()
    assert result == {
        "value": [
            {
                "code": "ProvisioningState/succeeded",
                "level": "Info",
                "displayStatus": "Provisioning succeeded",
                "message": "Enable succeeded: \n[stdout]\nout\n\n[stderr]\nerr\n",
            }
        ]
    }
    answer = commands.arm.last("POST")
    assert (answer.status, answer.body) == (202, None)
    assert {"Azure-AsyncOperation", "Location"} <= set(answer.headers)
    document = commands.arm.ask(answer.headers["Azure-AsyncOperation"])
    assert document.body["properties"]["output"] == result
    assert document.body["status"] == "Succeeded"


def test_v1_says_nothing_of_the_exit_code_and_keeps_the_last_4096_bytes(commands):
    commands.arm.settings.scripts = lambda *_: (3, "x" * 5000 + "end", "", 0)
    (value,) = commands.act("whatever").result().as_dict()["value"]
    assert value["message"] == f"Enable succeeded: \n[stdout]\n{'x' * 4093}end\n[stderr]\n"


def test_second_v1_on_a_busy_machine_conflicts_as_reported(commands):
    commands.act("sleep 30", polling=False)
    with pytest.raises(ResourceExistsError) as caught:
        commands.act("true")
    assert (caught.value.status_code, caught.value.error.code) == (409, "Conflict")
    assert caught.value.error.message == (
        "Run command extension execution is in progress. Please wait for completion before "
        "invoking a run command."
    )
    commands.put("true").result()  # managed ones are not in its way
    commands.arm.advance(60)
    commands.act("true").result()


def test_v1_passes_its_lines_and_parameters_on(commands):
    (value,) = (
        commands.act(
            "echo $who $1", "hostname", "nonsense", parameters=[{"name": "who", "value": "me"}]
        )
        .result()
        .as_dict()["value"]
    )
    computer = "crew000000" if commands.kind == UNIFORM else "lone"
    assert value["message"] == (
        f"Enable succeeded: \n[stdout]\nme \n{computer}\n\n[stderr]\n"
        "script.sh: line 3: nonsense: command not found\n"
    )
    for body, status in (({"script": ["true"]}, 400), ({"commandId": "Nothing"}, 404)):
        with pytest.raises(HttpResponseError) as caught:
            commands.actions.begin_run_command(**commands.where, parameters=body)
        assert caught.value.status_code == status
