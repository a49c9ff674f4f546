import json
import pickle

import pytest

from azpool.errors import AccessDenied, SomeFailed, StorageError, UsageError
from azpool.report import Outcome, Report, State


def ok(index, name=None, **more):
    return Outcome(index=index, name=name or f"f{index}", **more)


def failed(index, message="cannot upload 'f{}': key rejected (403); check AZURE_STORAGE_KEY"):
    name = f"f{index}"
    error = AccessDenied(
        message.format(index), status=403, code="Auth", path=name, request_id=f"id-{index}"
    )
    return Outcome(index=index, name=name, state=State.FAILED, error=error)


def test_outcomes_are_sorted_into_states_and_keep_their_order():
    report = Report(
        [
            ok(0),
            failed(1),
            ok(2, state=State.SKIPPED),
            ok(3, state=State.CANCELLED),
            ok(4),
            ok(5, state=State.UNKNOWN),
            ok(6, state=State.THROTTLED),
        ]
    )
    assert [o.index for o in report] == [0, 1, 2, 3, 4, 5, 6]
    assert [o.index for o in report.ok] == [0, 4]
    assert [o.index for o in report.failed] == [1]
    assert [o.index for o in report.skipped] == [2]
    assert [o.index for o in report.cancelled] == [3]
    assert [o.index for o in report.unknown] == [5]
    assert [o.index for o in report.throttled] == [6]
    assert report.counts == {
        State.OK: 2,
        State.FAILED: 1,
        State.SKIPPED: 1,
        State.CANCELLED: 1,
        State.UNKNOWN: 1,
        State.THROTTLED: 1,
    }
    assert report[1].status == 403
    assert [o.index for o in report[1:3]] == [1, 2]


def test_one_reason_is_told_once_with_its_count_and_each_outcome_keeps_its_error():
    report = Report([failed(n) for n in range(84)], title="upload")
    text = repr(report)
    assert text.count("key rejected") == 1
    assert "84 x cannot upload …: key rejected (403)" in text
    assert "f0, f1, f2 and 81 more" in text
    assert [o.request_id for o in report.failed] == [f"id-{n}" for n in range(84)]


def test_repr_of_100_000_outcomes_is_short_and_quick():
    report = Report(
        [failed(n) if n % 10 == 0 else ok(n, bytes_moved=4096) for n in range(100_000)],
        title="upload",
        seconds=20.0,
        notes=["'d' holds no files"],
    )
    text = repr(report)
    assert len(text) < 1000
    assert "90,000" in text
    assert "351.6 MiB in 20.0 s (5,000/s)" in text
    assert "note: 'd' holds no files" in text


def test_html_escapes_names_and_reasons():
    error = StorageError("cannot upload '<b>': <script>", path="<b>")
    report = Report([Outcome(index=0, name="<b>", state=State.FAILED, error=error)], title="<i>")
    text = report._repr_html_()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;i&gt;" in text


def test_control_characters_in_names_do_not_reach_the_terminal():
    error = StorageError("", path="a\x1b[31m")
    report = Report([Outcome(index=0, name="a\x1b[31m", state=State.FAILED, error=error)])
    assert "\x1b" not in repr(report)


def test_raise_for_failures_names_the_first_reason_and_carries_the_report():
    report = Report([ok(0), failed(1), failed(2)], title="upload")
    with pytest.raises(SomeFailed, match=r"cannot upload 2 of 3: 2 x cannot upload …: key") as got:
        report.raise_for_failures()
    assert got.value.report is report
    assert got.value.__cause__ is report[1].error


def test_nothing_is_raised_for_what_was_skipped():
    Report([ok(0), ok(1, state=State.SKIPPED)]).raise_for_failures()


@pytest.mark.parametrize("state", [State.CANCELLED, State.UNKNOWN, State.THROTTLED])
def test_what_has_no_good_end_counts_as_failure(state):
    with pytest.raises(SomeFailed):
        Report([ok(0), ok(1, state=state)]).raise_for_failures()


def test_json_and_dicts_hold_plain_values():
    report = Report([ok(0, bytes_moved=3), failed(1)], title="upload", seconds=1.5, notes=["n"])
    data = json.loads(report.to_json())
    assert data["title"] == "upload"
    assert data["seconds"] == 1.5
    assert data["counts"] == {"ok": 1, "failed": 1}
    assert data["notes"] == ["n"]
    assert data["outcomes"] == report.to_dicts()
    assert data["outcomes"][0]["state"] == "ok"
    assert data["outcomes"][1]["status"] == 403
    assert data["outcomes"][1]["error_type"] == "AccessDenied"
    assert data["outcomes"][1]["request_id"] == "id-1"


def test_retry_runs_what_did_not_end_well():
    seen = []

    def again(outcomes):
        seen.extend(o.index for o in outcomes)
        return Report([ok(o.index) for o in outcomes])

    report = Report([ok(0), failed(1), ok(2, state=State.SKIPPED), failed(3)], again=again)
    assert len(report.retry().ok) == 2
    assert seen == [1, 3]


def test_retry_without_a_way_is_a_usage_error():
    with pytest.raises(UsageError, match="cannot retry"):
        Report([failed(0)]).retry()


def test_a_report_survives_pickling_without_its_way_to_run_again():
    report = Report([ok(0), failed(1)], title="upload", notes=["n"], again=lambda _: Report())
    report = pickle.loads(pickle.dumps(report))
    with pytest.raises(UsageError):
        report.retry()
    assert report.title == "upload"
    assert report[1].error.status == 403
    assert report.notes == ("n",)


def test_an_empty_report_prints():
    assert repr(Report()) == "Report: 0 outcomes"
    Report().raise_for_failures()
