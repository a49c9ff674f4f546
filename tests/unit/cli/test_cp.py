from __future__ import annotations

import json

import pytest

from azpool.errors import (
    AccessDenied,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    UsageError,
)

URL = "https://acme.blob.core.windows.net"


def refused(name: str) -> AccessDenied:
    return AccessDenied(
        f"cannot upload {name!r}: key rejected (403); check AZURE_STORAGE_KEY",
        path=name,
        status=403,
        request_id="1234-abcd",
    )


def test_files_go_up_and_the_summary_says_what_was_done(azpool, storage) -> None:
    ended = azpool("cp", "a.nc", "b.nc", "az://demo/in/")
    assert ended.code == 0
    assert ended.out == ""
    assert ended.err.startswith("uploaded 2 files (8.0 KiB) in ")
    (call,) = storage.one.calls
    assert call[:3] == ("upload_many", ["a.nc", "b.nc"], "in/")
    assert call[3]["overwrite"] is True
    assert call[3]["pool"] is None
    assert storage.asked[0][0] == "az://demo"


def test_one_source_by_itself_may_be_renamed(azpool, storage) -> None:
    assert azpool("cp", "a.nc", "az://demo/x").code == 0
    assert storage.one.calls[0][:3] == ("upload_many", "a.nc", "x")


@pytest.mark.parametrize("dest", ["az://demo", "az://demo/"])
def test_the_container_itself_is_an_empty_destination(azpool, storage, dest: str) -> None:
    assert azpool("cp", "a.nc", dest).code == 0
    assert storage.one.calls[0][2] == ""


@pytest.mark.parametrize(
    ("address", "source", "url"),
    [
        ("az://demo", "", "az://demo"),
        ("az://demo/", "/", "az://demo"),
        ("az://demo/a/", "a/", "az://demo"),
        (f"{URL}/demo/a%20b.nc", "a b.nc", f"{URL}/demo"),
        (f"{URL}/demo/a.nc?sv=1&sig=abc", "a.nc", f"{URL}/demo?sv=1&sig=abc"),
    ],
)
def test_blobs_come_down(azpool, storage, address: str, source: str, url: str) -> None:
    assert azpool("cp", address, "out").code == 0
    assert storage.one.calls[0][:3] == ("download_many", source, "out")
    assert storage.asked[0][0] == url


def test_options_reach_the_engine(azpool, storage) -> None:
    assert azpool("cp", "--no-overwrite", "--nodes", "4", "a", "az://demo").code == 0
    options = storage.one.calls[0][3]
    assert options["overwrite"] is False
    assert options["pool"] == "pool of 4"


def test_some_failures_are_told_by_reason_and_the_rest_is_done(azpool, storage) -> None:
    names = [f"{n}.nc" for n in range(9)]
    storage.one.failures = {name: refused(name) for name in names[:5]}
    ended = azpool("cp", *names, "az://demo")
    assert ended.code == 1
    lines = ended.err.splitlines()
    reason = "key rejected (403); check AZURE_STORAGE_KEY"
    assert lines[0].startswith("uploaded 4 of 9 files (16.0 KiB) in ")
    assert lines[0].endswith(", 5 failed")
    assert lines[1:] == [
        f"  5 failed: {reason} [0.nc, 1.nc, 2.nc and 2 more]",
        "    request id 1234-abcd",
    ]


def test_one_file_that_fails_is_one_message(azpool, storage) -> None:
    storage.one.failures = {
        "a": LocalFileError("cannot upload 'a': no such file; check it", path="a", code="ENOENT")
    }
    ended = azpool("cp", "a", "az://demo")
    assert ended.err == "azpool: cannot upload 'a': no such file; check it\n"


def test_only_refusals_are_code_4(azpool, storage) -> None:
    storage.one.failures = {"a": refused("a"), "b": refused("b")}
    assert azpool("cp", "a", "b", "az://demo").code == 4


def test_only_missing_sources_are_code_3(azpool, storage) -> None:
    storage.one.failures = {
        "a": LocalFileError("cannot upload 'a': no such file; check", path="a", code="ENOENT")
    }
    assert azpool("cp", "a", "az://demo").code == 3
    assert azpool("cp", "a", "b", "az://demo").code == 1


def test_an_empty_folder_matches_nothing(azpool, storage, monkeypatch) -> None:
    empty = type(storage.one)._move
    monkeypatch.setattr(storage.one, "upload_many", lambda *_, **o: empty(storage.one, [], **o))
    ended = azpool("cp", "folder", "az://demo")
    assert ended.code == 3
    assert ended.err == (
        "azpool: cannot upload 'folder': nothing there to upload; check the name\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessDenied("cannot list 'demo': key rejected (403); check it"), 4),
        (ConnectionFailed("cannot reach 127.0.0.1:1: nothing listens there; is it up?"), 1),
        (NotFound("cannot list 'demo': no such container (404); make it"), 1),
        (UsageError("cannot move 'a' and 'b': both would become 'c'; move them apart"), 2),
    ],
)
def test_what_stops_everything_is_one_message(azpool, storage, error, code: int) -> None:
    storage.one.raises = error
    ended = azpool("cp", "a", "az://demo")
    assert ended.code == code
    assert ended.err == f"azpool: {error}\n"


def test_a_bug_is_one_message_too(azpool, storage) -> None:
    storage.one.raises = ZeroDivisionError("division by zero")
    ended = azpool("cp", "a", "az://demo")
    assert ended.code == 1
    assert ended.err == (
        "azpool: cannot go on: ZeroDivisionError: division by zero; this is a bug in azpool: "
        "--debug shows where\n"
    )


def test_debug_shows_the_traceback(storage, capsys) -> None:
    from azpool.cli._app import main

    storage.one.raises = ZeroDivisionError("division by zero")
    assert main(["cp", "--debug", "a", "az://demo"], storage=storage) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "b"), "cannot copy 'a' to 'b': both are local paths; one side is az://"),
        (("s3://x/a", "b"), "'s3://x/a' is not an address that azpool knows"),
        (("az://abc/a", "az://demo"), "both are addresses; copy it to a local folder first"),
        (("a", "az://abc/b", "out"), "cannot copy 'a' to 'out': both are local"),
        (("az://abc/a", "az://abd/b", "out"), "they are in different containers"),
        (("a", "az://"), "cannot copy to 'az://': no container in it; add its name"),
        (("a", "az://Not_A_Name"), "'Not_A_Name' is no container's name"),
        (("a", URL), f"cannot copy to '{URL}': no container in it"),
        (("--nodes", "0", "a", "az://demo"), "cannot make a pool of 0 nodes"),
        (("--nodes", "-3", "a", "az://demo"), "cannot make a pool of -3 nodes"),
        (("--nodes", "x", "a", "az://demo"), "cannot make a pool of 'x' nodes: not a whole number"),
        (("a",), "missing argument"),
        ((), "missing argument"),
        (("--zz", "a", "az://demo"), "no such option: --zz"),
        (("--progress", "soon", "a", "az://demo"), "'--progress'"),
        (("--sas", "s", "--anonymous", "a", "az://demo"), "--sas and --anonymous are different"),
    ],
)
def test_what_cannot_be_meant_is_one_message_and_code_2(
    azpool, storage, arguments: tuple[str, ...], message: str
) -> None:
    ended = azpool("cp", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.startswith("azpool: cannot ")
    assert ended.err.count("\n") == 1
    assert storage.one.calls == []


def test_a_sas_in_an_address_is_never_printed(azpool, storage) -> None:
    secret = "c2VjcmV0"
    for address in (f"{URL}/demo/x?sv=1&sig={secret}", f"{URL}?sv=1&sig={secret}"):
        for arguments in ((address, "out"), ("a", address), (address, f"{URL}/abc?sig=x")):
            ended = azpool("cp", *arguments)
            assert secret not in ended.err + ended.out


def test_secrets_of_options_are_in_no_message(azpool, storage) -> None:
    ended = azpool("cp", "--key", "a2V5a2V5", "--sas", "sig=c2Fz", "a", "az://demo")
    assert "a2V5a2V5" not in ended.err
    assert "c2Fz" not in ended.err
    assert azpool("cp", "--key", "a2V5a2V5", "a", "az://demo").code == 0
    auth = storage.asked[0][1]
    assert "a2V5" not in repr(auth)
    assert auth.arguments() == {"key": "a2V5a2V5"}


def test_ctrl_c_says_what_was_done_and_what_not(azpool, storage, monkeypatch) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    storage.one.during = interrupt
    storage.one.failures = {"b": refused("b")}
    try:
        ended = azpool("cp", "a", "b", "c", "d", "e", "az://demo")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        "azpool: interrupted: 2 of 5 files uploaded (8.0 KiB), 1 failed, 2 not done; "
        "--no-overwrite goes on from there"
    )


def test_events_are_one_json_object_a_line(azpool, storage) -> None:
    storage.one.failures = {"b": refused("b")}
    ended = azpool("cp", "--json", "a", "b", "az://demo")
    assert ended.code == 1
    assert ended.err == ""
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "file", "file", "end"]
    assert events[1]["name"] == "a"
    assert events[1]["state"] == "ok"
    assert events[2]["state"] == "failed"
    assert events[2]["status"] == 403
    assert events[2]["request_id"] == "1234-abcd"
    assert events[3]["ok"] == events[3]["failed"] == 1
    assert events[3]["reasons"][0]["names"] == ["b"]


@pytest.mark.parametrize("arguments", [("a", "b"), ("--zz",), ("a", "az://Not_A_Name")])
def test_an_error_is_an_event_as_well(azpool, arguments: tuple[str, ...]) -> None:
    ended = azpool("cp", "--json", *arguments)
    assert ended.code == 2
    (event,) = [json.loads(line) for line in ended.out.splitlines()]
    assert event["event"] == "error"
    assert event["exit_code"] == 2
    assert ended.err.startswith("azpool: cannot ")


def test_quiet_says_nothing_but_failures(azpool, storage) -> None:
    assert azpool("cp", "-q", "a", "az://demo").err == ""
    storage.one.failures = {"b": refused("b")}
    assert "1 failed" in azpool("cp", "-q", "a", "b", "az://demo").err


def test_verbose_names_each_file(azpool, storage) -> None:
    ended = azpool("cp", "-v", "a", "b", "az://demo")
    assert ended.err.splitlines()[:2] == [
        "uploaded a (4.0 KiB, 10 ms)",
        "uploaded b (4.0 KiB, 10 ms)",
    ]


def test_names_cannot_steer_the_terminal(azpool, storage) -> None:
    name = "\x1b]0;evil\x07"
    storage.one.failures = {name: refused(name)}
    ended = azpool("cp", "-v", name, "x", "az://demo")
    assert "\x1b" not in ended.err
    assert r"\x1b]0;evil\x07" in ended.err


def test_always_draws_even_without_a_terminal(azpool, storage, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    ended = azpool("cp", "--progress", "always", "a", "az://demo")
    assert ended.code == 0
    assert "✓ uploaded 1 file (4.0 KiB)" in ended.err
