from __future__ import annotations

from azpool.cli._tally import GROUPS_KEPT, OTHER, Tally, reason_of
from azpool.errors import AccessDenied, ConnectionFailed, LocalFileError, NodeDied


def refused(name: str) -> AccessDenied:
    return AccessDenied(
        f"cannot upload {name!r}: key rejected (403); check AZURE_STORAGE_KEY",
        path=name,
        status=403,
        request_id=f"id-of-{name}",
    )


def test_one_reason_is_told_once_with_its_first_names() -> None:
    tally = Tally()
    for number in range(84):
        tally.add(f"{number}.nc", refused(f"{number}.nc"))
    (group,) = tally.groups()
    assert group.reason == "key rejected (403); check AZURE_STORAGE_KEY"
    assert group.count == tally.count == 84
    assert group.names == ["0.nc", "1.nc", "2.nc"]
    assert group.request_id == "id-of-0.nc"
    assert group.status == 403


def test_groups_come_by_size_then_by_time() -> None:
    tally = Tally()
    tally.add("a", LocalFileError("cannot upload 'a': gone; look", path="a"))
    tally.add("b", refused("b"))
    tally.add("c", refused("c"))
    tally.add("d", ConnectionFailed("cannot upload 'd': cut off; try again", path="d"))
    assert [group.count for group in tally.groups()] == [2, 1, 1]
    assert tally.groups()[1].reason == "gone; look"


def test_a_name_with_a_colon_does_not_cut_the_reason() -> None:
    name = "a': b: c"
    error = LocalFileError(f"cannot upload {name!r}: gone; look", path=name)
    assert reason_of(error, name) == "gone; look"
    quoted = LocalFileError("cannot upload 'x: y': gone; look", path="x: y")
    assert reason_of(quoted, "elsewhere") == "gone; look"


def test_foreign_errors_say_what_they_are() -> None:
    assert reason_of(ValueError("no\n  good")) == "ValueError: no good"
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(NodeDied("node 3 was killed (SIGKILL)")).startswith("NodeDied: node 3")
    assert reason_of(None) == "unknown"


def test_a_server_that_numbers_its_messages_does_not_fill_the_memory() -> None:
    tally = Tally()
    for number in range(GROUPS_KEPT * 2):
        tally.add("x", ValueError(f"number {number}"))
    assert len(tally.groups()) == GROUPS_KEPT + 1
    assert tally.groups()[0].reason == OTHER
    assert tally.count == GROUPS_KEPT * 2


def test_a_tally_knows_whether_all_were_refused_or_missing() -> None:
    tally = Tally()
    tally.add("a", refused("a"))
    tally.add("b", LocalFileError("cannot upload 'b': gone; look", path="b", code="ENOENT"))
    tally.add("c", ConnectionFailed("cannot upload 'c': cut off; try again", path="c"))
    assert (tally.count, tally.refused, tally.missing) == (3, 1, 1)
