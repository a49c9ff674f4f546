"""`azpool fleet` as users call it: processes of their own, on terminals too, and the simulator."""

from __future__ import annotations

import codecs
import errno
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from azpool.testing import TokenEndpoint
from azpool.testing.arm import Script

pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-m", "azpool", "fleet"]
SECONDS = 40


@pytest.fixture(scope="module")
def tokens():
    with TokenEndpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def speed() -> float:
    return 60.0


@pytest.fixture
def azpool(arm, tokens, tmp_path):
    environment = {
        **os.environ,
        **tokens.environ,
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "AZPOOL_ARM_URL": arm.url,
        "AZPOOL_ARM_CA_FILE": arm.ca_file,
        "AZURE_SUBSCRIPTION_ID": arm.subscription,
        "AZPOOL_STATE_HOME": str(tmp_path / "state"),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm",
    }
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)

    def run(*arguments, text=None, **more):
        return subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment | more, input=text,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    run.environment = environment
    run.folder = tmp_path
    return run


@pytest.mark.parametrize("uniform", [True, False])
def test_status_shows_each_machine_of_either_kind(arm, azpool, uniform):
    arm.scale_set("crew", 4, uniform=uniform, zones=("1", "2"), power="deallocated")
    ended = azpool("status", "workers/crew")
    assert ended.returncode == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert [row[1:] for row in rows] == [
        ["deallocated", zone, "Standard_D2s_v5", "Succeeded"] for zone in ("1", "2", "1", "2")
    ]
    assert ended.stderr == "4 instances: 4 deallocated\n"


def test_a_table_stands_before_its_sum_where_both_go_to_one_file(arm, azpool):
    arm.scale_set("crew", 2)
    with (azpool.folder / "log").open("w+", encoding="utf-8") as log:
        subprocess.run(
            [*COMMAND, "status", "workers/crew"], cwd=azpool.folder, env=azpool.environment,
            stdout=log, stderr=subprocess.STDOUT, timeout=SECONDS, check=True,
        )  # fmt: skip
        log.seek(0)
        assert log.read().splitlines()[-1] == "2 instances: 2 running"


def test_ids_that_one_command_writes_another_reads(arm, azpool):
    arm.scale_set("crew", 4, zones=("1", "2"))
    told = azpool("status", "workers/crew", "--where", "zone=2", "--json").stdout.splitlines()
    ids = "\n".join(json.loads(line)["resource_id"] for line in told)
    ended = azpool("ips", "-", "--json", text=ids)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["instance_id"] for one in found] == ["1", "3"]
    assert all(one["value"]["private"] for one in found)


def test_machines_are_found_by_group_and_tag(arm, azpool):
    arm.vm("web", tags={"role": "web"})
    arm.vm("worker", tags={"role": "worker"})
    ended = azpool("status", "--group", "workers", "--tag", "role=worker")
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["worker"]


def test_what_is_not_there_is_code_3_and_what_is_forbidden_code_4(arm, azpool):
    scale_set = arm.scale_set("crew", 2)
    missing = azpool("status", "workers/nobody")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr.startswith("azpool: cannot read the scale set 'nobody': ")
    assert missing.stderr.count("\n") == 1
    none = azpool("status", "workers/crew", "--where", "power=off")
    assert none.returncode == 3
    arm.deny(scale_set.id)
    refused = azpool("status", "workers/crew")
    assert refused.returncode == 4, refused.stderr
    assert "403" in refused.stderr


def test_a_dry_run_sends_nothing_that_changes(arm, azpool):
    arm.scale_set("crew", 3, power="deallocated")
    ended = azpool("start", "workers/crew", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert "start 3 instances; nothing is sent" in ended.stdout
    assert "crew_0-2" in ended.stdout
    assert {one.method for one in arm.requests} == {"GET"}
    refused = azpool("delete", "workers/crew")
    assert refused.returncode == 2
    assert "give --yes" in refused.stderr
    assert {one.method for one in arm.requests} == {"GET"}


@pytest.mark.parametrize("serial", [(), ("--serial",)])
def test_a_function_is_called_for_each_and_equal_answers_are_folded(arm, azpool, serial):
    arm.scale_set("crew", 4, zones=("1", "2"))
    (azpool.folder / "checks.py").write_text(
        "def where(one):\n"
        "    if one.instance_id == '3':\n"
        "        raise ValueError('no luck')\n"
        "    return 'zone ' + one.zone\n",
        encoding="utf-8",
    )
    ended = azpool("map", "workers/crew", "checks.py:where", *serial)
    assert ended.returncode == 1
    assert ended.stdout == "── 2 instances: crew_0, crew_2\nzone 1\n── crew_1\nzone 2\n"
    assert ended.stderr == "1 failed: ValueError: no luck [crew_3]\n"


def test_wait_ends_when_all_are_as_wanted_or_the_time_is_over(arm, azpool):
    arm.scale_set("crew", 3)
    assert azpool("wait", "workers/crew", "power=running").returncode == 0
    ended = azpool("wait", "workers/crew", "power=off", "--timeout", "0.5")
    assert ended.returncode == 1
    assert "waited for 0 of 3 instances of workers/crew (power=off)" in ended.stderr
    assert "3  still running after 0.5 s" in ended.stderr


def test_one_sign_in_serves_a_command(arm, azpool, tokens):
    arm.scale_set("crew", 250)
    before = len(tokens.requests)
    assert azpool("ips", "workers/crew", "--json").returncode == 0
    assert len(tokens.requests) - before <= 2  # azure-identity probes the endpoint first


# -- signals and terminals ------------------------------------------------------------------------


# The command, with answers waited for longer after Ctrl-C than any test takes.
PATIENT = f"""
import sys
from azpool.cli import main
from azpool.fleet import _running
_running.GRACE_SECONDS = {10 * SECONDS}
sys.exit(main(["fleet", *sys.argv[1:]]))
"""


class OnTerminal:
    """A command on a terminal of 80 by 24, and all that it has drawn."""

    def __init__(self, azpool, *arguments, command=COMMAND):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self._size(slave)
        # The terminal's own: what Ctrl-C is pressed on sends the signal, to the nodes as well.
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        take += "; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        self.child = subprocess.Popen(
            [sys.executable, "-c", take, *command[1:], *arguments],
            cwd=azpool.folder, env=azpool.environment,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.drawn = ""
        # Reads end within characters, and at ^C the terminal drops what nobody has read yet.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @staticmethod
    def _size(slave):
        import fcntl
        import struct
        import termios

        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read_until(self, text):
        """Read until `text` was drawn; None: until the command has ended."""
        ends = time.monotonic() + SECONDS
        while text is None or text not in self.drawn:
            assert time.monotonic() < ends, self.drawn
            select.select([self.master], [], [], 0.2)
            try:
                piece = os.read(self.master, 65536)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # what a terminal says whose last process has ended
                    raise
                break
            if not piece:
                break
            self.drawn += self._decoder.decode(piece)
        assert text is None or text in self.drawn, self.drawn

    def press_ctrl_c(self):
        self.drawn = ""
        os.write(self.master, b"\x03")
        self._decoder.reset()

    def end(self):
        self.read_until(None)
        code = self.child.wait(SECONDS)
        os.close(self.master)
        return code


def test_a_terminal_shows_a_row_an_instance_and_ctrl_c_leaves_it_as_it_was(arm, azpool):
    arm.scale_set("crew", 3)
    shown = OnTerminal(azpool, "wait", "workers/crew", "power=deallocated")
    shown.read_until("is running")
    shown.child.send_signal(signal.SIGINT)
    assert shown.end() == 130
    assert "waiting for 3 instances of " in shown.drawn
    for number in range(3):
        assert f"crew_{number}" in shown.drawn
    # What stood there is taken away, the cursor is back, and one line says what was done.
    assert shown.drawn.rindex("\x1b[?25h") > shown.drawn.rindex("\x1b[?25l")
    assert "interrupted: 0 of 3 instances ended" in shown.drawn.splitlines()[-1]


def test_a_terminal_asks_before_what_can_t_be_undone(arm, azpool):
    arm.scale_set("crew", 3)
    asked = OnTerminal(azpool, "delete", "workers/crew")
    asked.read_until("[y/N]")
    assert "Delete 3 instances of workers/crew?" in asked.drawn
    assert "crew_0-2" in asked.drawn
    os.write(asked.master, b"n\n")
    assert asked.end() == 0
    assert "nothing was done" in asked.drawn
    assert {one.method for one in arm.requests} == {"GET"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_in_a_pipe(arm, azpool, number, code):
    arm.scale_set("crew", 2)
    with subprocess.Popen(
        [*COMMAND, "wait", "workers/crew", "power=off", "--json"], cwd=azpool.folder,
        env=azpool.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        events = []
        for line in child.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "progress" and number is not None:
                child.send_signal(number)
                number = None
        said = child.stderr.read()
        assert child.wait(SECONDS) == code
    assert said == "azpool: interrupted: 0 of 2 instances ended\n"
    assert [events[0]["event"], events[-1]["event"]] == ["start", "error"]


# -- what changes machines ------------------------------------------------------------------------


def powers(azpool, name="workers/crew"):
    told = azpool("status", name, "--json").stdout.splitlines()
    return [json.loads(line)["power"] for line in told]


def test_an_operation_is_done_and_leaves_no_journal(arm, azpool):
    arm.scale_set("crew", 3, power="deallocated")
    ended = azpool("start", "workers/crew")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("✓ started 3 instances of workers/crew in ")
    assert powers(azpool) == ["running"] * 3
    assert os.listdir(azpool.folder / "state" / "fleets") == []
    assert azpool("delete", "workers/crew", "--where", "name=crew_1", "--yes").returncode == 0
    assert len(powers(azpool)) == 2


def test_what_fails_is_told_by_reason_and_the_others_are_done(arm, azpool):
    arm.scale_set("crew", 6, uniform=False, power="deallocated")
    arm.faults.refuse("POST", "*/start", 409, "OperationNotAllowed", times=2)
    ended = azpool("start", "workers/crew", "--report", "r.json")
    assert ended.returncode == 1, ended.stderr
    assert "started 4 of 6 instances of workers/crew" in ended.stderr
    assert "OperationNotAllowed" in ended.stderr
    assert sorted(powers(azpool)) == ["deallocated"] * 2 + ["running"] * 4
    report = json.loads((azpool.folder / "r.json").read_text(encoding="utf-8"))
    assert sorted(one["state"] for one in report["outcomes"]) == ["failed"] * 2 + ["ok"] * 4


def test_a_script_s_outputs_are_folded_and_a_failing_one_is_code_1(arm, azpool):
    def scripts(machine, source, parameters):
        if machine.instance_id == "2":
            return Script(exit_code=3, stderr="no disk\n")
        return Script(0, stdout=f"ran {source}\n")

    arm.scale_set("crew", 4)
    arm.run_commands.scripts = scripts
    ended = azpool("run", "workers/crew", "-c", "uptime")
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == (
        "── 3 instances: crew_0-1, crew_3 · exit code 0\nran uptime\n"
        "── crew_2 · exit code 3\nno disk\n"
    )
    assert "ran the script on 3 of 4 instances" in ended.stderr


LONG = "".join(f"line {number}\n" for number in range(2000))


def test_whole_outputs_come_back_from_a_container(arm, azpool, kept):
    url, sas = kept
    arm.scale_set("crew", 3)
    arm.run_commands.scripts = lambda *_: Script(0, stdout=LONG)
    end = azpool("run", "workers/crew", "-c", "x")
    assert "cut: the service keeps the end of it" in end.stdout
    assert LONG not in end.stdout
    arguments = ["run", "workers/crew", "-c", "x", "--output-container", f"{url}/to day"]
    ended = azpool(*arguments, "--report", "r.json", AZURE_STORAGE_SAS_TOKEN=sas)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"── all 3 · exit code 0\n{LONG}"
    text = (azpool.folder / "r.json").read_text(encoding="utf-8")
    outcomes = json.loads(text)["outcomes"]
    assert [(one["stdout"], one["truncated"]) for one in outcomes] == [(LONG, False)] * 3
    lines = azpool(*arguments, "--json", AZURE_STORAGE_SAS_TOKEN=sas).stdout
    events = [json.loads(line) for line in lines.splitlines()]
    assert [one["stdout"] for one in events if one["event"] == "instance"] == [LONG] * 3
    assert "sig=" not in ended.stderr + text + lines


class Held:
    """A rule that holds answers until it is let go: to what starts a machine, or to polls."""

    def __init__(self, method="POST"):
        self.method = method
        self.came, self.let_go = threading.Event(), threading.Event()

    def applies(self, request):
        if request.method == self.method:
            self.came.set()
            self.let_go.wait(10 * SECONDS)  # longer than a test waits for anything
        return False


def read_until(child, is_meant):
    """Read a command's events up to the first one that is meant."""
    for line in child.stdout:
        if is_meant(json.loads(line)):
            return
    raise AssertionError(child.stderr.read())


def interrupted(arm, azpool, times):
    """Start 6 machines, two at a time, and send Ctrl-C once both are under way.

    A second one comes while the answer to a poll is held, which the first one has it wait for.
    """
    arm.scale_set("crew", 6, uniform=False, power="deallocated")
    arm.seconds["start"] = 60 * 60
    held, command = Held("GET"), COMMAND if times == 1 else [sys.executable, "-c", PATIENT]
    try:
        with subprocess.Popen(
            [*command, "start", "workers/crew", "--batch", "2", "--json"], cwd=azpool.folder,
            env=azpool.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            read_until(child, lambda event: event.get("phases", {}).get("under_way") == 2)
            if times == 2:
                arm.faults.rules.append(held)
                assert held.came.wait(SECONDS)
            began = time.monotonic()
            child.send_signal(signal.SIGINT)
            if times == 2:
                read_until(child, lambda event: event.get("stopping") == "interrupted")
                child.send_signal(signal.SIGINT)
            child.stdout.read()
            said = child.stderr.read()
            return child.wait(SECONDS), said, time.monotonic() - began
    finally:
        held.let_go.set()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_tells_what_is_under_way_and_resume_goes_on(arm, azpool, times):
    code, said, seconds = interrupted(arm, azpool, times)
    assert code == 130
    assert seconds < 30  # and not the 60 s that a start takes
    assert said.startswith(
        "azpool: interrupted: started 0 of 6 instances, 2 may be under way (crew_"
    )
    assert "), 4 not done; azpool fleet resume " in said
    posts = sum(one.method == "POST" for one in arm.requests)
    assert posts == 2
    arm.seconds["start"] = 30
    arm.advance(60 * 60)
    ended = azpool("resume", said.split("azpool fleet resume ")[1].split()[0])
    assert ended.returncode == 0, ended.stderr
    assert powers(azpool) == ["running"] * 6
    assert sum(one.method == "POST" for one in arm.requests) == 6  # none a second time


def test_a_terminal_shows_an_operation_and_then_its_summary(arm, azpool):
    arm.scale_set("crew", 40, uniform=False, power="deallocated")
    arm.seconds["start"] = 180
    shown = OnTerminal(azpool, "start", "workers/crew")
    assert shown.end() == 0
    assert "starting 40 instances of " in shown.drawn
    assert "under way" in shown.drawn
    assert "■" in shown.drawn or "▪" in shown.drawn
    assert "started 40 instances of workers/crew in" in shown.drawn


def starting(arm, azpool, *arguments):
    """Start 6 machines on a terminal, two at a time, until both are under way."""
    arm.scale_set("crew", 6, uniform=False, power="deallocated")
    arm.seconds["start"] = 60 * 60
    shown = OnTerminal(azpool, "start", "workers/crew", "--batch", "2", *arguments)
    shown.read_until("2 under way")
    return shown


def test_ctrl_c_on_a_terminal_tells_what_is_under_way_and_how_to_go_on(arm, azpool):
    shown = starting(arm, azpool)
    shown.press_ctrl_c()
    assert shown.end() == 130
    assert shown.drawn.rindex("\x1b[?25h") > shown.drawn.rfind("\x1b[?25l")
    last = shown.drawn.splitlines()[-1]
    assert "interrupted: started 0 of 6 instances, 2 may be under way (crew_" in last
    assert "), 4 not done; azpool fleet resume " in last
    assert "Traceback" not in shown.drawn
    assert sum(one.method == "POST" for one in arm.requests) == 2


def test_a_second_ctrl_c_on_a_terminal_waits_for_no_answer(arm, azpool):
    arm.scale_set("crew", 6, uniform=False, power="deallocated")
    held = Held()
    arm.faults.rules.append(held)
    try:
        command = [sys.executable, "-c", PATIENT]
        shown = OnTerminal(azpool, "start", "workers/crew", "--batch", "2", command=command)
        shown.read_until("2 sending")
        assert held.came.wait(SECONDS)
        shown.press_ctrl_c()
        shown.read_until("Ctrl-C again ends at once")
        shown.press_ctrl_c()
        assert shown.end() == 130  # while the answers are held
    finally:
        held.let_go.set()
    assert shown.drawn.rindex("\x1b[?25h") > shown.drawn.rfind("\x1b[?25l")
    last = shown.drawn.splitlines()[-1]
    assert "interrupted: started 0 of 6 instances, 2 may be under way (crew_" in last
    assert "), 4 not done; azpool fleet resume " in last
    assert "Traceback" not in shown.drawn


# -- throttling -----------------------------------------------------------------------------------


def throttle(arm):
    arm.scale_set("crew", 6, uniform=False, power="deallocated")
    arm.faults.refuse("POST", "*/start", 429, "TooManyRequests", retry_after="10", times=2)


def test_a_terminal_tells_that_it_is_throttled_and_when_it_goes_on(arm, azpool):
    throttle(arm)
    shown = OnTerminal(azpool, "start", "workers/crew")
    shown.read_until("waiting for budget (")
    assert shown.end() == 0
    assert re.search(r"waiting for budget \([^)]+\): goes on in 0:(0[1-9]|1[0-3])", shown.drawn)
    assert "2 throttled" in shown.drawn
    assert "started 6 instances of workers/crew" in shown.drawn


def test_programs_are_told_of_429s(arm, azpool):
    throttle(arm)
    ended = azpool("start", "workers/crew", "--json")
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    moments = [one for one in events if one["event"] == "progress"]
    held = [one for one in moments if one["budget_seconds"] > 0]
    assert held
    assert all(one["budget"] and one["throttled"] >= 1 for one in held)
    assert {phase for one in held for phase in one["phases"]} >= {"budget"}
    told = [one for one in events if one["event"] == "instance"]
    assert sorted(one["attempts"] for one in told) == [1, 1, 1, 1, 2, 2]
    assert all(one["budget_seconds"] >= 1 for one in told if one["attempts"] == 2)
    assert events[-1]["throttled"] == 2


# -- readers that have enough ---------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("status",), ("ips",), ("run", "-c", "x"), ("start",)])
def test_a_reader_that_has_enough_ends_a_command_quietly(arm, azpool, arguments):
    arm.scale_set("crew", 400, power="running")
    with subprocess.Popen(
        [*COMMAND, arguments[0], "workers/crew", *arguments[1:], "--json"], cwd=azpool.folder,
        env=azpool.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout.read(1)
        child.stdout.close()
        said = child.stderr.read()
        assert (child.wait(SECONDS), said) == (141, b"")
