"""The simulator's own life: what a test does wrong with it, and the simulator as a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import signal
import ssl
import subprocess
import sys

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.mgmt.compute import ComputeManagementClient

from azpool.errors import UsageError
from azpool.testing.arm import Arm

GROUP, VM = "workers", "lone"


def machine(options, arm):
    """Ask for the machine, as a client with these options does."""
    with ComputeManagementClient(arm.credential, arm.subscription, **options) as client:
        return client.virtual_machines.get(GROUP, VM)


@pytest.mark.parametrize("what", ["url", "ca_file", "client_options"])
def test_one_that_does_not_run_has_no_address_that_a_client_would_take_for_azure(what):
    arm = Arm()
    with pytest.raises(UsageError, match=r"^cannot tell the .* not running; call start\(\)"):
        getattr(arm, what)
    with arm:
        assert getattr(arm, what)
    with pytest.raises(UsageError, match="not running"):
        getattr(arm, what)


def test_started_and_stopped_twice_is_harmless():
    arm = Arm(speed=0)
    arm.vm(VM)
    with arm, arm.start():
        url = arm.url
        assert machine(arm.client_options, arm).name == VM
        assert arm.start().url == url
    arm.stop()
    arm.stop()
    assert repr(arm) == "<Arm stopped>"


def test_request_after_the_end_is_refused_at_once():
    with Arm(speed=0) as arm, contextlib.ExitStack() as stack:
        arm.vm(VM)
        client = stack.enter_context(
            ComputeManagementClient(arm.credential, arm.subscription, **arm.client_options)
        )
        assert client.virtual_machines.get(GROUP, VM).name == VM
        arm.stop()
        # azure-core reads the CA file for each request, and it is gone with the simulator.
        with pytest.raises((ServiceRequestError, OSError), match=r"refused|ca\.pem"):
            client.virtual_machines.get(GROUP, VM)


def test_client_that_trusts_another_ca_is_told_so_and_harms_nobody():
    with Arm(speed=0) as arm, Arm(speed=0) as other:
        arm.vm(VM)
        for wrong in (other.ca_file, True):
            with pytest.raises(ServiceRequestError, match="CERTIFICATE_VERIFY_FAILED"):
                machine(arm.client_options | {"connection_verify": wrong}, arm)
        assert machine(arm.client_options, arm).name == VM
        assert arm.broken == other.broken == []


def test_pickled_it_says_what_to_send_instead():
    with Arm() as arm, pytest.raises(UsageError, match=r"send its url, ca_file and credential"):
        pickle.dumps(arm)


def in_fork(check):
    """Run a function in a fork, and give what it returns; None where it did not end well."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(check()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def test_fork_may_ask_it_and_neither_stops_nor_changes_it():
    with Arm(speed=0) as arm:
        arm.vm(VM)
        assert machine(arm.client_options, arm).name == VM

        def check():
            seen = machine(arm.client_options, arm).name
            said = []
            for wrong in (lambda: arm.vm("another"), lambda: arm.advance(1), lambda: arm.requests):
                try:
                    wrong()
                except UsageError as error:
                    said.append(str(error))
            arm.stop()
            return [seen, said, machine(arm.client_options, arm).name]

        before, said, after = in_fork(check)
        assert (before, after) == (VM, VM)
        assert len(said) == 3
        assert all(f"it runs in process {os.getpid()}" in one for one in said)
        assert machine(arm.client_options, arm).name == VM
        assert arm.broken == []


def test_fork_that_lives_on_keeps_no_port_open():
    with Arm(speed=0) as arm:
        port = int(arm.url.rpartition(":")[2])
        reading, writing = os.pipe()
        ready, begun = os.pipe()
        child = os.fork()
        if not child:
            os.close(writing)
            os.write(begun, b"x")
            os.read(reading, 1)
            os._exit(0)
        assert os.read(ready, 1)  # it closes its copies when it begins
        os.close(ready)
        os.close(begun)
        arm.stop()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with pytest.raises(ConnectionRefusedError):
            connection.connect()
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


# --- as a process ---------------------------------------------------------------------------------


@contextlib.contextmanager
def process(*arguments):
    command = [sys.executable, "-m", "azpool.testing.arm", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        try:
            yield one
        finally:
            if one.poll() is None:
                one.kill()


def ask(facts, path):
    """Ask as a client does that knows no more than the line that was printed."""
    context = ssl.create_default_context(cafile=facts["ca_file"])
    address = facts["url"].removeprefix("https://")
    connection = http.client.HTTPSConnection(address, context=context, timeout=30)
    base = f"/subscriptions/{facts['subscription']}/resourceGroups/{facts['group']}"
    headers = {"Authorization": f"Bearer {facts['token']}"}
    target = f"{base}/providers/Microsoft.Compute/{path}?api-version=2026-04-01"
    connection.request("GET", target, headers=headers)
    with connection.getresponse() as answer:
        body = json.loads(answer.read())
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("ending", ["its standard input", signal.SIGTERM, signal.SIGINT])
def test_process_tells_how_it_is_reached_and_ends_when_told(ending):
    wanted = ["--scale-set", "crew=3", "--flexible", "flex=2", "--vm", VM]
    with process(*wanted, "--speed", "0", "--limits") as one:
        facts = json.loads(one.stdout.readline())
        status, body = ask(facts, "virtualMachineScaleSets/crew/virtualMachines")
        assert (status, len(body["value"])) == (200, 3)
        status, body = ask(facts, "virtualMachines")
        assert (status, len(body["value"])) == (200, 3)
        one.stdin.write("what is written to it changes nothing\n")
        one.stdin.flush()
        assert ask(facts, f"virtualMachines/{VM}")[0] == 200
        if isinstance(ending, signal.Signals):
            one.send_signal(ending)
        else:
            one.stdin.close()
        assert one.wait(30) == 0
        assert not os.path.exists(facts["ca_file"])
        assert one.stderr.read() == ""


def test_process_without_a_standard_input_runs_until_it_is_told():
    shell = f"exec {sys.executable} -m azpool.testing.arm --vm {VM} <&-"
    with subprocess.Popen(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, text=True) as one:
        facts = json.loads(one.stdout.readline())
        assert ask(facts, f"virtualMachines/{VM}")[0] == 200
        one.terminate()
        assert one.wait(30) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--scale-set", "crew"], "cannot make scale set 'crew': no number; say NAME=3"),
        (["--vm", "a/b"], "cannot make 'a/b'"),
        (["--speed", "-1"], "cannot make a simulator"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_process_refuses_what_it_cannot_be(wrong, said):
    with process(*wrong) as one:
        assert one.wait(30) == 2
        assert said in one.stderr.read()
        assert one.stdout.read() == ""
