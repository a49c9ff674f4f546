import errno
import hashlib
import os
import threading

import pytest

from azpool.errors import IntegrityError, LocalFileError
from azpool.storage import _files, _walk
from azpool.storage._reading import DIGEST_BYTES, Source
from azpool.storage.plan import Transfer

RUN = "0123456789abcdef"


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def by_relative(found):
    return {f.relative: f for f in found}


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_tree_is_walked_whole_hidden_files_too(tmp_path):
    tree(tmp_path, "b", "a/x", "a/.h/y", ".z")
    found = list(_walk.walk(str(tmp_path)))
    assert [f.relative for f in found] == [".z", "b", "a/x", "a/.h/y"]
    assert [f.size_bytes for f in found] == [2, 1, 3, 6]
    assert found[0].path == str(tmp_path / ".z")


def test_links_to_files_are_followed_and_links_to_folders_skipped(tmp_path):
    tree(tmp_path, "d/x")
    (tmp_path / "file").symlink_to("d/x")
    (tmp_path / "d" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = by_relative(_walk.walk(str(tmp_path)))
    assert found["file"].size_bytes == 3
    assert found["file"].error is None
    assert found["d/loop"].skip
    assert found["gone"].error.code == "ENOENT"
    assert "not a regular file" in str(found["pipe"].error)
    assert not found["pipe"].skip


def test_a_folder_that_is_gone_is_an_error_of_its_own(tmp_path):
    (found,) = _walk.walk(str(tmp_path / "no"))
    assert found.error.code == "ENOENT"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", [".h", "b.nc"]),
        ("**", [".h", "b.nc", "a/c.nc", "a/e/d.nc"]),
        ("**/*.nc", ["b.nc", "a/c.nc", "a/e/d.nc"]),
        ("*/*.nc", ["a/c.nc"]),
        ("a/**/d.nc", ["a/e/d.nc"]),
        ("nothing*", []),
        ("*/nothing/*", []),
        ("b.nc/*", []),
    ],
)
def test_globs_find_files(tmp_path, pattern, names):
    tree(tmp_path, "b.nc", ".h", "a/c.nc", "a/e/d.nc")
    found = list(_walk.glob_files(f"{tmp_path}/", pattern))
    assert [f.relative for f in found] == names
    assert all(f.path == f"{tmp_path}/{f.relative}" for f in found)


def test_a_glob_in_the_working_directory_keeps_short_paths(tmp_path, monkeypatch):
    tree(tmp_path, "b.nc", "a/c.nc")
    monkeypatch.chdir(tmp_path)
    assert [f.path for f in _walk.glob_files("", "**/*.nc")] == ["b.nc", "a/c.nc"]
    assert [f.path for f in _walk.glob_files("", "*/*.nc")] == ["a/c.nc"]


def test_a_glob_is_not_held_up_by_a_circle_of_links(tmp_path):
    tree(tmp_path, "d/x.nc")
    (tmp_path / "d" / "loop").symlink_to(tmp_path)
    assert [f.relative for f in _walk.glob_files(f"{tmp_path}/", "**/*.nc")] == ["d/x.nc"]


def planned(path, shown="f"):
    try:
        status = os.stat(path)
    except OSError:
        return Transfer(0, shown, "t", 0)
    return Transfer(0, shown, "t", status.st_size, mtime_ns=status.st_mtime_ns)


@pytest.mark.parametrize("body", [b"", b"f", os.urandom(1 << 20)])
def test_reading(tmp_path, body):
    (tmp_path / "f").write_bytes(body)
    with Source(str(tmp_path / "f"), planned(tmp_path / "f")) as source:
        assert source.read() == body
        assert source.md5(0, len(body)) == hashlib.md5(body).digest()
        source.check()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source.descriptor)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda p: None, "ENOENT", "no such file"),
        (lambda p: p.mkdir(), "EISDIR", "it is a folder"),
        (lambda p: p.symlink_to("nowhere"), "ENOENT", "no such file"),
        (lambda p: p.symlink_to(p), "ELOOP", "in a circle"),
        (os.mkfifo, "EINVAL", "not a regular file"),
    ],
)
def test_what_can_not_be_read_is_told_in_the_houses_form(tmp_path, make, code, words):
    make(tmp_path / "f")
    with pytest.raises(LocalFileError, match=rf"^cannot upload 'f': .*{words}.*; .*[^.]$") as got:
        Source(str(tmp_path / "f"), planned(tmp_path / "f"))
    assert got.value.code == code
    assert got.value.path == "f"
    assert not got.value.retryable


def grow(path):
    path.write_bytes(b"12345+")


def shrink(path):
    path.write_bytes(b"123")


def write_to(path):
    path.write_bytes(b"54321")
    os.utime(path, ns=(1, 1))


CHANGES = [
    (grow, r"it grew from 5 to 6 bytes"),
    (shrink, r"it shrank from 5 to 3 bytes"),
    (write_to, r"it was written to"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_file_that_changed_since_it_was_listed_is_not_read(tmp_path, change, words):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    plan = planned(path)
    change(path)
    with pytest.raises(IntegrityError, match=rf"'f': {words} since it was listed; upload") as got:
        Source(str(path), plan)
    assert not got.value.retryable


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, change, words):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with Source(str(path), planned(path)) as source:
        change(path)
        with pytest.raises(IntegrityError, match=rf"'f': {words} while it was read; upload"):
            source.check()


def test_a_digest_of_a_file_that_ends_early_is_none(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with Source(str(path), planned(path)) as source:
        shrink(path)
        with pytest.raises(IntegrityError, match="it shrank from 5 to 3 bytes while"):
            source.md5(0, 5)


def test_a_digest_stops_when_told(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * DIGEST_BYTES))
    goes = iter([True, True, False])
    with Source(str(path), planned(path)) as source:
        assert source.md5(0, 3 * DIGEST_BYTES, lambda: next(goes)) is None
    assert next(goes, "all asked") == "all asked"


def test_writing_makes_folders_and_leaves_the_file_alone(tmp_path):
    _files.write_file(str(tmp_path / "a/b/f"), "f", b"data", RUN)
    assert (tmp_path / "a/b/f").read_bytes() == b"data"
    assert left_in(tmp_path / "a/b") == ["f"]
    _files.write_file(str(tmp_path / "a/b/f"), "f", b"new", RUN)
    assert (tmp_path / "a/b/f").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["folder", "file/below", "x" * 256])
def test_a_target_that_can_not_be_written_leaves_nothing_behind(tmp_path, target):
    tree(tmp_path, "folder/x", "file")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(LocalFileError, match=r"^cannot write '.*': .*; .*[^.]$"):
        _files.write_file(str(tmp_path / target), target, b"data", RUN)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LocalFileError, match="no space left on the disk; free some") as got:
        _files.write_file(str(tmp_path / "f"), "f", b"data", RUN)
    assert got.value.code == "ENOSPC"
    assert left_in(tmp_path) == []


def test_an_interrupt_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _files.write_file(str(tmp_path / "f"), "f", b"data", RUN)
    assert left_in(tmp_path) == []


def write_range(target, data, offset):
    with _files.RangeFile(target, "f", offset, RUN) as place:
        place.write(data[:1])
        place.write(memoryview(data)[1:])


def test_parts_in_any_order_make_the_file(tmp_path):
    target = str(tmp_path / "d/f")
    write_range(target, b"def", 3)
    assert left_in(tmp_path / "d") == [".f.01234567.part"]
    write_range(target, b"abc", 0)
    _files.finish_part(target, "f", 6, RUN)
    assert left_in(tmp_path / "d") == ["f"]
    assert (tmp_path / "d/f").read_bytes() == b"abcdef"


def test_a_short_file_is_never_renamed_into_place(tmp_path):
    target = str(tmp_path / "f")
    write_range(target, b"abc", 0)
    with pytest.raises(IntegrityError, match="3 of 6 bytes"):
        _files.finish_part(target, "f", 6, RUN)
    _files.drop_part(target, RUN)
    _files.drop_part(target, RUN)
    assert left_in(tmp_path) == []


def test_part_names_fit_the_file_system(tmp_path):
    target = str(tmp_path / ("é" * 127))
    _files.write_file(target, "é", b"x", RUN)
    assert len(os.fsencode(os.path.basename(_files.part_path(target, RUN)))) <= 255


def test_many_threads_make_the_same_folder(tmp_path):
    errors = []

    def write(n):
        try:
            _files.write_file(str(tmp_path / f"a/b/c/{n}"), "f", b"x", RUN)
        except LocalFileError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(left_in(tmp_path / "a/b/c")) == 8
