from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from azpool.errors import (
    AccessDenied,
    ConnectionFailed,
    LocalFileError,
    NotFound,
    UsageError,
)
from azpool.storage._dry_run import PlannedFile
from azpool.storage.jobs import JobInfo, JobState
from azpool.storage.outcome import Progress

URL = "https://acme.blob.core.windows.net"


def a_job(**facts: Any) -> JobInfo:
    return JobInfo(**{"id": "3f2a91bc", "path": "/j", "state": JobState.FAILED} | facts)


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
    assert call[3].pop("progress") is not None
    assert call[3] == {"overwrite": "always", "pool": None, "journal": None}
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


def options_of(storage, azpool, *arguments: str) -> dict[str, Any]:
    ended = azpool("cp", *arguments)
    assert ended.code == 0, ended.err
    options = dict(storage.one.calls[-1][3])
    for name in ("progress", "pool", "journal"):
        options.pop(name)
    return options


def test_options_reach_the_engine(azpool, storage) -> None:
    given = [
        "--overwrite", "if-newer", "--verify", "MD5", "--max-failures", "7", "--encode-names",
        "--max-concurrency", "64", "--cap-rate", "50MiB", "--cap-requests", "12.5",
        "--metadata", "who=me", "--metadata", "why=a=b", "--tag", "run=7", "--tier", "cool",
        "--content-type", "text/x", "--cache-control", "max-age=1", "--content-encoding", "gzip",
        "--content-language", "de", "--content-disposition", "attachment",
    ]  # fmt: skip
    assert options_of(storage, azpool, *given, "a", "az://demo") == {
        "overwrite": "if-newer",
        "verify": "md5",
        "max_failures": 7,
        "encode_names": True,
        "max_concurrency": 64,
        "max_bytes_per_second": 50 * 1024**2,
        "max_requests_per_second": 12.5,
        "metadata": {"who": "me", "why": "a=b"},
        "tags": {"run": "7"},
        "tier": "Cool",
        "content_type": "text/x",
        "cache_control": "max-age=1",
        "content_encoding": "gzip",
        "content_language": "de",
        "content_disposition": "attachment",
    }
    down = options_of(storage, azpool, "--preserve-times", "az://demo/x", "out")
    assert down == {"overwrite": "always", "preserve_times": True}
    assert azpool("cp", "--nodes", "4", "a", "az://demo").code == 0
    assert storage.one.calls[-1][3]["pool"] == "pool of 4"


def test_every_option_of_a_transfer_has_one_of_the_command() -> None:
    from azpool.cli._how import MODES, TIERS
    from azpool.storage.options import Overwrite
    from azpool.storage.store import TIERS as STORED

    assert tuple(mode.value for mode in Overwrite) == MODES
    assert TIERS == STORED


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((), "always"),
        (("--overwrite", "never"), "never"),
        (("--overwrite=IF-DIFFERENT",), "if-different"),
        (("--no-overwrite",), "never"),
        (("--no-overwrite", "--overwrite", "never"), "never"),
        (("--overwrite", "--verify", "md5"), "always"),
    ],
)
def test_what_becomes_of_what_is_there(azpool, storage, arguments, mode: str) -> None:
    assert options_of(storage, azpool, *arguments, "a", "az://demo")["overwrite"] == mode


def test_overwrite_alone_may_stand_at_the_end(azpool, storage) -> None:
    assert options_of(storage, azpool, "a", "az://demo", "--overwrite")["overwrite"] == "always"


@pytest.mark.parametrize("sources", [("a",), ()])
def test_a_mode_that_is_misspelt_overwrites_nothing(azpool, storage, sources) -> None:
    ended = azpool("cp", "--overwrite", "nevr", *sources, "az://demo")
    assert ended.code == 2
    assert ended.err == (
        "azpool: cannot use --overwrite='nevr': give one of always, never, if-newer, "
        "if-different, fail\n"
    )
    assert storage.one.calls == []


# -- journals: kept where a resume is worth it -----------------------------------------------------


def journal_of(storage) -> object:
    return storage.one.calls[-1][3]["journal"]


def test_a_few_small_files_by_name_have_no_journal(azpool, storage, tmp_path) -> None:
    small = tmp_path / "a"
    small.write_bytes(b"x")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(65 * 1024**2)
    assert azpool("cp", str(small), "nope", "az://demo").code == 0
    assert journal_of(storage) is None
    for sources in ([str(big)], [str(tmp_path)], [f"{tmp_path}/*"], ["n"] * 21):
        assert azpool("cp", *sources, "az://demo").code == 0
        assert journal_of(storage) is True
    assert azpool("cp", "az://demo/x", "out").code == 0
    assert journal_of(storage) is True
    assert azpool("cp", "--no-journal", "az://demo/x/", "out").code == 0
    assert journal_of(storage) is None


def test_a_home_that_can_not_be_written_stops_no_copy(azpool, storage) -> None:
    storage.fault = "the folder '/h' of journals can't be written"
    ended = azpool("cp", "az://demo/x/", "out")
    assert ended.code == 0
    assert journal_of(storage) is None
    assert ended.err.startswith("this transfer could not be resumed: the folder '/h' of journals")


def many(count: int) -> list[str]:
    return [f"az://demo/{n}.nc" for n in range(count)]


def test_failures_of_many_files_can_be_tried_again(azpool, storage) -> None:
    storage.one.failures = {"3.nc": refused("3.nc"), "7.nc": refused("7.nc")}
    ended = azpool("cp", *many(30), "out")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "  azpool jobs resume 3f2a91bc tries the 2 again"
    assert "is kept in" not in ended.err
    assert storage.kept.removed == []
    events = [json.loads(one) for one in azpool("cp", "--json", *many(30), "o").out.splitlines()]
    assert events[-1]["job"] == "3f2a91bc"


def test_failures_of_a_handful_leave_no_job(azpool, storage) -> None:
    storage.kept.infos = [a_job()]
    storage.one.failures = {"3.nc": refused("3.nc")}
    ended = azpool("cp", *many(5), "out")
    assert ended.code == 1
    assert "jobs resume" not in ended.err
    assert storage.kept.removed == ["3f2a91bc"]


def test_big_files_are_worth_a_job_however_few(azpool, storage) -> None:
    storage.one.size_bytes = 2**30
    storage.one.failures = {"1.nc": refused("1.nc")}
    assert "azpool jobs resume 3f2a91bc" in azpool("cp", *many(2), "out").err


def test_all_done_leaves_no_word_of_a_job(azpool, storage) -> None:
    ended = azpool("cp", *many(30), "out")
    assert ended.code == 0
    assert "job" not in ended.err
    assert storage.kept.removed == []


# -- dry runs and reports --------------------------------------------------------------------------


def a_plan() -> list[PlannedFile]:
    moves = [
        PlannedFile(source=f"in/{n}", target=f"p/{n}", size_bytes=1024, action="upload")
        for n in range(12)
    ]
    skips = [
        PlannedFile(
            source=f"old/{n}", target=f"p/old{n}", size_bytes=9, action="skip", reason="it exists"
        )
        for n in range(5)
    ]
    why = "cannot upload 'pipe': it is no regular file; leave it out"
    refused = PlannedFile(source="pipe", target="", size_bytes=0, action="refuse", reason=why)
    folder = PlannedFile(source="e/", target="p/e/", size_bytes=0, action="make folder")
    return [*moves, *skips, folder, refused]


def test_a_dry_run_says_what_would_be_done_and_moves_nothing(azpool, storage) -> None:
    storage.one.planned = a_plan()
    ended = azpool("cp", "--dry-run", "--overwrite", "never", "in", "az://demo/p")
    assert ended.code == 1  # one would be refused
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0] == "would upload 12 files (12.0 KiB) to az://demo/p"
    assert lines[1] == "   1.0 KiB  in/0 -> p/0"
    assert lines[11] == "  and 3 more"
    assert lines[12] == "would skip 5: it exists [old/0, old/1, old/2 and 2 more]"
    assert lines[13] == "would refuse 1: it is no regular file; leave it out [pipe]"
    assert lines[14] == "note: a note"
    (call,) = storage.one.calls
    assert call[3] == {"dry_run": True, "overwrite": "never"}
    assert storage.pools == []
    named = azpool("cp", "--dry-run", "-v", "in", "az://demo/p").out.splitlines()
    assert "    folder  e/ -> p/e/" in named
    assert len([line for line in named if " -> " in line]) == 13


def test_a_dry_run_for_programs_is_one_line_a_thing(azpool, storage) -> None:
    storage.one.planned = a_plan()
    ended = azpool("cp", "--dry-run", "--json", "in", "az://demo/p")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert len(events) == 20
    assert events[0] == {
        "event": "would_upload", "source": "in/0", "target": "p/0", "size_bytes": 1024,
    }  # fmt: skip
    assert events[12]["event"] == "would_skip"
    assert events[12]["reason"] == "it exists"
    assert events[17]["event"] == "would_make_folder"
    assert events[-1] == {
        "event": "plan",
        "counts": {"upload": 12, "skip": 5, "make_folder": 1, "refuse": 1},
        "size_bytes": 12288,
        "notes": ["a note"],
    }


def test_a_dry_run_of_nothing_matches_nothing(azpool, storage) -> None:
    assert azpool("cp", "--dry-run", "in", "az://demo/p").code == 3


def test_the_whole_report_is_written_as_json_and_as_csv(azpool, storage, tmp_path) -> None:
    storage.one.failures = {"b": refused("b")}
    path = tmp_path / "r.json"
    assert azpool("cp", "--report", str(path), "a", "b", "az://demo").code == 1
    report = json.loads(path.read_text())
    assert report["counts"] == {"ok": 1, "failed": 1}
    assert [outcome["source"] for outcome in report["outcomes"]] == ["a", "b"]
    assert report["outcomes"][1]["status"] == 403
    path = tmp_path / "r.CSV"
    assert azpool("cp", "--report", str(path), "a", "b", "az://demo").code == 1
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["ok", "failed"]
    assert rows[1]["request_id"] == "1234-abcd"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["r.CSV", "r.json"]


def test_a_name_that_is_no_utf_8_is_in_the_report_as_it_is(azpool, tmp_path) -> None:
    path = tmp_path / "r.csv"
    assert azpool("cp", "--report", str(path), "caf\udce9", "b", "az://demo").code == 0
    assert b"caf\xe9," in path.read_bytes()


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
        (("--overwrite", "never", "a"), "missing argument"),
        (("--overwrite", "fail", "--no-overwrite", "a", "az://demo"), "they differ"),
        (("--verify", "sha1", "a", "az://demo"), "cannot use --verify='sha1': give one of md5"),
        (("--cap-rate", "fast", "a", "az://demo"), "cannot use --cap-rate='fast': it is no rate"),
        (("--cap-rate", "0", "a", "az://demo"), "nothing would move"),
        (("--cap-requests", "-1", "a", "az://demo"), "not a number above 0"),
        (("--max-failures", "0", "a", "az://demo"), "not a whole number from 1 on"),
        (("--max-concurrency", "x", "a", "az://demo"), "give --max-concurrency 64"),
        (("--metadata", "x", "a", "az://demo"), "cannot use --metadata='x': it names no value"),
        (("--tag", "a=1", "--tag", "a=2", "a", "az://demo"), "'a' is given twice"),
        (("--tier", "warm", "a", "az://demo"), "give one of Hot, Cool, Cold, Archive"),
        (("--tier", "Hot", "az://demo/a", "b"), "cannot use --tier for a download"),
        (("--tag", "a=1", "az://demo/a", "b"), "cannot use --tag for a download"),
        (("--report", "x.txt", "a", "az://demo"), "name it .json or .csv"),
        (("--report", "no/such/x.csv", "a", "az://demo"), "no folder 'no/such'"),
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
        "azpool: interrupted: 2 of 5 files uploaded (8.0 KiB), 1 failed, 2 not done"
    )


def test_ctrl_c_says_how_to_go_on_where_there_is_much(azpool, storage) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    storage.one.during = interrupt
    try:
        ended = azpool("cp", *many(30), "out")
        told = azpool("cp", "--json", *many(30), "out")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        "azpool: interrupted: 3 of 30 files downloaded (12.0 KiB), 27 not done; "
        "azpool jobs resume 3f2a91bc goes on from there"
    )
    assert json.loads(told.out.splitlines()[-1])["job"] == "3f2a91bc"


@pytest.mark.parametrize(
    "where",
    ["azpool.cli._plain.PlainView.stop", "azpool.cli._run.write_report"],
    ids=["while the view ends", "while the report is written"],
)
def test_a_second_ctrl_c_takes_no_message_away(
    azpool, storage, monkeypatch, tmp_path, where
) -> None:
    import signal

    pressed = []

    def press(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        pressed.append(where)

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(where, press)
    storage.kept.infos = [a_job()]
    storage.one.during = interrupt
    ended = azpool("cp", "--report", str(tmp_path / "r.json"), *many(30), "out")
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        "azpool: interrupted: 3 of 30 files downloaded (12.0 KiB), 27 not done; "
        "azpool jobs resume 3f2a91bc goes on from there"
    )
    assert pressed == [where]


@pytest.mark.parametrize(
    "where", ["azpool.cli._plain.PlainView.finish", "azpool.cli._run.write_report"]
)
@pytest.mark.parametrize("count", [2, 30])
def test_ctrl_c_after_the_last_file_says_what_was_done(
    azpool, storage, monkeypatch, tmp_path, where, count
) -> None:
    import signal

    pressed = []

    def press(*_: Any) -> None:
        pressed.append(where)
        if len(pressed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(where, press)
    storage.kept.infos = [a_job()]
    storage.one.failures = {"f01": refused("f01")}
    report = tmp_path / "r.json"
    names = [f"f{number:02}" for number in range(count)]
    ended = azpool("cp", "--report", str(report), *names, "az://demo")
    assert ended.code == 130
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"azpool: interrupted: {count - 1} of {count} files uploaded (")
    assert "1 failed, 0 not done" in last
    assert ("azpool jobs resume 3f2a91bc" in last) == (count == 30)  # a handful is no job
    if where.endswith("write_report"):
        assert len(pressed) == 2  # it is written all the same
    else:
        assert len(json.loads(report.read_text(encoding="utf-8"))["outcomes"]) == count


def test_ctrl_c_before_anything_moved_leaves_no_job(azpool, storage, monkeypatch) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)

    def upload_many(*_: Any, progress: Any, **__: Any) -> None:
        progress(Progress(files_total=1_000_000, planning=True, job="3f2a91bc"))
        raise KeyboardInterrupt

    storage.kept.infos = [a_job()]
    monkeypatch.setattr(storage.one, "upload_many", upload_many)
    try:
        ended = azpool("cp", *[f"{n}" for n in range(30)], "az://demo")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.code == 130
    assert ended.err == "azpool: interrupted before anything was uploaded\n"
    assert storage.kept.removed == ["3f2a91bc"]


def test_events_are_one_json_object_a_line(azpool, storage) -> None:
    storage.one.failures = {"b": refused("b")}
    ended = azpool("cp", "--json", "a", "b", "az://demo")
    assert ended.code == 1
    assert ended.err == ""
    events = [json.loads(line) for line in ended.out.splitlines()]
    events = [one for one in events if one["event"] != "progress"]  # what takes a second has them
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
