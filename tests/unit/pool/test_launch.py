"""The start of a zygote ahead of the pool that it is for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from azpool import Pool, init_pool, pool_exists
from azpool.errors import UsageError
from azpool.pool.engines import launch
from azpool.pool.engines.base import NodeKey
from azpool.pool.engines.process import ProcessEngine
from azpool.pool.node import Status
from azpool.pool.wire import Frame, Kind


def launched() -> launch.Launched:
    found = launch.begin()
    assert found is not None
    return found


def test_what_no_pool_takes_is_ended_with_the_block() -> None:
    with launch.ahead():
        process = launch._begun[0].process
        assert process.poll() is None
    assert process.returncode is not None
    assert launch.take() is None


def test_the_pool_that_is_made_next_takes_it() -> None:
    begun = launched()
    with Pool(1) as pool:
        assert pool.submit(os.getppid).result() == begun.process.pid
    assert begun.process.returncode is not None
    assert launch.take() is None


def test_one_is_enough() -> None:
    begun = launched()
    assert launch.begin() is None
    assert launch.take() is begun
    assert launch.take() is None
    begun.close()


@pytest.mark.parametrize(
    ("engine", "variables"),
    [("inline", {}), (None, {"AZPOOL_ENGINE": "inline"}), (None, {"AZPOOL_START": "spawn"})],
)
def test_pools_without_a_zygote_begin_none(
    monkeypatch: pytest.MonkeyPatch, engine: str | None, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launch.begin(engine) is None


def test_a_pool_that_can_not_be_made_leaves_no_zygote() -> None:
    wrong: Any = "no function"
    with pytest.raises(UsageError, match="no function"):
        init_pool(1, initializer=wrong)
    assert launch.take() is None
    assert not pool_exists()


def test_where_none_can_be_started_the_engine_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with launch.ahead():
        assert launch.take() is None


def test_a_fork_of_the_master_leaves_the_process_to_it() -> None:
    begun = launched()
    child = os.fork()
    if not child:
        os._exit(0 if launch.take() is None and begun.process.returncode == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert begun.process.poll() is None
    assert launch.take() is begun
    begun.close()


def test_what_a_pool_is_made_of_is_loaded_after_the_start() -> None:
    code = "from azpool import init_pool; import sys; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = said.stdout.split()
    assert "azpool.pool.engines.launch" in loaded
    assert not {"azpool.pool.pool", "cloudpickle", "concurrent.futures"}.intersection(loaded)


@pytest.mark.parametrize(("received_bytes", "told"), [(0, 1), (24, 0)])
def test_a_birth_that_is_told_after_the_hello_asks_for_no_other(
    received_bytes: int, told: int
) -> None:
    key = NodeKey(1, 0, 2)
    channel = SimpleNamespace(
        key=key, pid=0, kill_wanted=False, words=[0] * Status.WORDS, received_bytes=received_bytes
    )
    born: list[NodeKey] = []
    engine: Any = SimpleNamespace(
        _channels={key: channel}, _listener=SimpleNamespace(on_born=born.append)
    )
    frame = Frame(Kind.BORN, 0, 0, pickle.dumps((0, (1, 2), 99)), 0, (7,))
    ProcessEngine._on_zygote_frame(engine, None, frame)  # type: ignore[arg-type]
    assert (channel.pid, channel.pidfd, len(born)) == (99, 7, told)
