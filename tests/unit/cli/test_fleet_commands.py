"""The commands of `azpool fleet`, on a fleet that is held in memory and answers as told."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from azpool.cli._app import main
from azpool.cli._exit import code_of_error
from azpool.cli._fleet_target import Target
from azpool.cli._fleet_wait import EVERY_SECONDS, wait_for
from azpool.errors import FleetError
from azpool.fleet.instance import Instance, InstanceKind, Power
from azpool.fleet.outcome import FleetReport, InstanceOutcome
from azpool.fleet.progress import FleetInterrupted, FleetProgress
from azpool.report import State

SUB = "00000000-0000-0000-0000-00000000a5a5"
CREW = f"{SUB}/workers/crew"


def instance(number: int, **facts: Any) -> Instance:
    home = f"/subscriptions/{SUB}/resourceGroups/workers/providers/Microsoft.Compute"
    name = f"crew_{number}"
    return Instance(
        resource_id=f"{home}/virtualMachineScaleSets/crew/virtualMachines/{number}",
        instance_id=str(number),
        name=name,
        kind=InstanceKind.UNIFORM,
        **{"power": Power.RUNNING, "zone": str(number % 3 + 1), **facts},
    )


@dataclass
class FakeFleet(Sequence[Instance]):
    """Instances in a list; `answer` says of each what becomes of it."""

    instances: list[Instance]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answer: Callable[[int, str], dict[str, Any]] = lambda index, name: {}
    raises: Callable[[FleetReport, str], BaseException] | None = None
    later: list[list[Instance]] = field(default_factory=list)
    read_back: Callable[[FleetReport], FleetReport] = lambda report: report

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, at: Any) -> Any:
        return (
            replace(self, instances=self.instances[at])
            if isinstance(at, slice)
            else self.instances[at]
        )

    def where(self, **wanted: Any) -> FakeFleet:
        predicate = wanted.pop("predicate", lambda one: True)
        kept = [
            one
            for one in self.instances
            if predicate(one)
            and all(str(getattr(one, key)) == value for key, value in wanted.items())
        ]
        return replace(self, instances=kept)

    def sync(self) -> FakeFleet:
        return replace(self, instances=self.later.pop(0)) if self.later else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def method(**how: Any) -> FleetReport:
            return self._do(name, how)

        return method

    def _do(self, name: str, how: dict[str, Any]) -> FleetReport:
        self.calls.append((name, how))
        outcomes = [
            InstanceOutcome(
                **{"index": index, "name": one.name, "operation": name, **self.answer(index, name)}
            )
            for index, one in enumerate(self.instances)
        ]
        half = len(outcomes) // 2
        how["progress"](
            FleetProgress(
                operation=name, total=len(outcomes), ended=tuple(outcomes[:half]), calls=3
            )
        )
        report = self.read_back(FleetReport(outcomes, title=name))
        if self.raises is not None:
            raise self.raises(report, how.get("journal") or "")
        return report


@dataclass
class FakeFleets:
    fleet: FakeFleet
    opened: list[tuple[Target, dict[str, Any]]] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)

    def open(self, target: Target, arm: dict[str, Any]) -> FakeFleet:
        self.opened.append((target, arm))
        return self.fleet

    def resume(self, path: str, **how: Any) -> FleetReport:
        self.resumed.append(path)
        return self.fleet._do("resume", how)


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def fleets() -> FakeFleets:
    return FakeFleets(FakeFleet([instance(number) for number in range(5)]))


@pytest.fixture
def azpool(
    fleets: FakeFleets,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Ended]:
    for name in (
        "NO_COLOR",
        "FORCE_COLOR",
        "AZPOOL_DEBUG",
        "COLUMNS",
        "AZURE_SUBSCRIPTION_ID",
        "AZPOOL_ARM_URL",
        "AZPOOL_ARM_CA_FILE",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, answer: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = main(["fleet", *arguments], storage=fleets)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(int(code), captured.out, captured.err)

    return run


def failing(*numbers: int, status: int = 409, state: State = State.FAILED) -> Any:
    def answer(index: int, name: str) -> dict[str, Any]:
        if index not in numbers:
            return {}
        error = FleetError(f"cannot {name} 'crew_{index}': it would not ({status})", status=status)
        return {"state": state, "status": status, "error": error}

    return answer


def test_all_well_is_one_line_and_code_0(azpool, fleets):
    ended = azpool("start", CREW)
    assert ended.code == 0
    assert ended.out == ""
    assert ended.err.startswith("✓ started 5 instances of workers/crew in ")
    target, arm = fleets.opened[0]
    assert (target.scale_set, arm) == ("crew", {})


def test_what_is_said_of_the_pace_reaches_the_fleet(azpool, fleets):
    azpool(
        "stop",
        CREW,
        "--no-deallocate",
        "--timeout",
        "15m",
        "--max-failures",
        "10%",
        "--batch",
        "20",
        "--no-wait",
        "--serial",
        "--base-url",
        "https://x",
        "--ca-file",
        "y",
    )
    ((name, how),) = fleets.fleet.calls
    del how["progress"]
    assert os.path.dirname(how.pop("journal")).endswith("/state/fleets")
    assert (name, how) == (
        "stop",
        {
            "deallocate": False,
            "wait": False,
            "timeout_seconds": 900.0,
            "max_failures": "10%",
            "batch": 20,
        },
    )
    assert fleets.opened[0][1] == {
        "base_url": "https://x",
        "ca_file": "y",
        "min_pool_size": 0,
        "max_pool_size": 0,
    }


def test_where_chooses_and_nothing_chosen_is_code_3(azpool, fleets):
    assert "started 2 instances" in azpool("start", CREW, "--where", "zone=1").err
    assert azpool("start", CREW, "--where", "kind=Uniform,name=crew_3").code == 0
    ended = azpool("start", CREW, "--where", "power=stopped")
    assert ended.code == 3
    assert "no machine is as --where says" in ended.err
    assert len(fleets.fleet.calls) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (failing(1), 1),
        (failing(1, state=State.UNKNOWN), 1),
        (failing(1, state=State.CANCELLED), 1),
        (failing(1, status=403), 1),
        (failing(0, 1, 2, 3, 4, status=403), 4),
        (failing(0, 1, 2, 3, 4, status=404), 3),
        (failing(0, 1, 2, 3, 4), 1),
        (failing(0, 1, 2, 3, 4, state=State.SKIPPED), 0),
    ],
)
def test_exit_codes_say_what_became(azpool, fleets, answer, code):
    fleets.fleet.answer = answer
    assert azpool("restart", CREW).code == code


@pytest.mark.parametrize("operation", ["delete", "reimage", "redeploy"])
def test_what_loses_data_wants_yes_where_nobody_can_be_asked(azpool, fleets, operation):
    ended = azpool(operation, CREW)
    assert ended.code == 2
    assert "give --yes" in ended.err
    assert fleets.fleet.calls == []
    assert azpool(operation, CREW, "--yes").code == 0
    assert fleets.fleet.calls[0][0] == operation


def test_a_script_comes_from_a_file_or_text_or_input_and_outputs_are_folded(azpool, fleets):
    fleets.fleet.answer = lambda index, name: {"exit_code": 0, "stdout": "up\n"}
    ended = azpool("run", CREW, "-c", "uptime", "--param", "a=b", "--script-timeout", "90")
    assert (ended.code, ended.out) == (0, "── all 5 · exit code 0\nup\n")
    Path("set-up.sh").write_text("echo hi\n", encoding="utf-8")
    azpool("run", CREW, "set-up.sh")
    azpool("run", CREW, "-", answer="echo in\n")
    sent = [how for _, how in fleets.fleet.calls]
    assert [how["script"] for how in sent] == ["uptime", "echo hi\n", "echo in\n"]
    assert sent[0]["parameters"] == {"a": "b"}
    assert sent[0]["timeout_seconds"] == 90
    assert sent[1]["timeout_seconds"] is None


def test_a_script_that_fails_somewhere_is_code_1_with_its_exit_code(azpool, fleets):
    def answer(index: int, name: str) -> dict[str, Any]:
        bad = {"state": State.FAILED, "exit_code": 7, "stderr": "no disk\n"}
        return bad if index == 2 else {"exit_code": 0, "stdout": "ok\n"}

    fleets.fleet.answer = answer
    ended = azpool("run", CREW, "-c", "df")
    assert ended.code == 1
    assert (
        "── 4 instances: crew_0-1, crew_3-4 · exit code 0\nok\n── crew_2 · exit code 7\nno disk"
        in ended.out
    )
    assert "1  exit code 7" in ended.err


def test_a_protected_parameter_is_read_from_the_environment_alone(azpool, fleets, monkeypatch):
    refused = azpool("run", CREW, "-c", "x", "--protected-param", "TOKEN=sesame")
    assert refused.code == 2
    assert "sesame" not in refused.err
    assert azpool("run", CREW, "-c", "x", "--protected-param", "TOKEN").code == 2
    monkeypatch.setenv("TOKEN", "sesame")
    ended = azpool("run", CREW, "-c", "x", "--protected-param", "TOKEN")
    assert ended.code == 0
    assert fleets.fleet.calls[0][1]["protected_parameters"] == {"TOKEN": "sesame"}
    assert "sesame" not in ended.out + ended.err


SAS = "sv=2024-11-04&sig=sesame"
KEYED = "AccountName=acme;AccountKey=c2VzYW1l"


def test_the_sas_of_the_environment_counts_beside_a_connection_string(azpool, fleets, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", KEYED)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    assert azpool("run", CREW, "-c", "x", "--output-container", "az://logs").code == 0
    ((_, how),) = fleets.fleet.calls
    assert how["output_container"] == f"https://acme.blob.core.windows.net/logs?{SAS}"


def test_whole_outputs_are_kept_by_the_sas_of_the_environment(azpool, fleets, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VzYW1l")  # is not what machines may have
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?" + SAS)
    whole = {"exit_code": 0, "value": {"stdout": "b.stdout", "stderr": "b.stderr"}}
    fleets.fleet.answer = lambda index, name: whole
    ended = azpool("run", CREW, "-c", "x", "--output-container", "az://logs/today's", "--json")
    assert ended.code == 0, ended.err
    ((_, how),) = fleets.fleet.calls
    assert how["output_container"] == f"https://acme.blob.core.windows.net/logs/today%27s?{SAS}"
    assert callable(how["read_output"])
    shown = azpool("run", CREW, "-c", "x", "--output-container", "az://logs")
    assert shown.out == "── all 5 · exit code 0\n"
    assert "sig=" not in ended.out + ended.err + shown.err


@pytest.mark.parametrize(
    ("address", "environment", "why"),
    [
        ("az://logs", {"AZURE_STORAGE_ACCOUNT": "acme"}, "set AZURE_STORAGE_SAS_TOKEN"),
        (
            "https://acme.blob.core.windows.net/logs",
            {"AZURE_STORAGE_KEY": "c2VzYW1l"},
            "set AZURE_STORAGE_SAS_TOKEN",
        ),
        ("az://logs", {"AZURE_STORAGE_SAS_TOKEN": SAS}, "cannot find the storage account"),
        ("az://logs", {"AZURE_STORAGE_CONNECTION_STRING": KEYED}, "set AZURE_STORAGE_SAS_TOKEN"),
        ("logs", {}, "not an address"),
        ("https://acme.blob.core.windows.net", {"AZURE_STORAGE_SAS_TOKEN": SAS}, "no container"),
    ],
)
def test_a_container_that_machines_cannot_write_to_is_code_2(
    azpool, fleets, monkeypatch, address, environment, why
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = azpool("run", CREW, "-c", "x", "--output-container", address)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert "sesame" not in ended.err
    assert fleets.opened == []


def test_events_wait_for_outputs_that_are_read_back_at_the_end(azpool, fleets, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    fleets.fleet.answer = lambda index, name: {"exit_code": 0, "stdout": "end", "truncated": True}

    def whole(report):
        return FleetReport(
            [replace(one, stdout="all of it, to the end", truncated=False) for one in report],
            title=report.title,
        )

    fleets.fleet.read_back = whole
    ended = azpool(
        "run", CREW, "-c", "x", "--json",
        "--output-container", "https://acme.blob.core.windows.net/logs",
    )  # fmt: skip
    events = [json.loads(line) for line in ended.out.splitlines()]
    told = [one for one in events if one["event"] == "instance"]
    assert [one["index"] for one in told] == [0, 1, 2, 3, 4]
    assert {one["stdout"] for one in told} == {"all of it, to the end"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("start",),
        ("run", CREW),
        ("run", "-", "-"),
        ("map", CREW),
        ("map", CREW, "nowhere.py:f"),
        ("wait", CREW, "power=asleep"),
        ("start", CREW, "--timeout", "soon"),
        ("start", CREW, "--max-failures", "110%"),
        ("start", CREW, "--batch", "0"),
        ("start", CREW, "--report", "x.txt"),
        ("resume", "ffff"),
        ("resize", CREW),
    ],
)
def test_arguments_that_can_t_be_meant_are_code_2(azpool, fleets, arguments):
    ended = azpool(*arguments)
    assert ended.code == 2, ended.err
    assert ended.err.startswith("azpool: cannot ")
    assert fleets.fleet.calls == []


def test_ctrl_c_tells_what_is_under_way_and_how_to_go_on(azpool, fleets):
    def stop(report: FleetReport, journal: str) -> BaseException:
        Path(journal).write_text("{}", encoding="utf-8")
        return FleetInterrupted(report, journal=journal)

    fleets.fleet.raises = stop
    states = (State.OK, State.UNKNOWN, State.CANCELLED, State.CANCELLED, State.OK)
    fleets.fleet.answer = lambda index, name: {"state": states[index]}
    ended = azpool("start", CREW)
    assert ended.code == 130
    head, _, hint = ended.err.strip().partition("; ")
    assert head == (
        "azpool: interrupted: started 2 of 5 instances, 1 may be under way (crew_1), 2 not done"
    )
    job = hint.split()[3]
    assert hint == f"azpool fleet resume {job} goes on from there"
    fleets.fleet.raises, fleets.fleet.answer = None, lambda index, name: {}
    assert azpool("resume", job[:3]).code == 0
    assert os.path.basename(fleets.resumed[0]) == f"{job}.fleet"


def test_a_second_ctrl_c_says_what_is_known(azpool, fleets):
    fleets.fleet.raises = lambda report, journal: KeyboardInterrupt()
    ended = azpool("start", CREW)
    assert ended.code == 130
    assert ended.err == "azpool: interrupted: 2 of 5 instances ended\n"


@pytest.mark.parametrize(
    "where",
    ["azpool.cli._fleet_views.JsonFleetView.stop", "azpool.cli._fleet_run.write_report"],
    ids=["while the view ends", "while the report is written"],
)
def test_ctrl_c_after_the_one_that_ended_it_takes_no_message_away(
    azpool, fleets, monkeypatch, where
):
    pressed = []

    def press(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        pressed.append(where)

    monkeypatch.setattr(where, press)
    fleets.fleet.raises = lambda report, journal: FleetInterrupted(report, journal="")
    fleets.fleet.answer = lambda index, name: {"state": State.CANCELLED if index else State.OK}
    ended = azpool("start", CREW, "--json", "--report", "r.json")
    assert ended.code == 130
    assert ended.err == "azpool: interrupted: started 1 of 5 instances, 4 not done\n"
    assert json.loads(ended.out.splitlines()[-2])["event"] == "end"
    assert pressed == [where]


@pytest.mark.parametrize(
    ("where", "bad"),
    [
        ("azpool.cli._fleet_given.write_outputs", 0),
        ("azpool.cli._fleet_views.PlainFleetView.finish", 0),
        ("azpool.cli._fleet_run.write_report", 0),
        ("azpool.cli._fleet_run.write_report", 1),
    ],
    ids=["outputs", "summary", "report", "report of what failed"],
)
def test_ctrl_c_after_the_work_has_ended_says_what_was_done(
    azpool, fleets, monkeypatch, where, bad
):
    pressed = []

    def press(*_: Any) -> None:
        pressed.append(where)
        if len(pressed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(where, press)
    fleets.fleet.answer = lambda index, name: {
        "state": State.FAILED if index < bad else State.OK, "exit_code": 0, "stdout": "up\n"
    }  # fmt: skip
    ended = azpool("run", CREW, "-c", "uptime", "--report", "r.json")
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        f"azpool: interrupted: ran the script on {5 - bad} of 5 instances"
        + ", 1 failed" * bool(bad)
    )
    assert "before anything" not in ended.err
    if where.endswith("write_report"):
        assert len(pressed) == 2  # it is written all the same
    else:
        assert len(json.loads(Path("r.json").read_text(encoding="utf-8"))["outcomes"]) == 5


def test_ctrl_c_after_the_work_has_ended_repeats_no_event(azpool, fleets, monkeypatch):
    pressed = []

    def press(*_: Any) -> None:
        pressed.append(True)
        if len(pressed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("azpool.cli._fleet_run.write_report", press)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acme")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    ended = azpool(
        "run", CREW, "-c", "x", "--output-container", "az://logs", "--json", "--report", "r.json"
    )
    assert len(pressed) == 2
    assert ended.code == 130
    events = [json.loads(line)["event"] for line in ended.out.splitlines()]
    assert [one for one in events if one != "progress"] == [
        "start", *["instance"] * 5, "end", "error"
    ]  # fmt: skip


def test_ctrl_c_that_comes_in_the_place_of_the_engine_s_own_end_loses_no_report(azpool, fleets):
    def cut(report: FleetReport, journal: str) -> BaseException:
        again = KeyboardInterrupt()
        again.__context__ = FleetInterrupted(report, journal="")
        return again

    fleets.fleet.raises = cut
    fleets.fleet.answer = lambda index, name: {"state": State.CANCELLED if index else State.OK}
    ended = azpool("start", CREW)
    assert ended.err == "azpool: interrupted: started 1 of 5 instances, 4 not done\n"


def test_json_is_an_event_a_line_and_nothing_else(azpool, fleets):
    fleets.fleet.answer = failing(3)
    ended = azpool("start", CREW, "--json", "--report", "r.json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    events = [one for one in events if one["event"] != "progress"]  # what takes a second has them
    assert [one["event"] for one in events] == ["start", *["instance"] * 5, "end"]
    assert sorted(one["index"] for one in events[1:-1]) == [0, 1, 2, 3, 4]
    assert events[-1]["counts"] == {"ok": 4, "failed": 1}
    assert ended.err == ""
    assert len(json.loads(Path("r.json").read_text(encoding="utf-8"))["outcomes"]) == 5


def test_status_is_a_table_and_tells_what_can_t_be_read(azpool, fleets):
    fleets.fleet.instances[4] = instance(4, power=Power.UNKNOWN, unread="it is gone")
    ended = azpool("status", CREW)
    assert ended.out.splitlines()[0].split() == ["crew_0", "running", "1", "-", "-"]
    assert "it is gone" in ended.out
    assert ended.err == "5 instances: 4 running, 1 unknown\n"
    assert ended.code == 1


def test_errors_of_the_service_have_the_codes_of_part_1() -> None:
    codes = {
        status: int(code_of_error(FleetError("x", status=status)))
        for status in (401, 403, 404, 409)
    }
    assert codes == {401: 4, 403: 4, 404: 3, 409: 1}


# -- wait -----------------------------------------------------------------------------------------


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def waited(
    fleet: FakeFleet, timeout: float | None
) -> tuple[FleetReport, Time, list[FleetProgress]]:
    time, told = Time(), []
    report = wait_for(
        fleet, {"power": "running"}, timeout, told.append, clock=lambda: time.now, sleep=time.sleep
    )
    return report, time, told


def test_waiting_looks_until_all_are_as_wanted() -> None:
    off = [instance(n, power=Power.STARTING) for n in range(2)]
    one_on = [instance(0), off[1]]
    report, time, told = waited(FakeFleet(off, later=[one_on, [instance(0), instance(1)]]), None)
    assert [outcome.state for outcome in report] == [State.OK, State.OK]
    assert time.slept == [EVERY_SECONDS, EVERY_SECONDS]
    assert [len(one.ended) for one in told] == [0, 1, 1]


def test_waiting_ends_with_its_time_and_with_what_is_gone() -> None:
    fleet = FakeFleet(
        [instance(0, power=Power.STOPPED), instance(1, power=Power.UNKNOWN, unread="gone")]
    )
    report, time, _ = waited(fleet, 7.0)
    assert [outcome.state for outcome in report] == [State.FAILED, State.UNKNOWN]
    assert time.slept == [5.0, 2.0]
    assert "still stopped after 7 s" in str(report[0].error)


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "usage", "without"),
    [
        ("status", "[TARGET]...", {"--timeout", "--report", "--progress", "--batch"}),
        ("ips", "[TARGET]...", {"--timeout", "--progress", "--dry-run"}),
        ("map", "[TARGET]... FILE.py:FUNCTION", {"--progress", "--no-wait"}),
        ("wait", "[TARGET]... CONDITION", {"--max-failures", "--yes"}),
        ("run", "[TARGET]... [SCRIPT]", set()),
        ("deployed", "[TARGET]... COMMAND", set()),
    ],
)
def test_help_says_what_comes_last_and_offers_only_what_is_heeded(azpool, command, usage, without):
    said = azpool(command, "--help").out
    assert f"azpool fleet {command} [OPTIONS] {usage}\n" in said
    assert {option for option in without if option in said} == set()
