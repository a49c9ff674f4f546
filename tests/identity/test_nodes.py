"""One credential on many nodes: however the handle gets there, and whatever happens meanwhile."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from credentials import Credential

import azpool
from azpool import Pool
from azpool.errors import NodeDied, NotShared, UsageError
from azpool.identity import SharedCredential, broker, registry, share
from azpool.pool import ask


def tell(credential, *scopes):
    return credential.get_token(*(scopes or ("s",))).token


def wait_until(true):
    deadline = time.monotonic() + 50
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def service_threads():
    return [t for t in threading.enumerate() if t.name.endswith("-service")]


# -- where a handle works ------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_a_handle_works_as_an_argument_in_a_closure_and_as_an_export(start):
    credential = Credential()
    shared = share(credential)
    with Pool(3, start=start) as pool:
        assert list(pool.map(tell, [shared] * 20)) == ["token-1"] * 20
        assert list(pool.map(lambda n: shared.get_token("s").token, range(20))) == ["token-1"] * 20
        pool.export({"exported": shared})
        assert pool.evalq("exported.get_token('s').token") == ["token-1"] * 3
        assert pool.call(lambda: azpool.exports["exported"].get_token("s").token) == ["token-1"] * 3
    assert shared.get_token("s").token == "token-1"
    assert len(credential.asked) == 1


def test_a_handle_works_on_every_pool_of_the_process():
    with Pool(1) as before:
        shared = share(Credential())
        with Pool(1) as after:
            told = [pool.submit(tell, shared).result() for pool in (before, after, before)]
    assert told == ["token-1"] * 3
    with Pool(1) as later:
        assert later.submit(tell, shared).result() == "token-1"


def test_a_handle_works_in_handlers_inline_tasks_and_initializers():
    shared = share(Credential())

    def inline():
        azpool.init_pool(4)
        return azpool.pool_lapply([shared, shared], tell)

    with Pool(2, initializer=tell, initargs=(shared,)) as pool:
        pool.serve("handled", lambda request: azpool.pool_lapply([request], tell))
        assert pool.call(ask, "handled", shared) == [["token-1"]] * 2
        assert pool.submit(inline).result() == ["token-1"] * 2


def test_a_handle_is_small_and_means_nothing_elsewhere():
    shared = share(Credential())
    shared.get_token("s")
    data = pickle.dumps(shared)
    assert len(data) < 100 and b"token" not in data
    code = f"import pickle; pickle.loads({data!r}).get_token('s')"
    command = [sys.executable, "-c", code]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "azpool.errors.NotShared: cannot use this credential here" in elsewhere.stderr


def test_what_a_node_shares_is_its_own():
    def made_here():
        made = share(SimpleNamespace(get_token=lambda *_: AccessToken("mine", 1 << 40)))
        return made.get_token("s").token, made

    with Pool(2) as pool:
        token, made = pool.submit_to(0, made_here).result()
        assert token == "mine"
        with pytest.raises(NotShared):
            made.get_token("s")
        with pytest.raises(NotShared, match="shares it no longer"):
            pool.submit_to(1, tell, made).result()


def test_one_credential_has_one_handle():
    credential = Credential()
    assert share(credential) == share(credential) == share(share(credential))
    assert share(credential) != share(Credential())
    assert len({share(credential), share(credential)}) == 1
    assert pickle.loads(pickle.dumps(share(credential))) == share(credential)
    for wrong in ("token", None, object()):
        with pytest.raises(UsageError, match="no get_token"):
            share(wrong)


def test_a_child_of_fork_has_what_its_parent_shared():
    shared = share(Credential())
    shared.get_token("s")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, (tell(shared) + tell(shared, "other")).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    assert os.read(reader, 100) == b"token-1token-2"
    os.close(reader)


# -- what it answers -----------------------------------------------------------------------------


def test_the_answers_are_azure_cores_own_and_hide_the_token():
    class WithInfo:
        def get_token_info(self, *scopes, options):
            assert options == {"tenant_id": "t"}
            return AccessTokenInfo("hush", 1 << 40, token_type="pop", refresh_on=1 << 39)

    def look(shared):
        token = shared.get_token("s", tenant_id="t", unknown=1)
        info = shared.get_token_info("s", options={"tenant_id": "t"})
        assert isinstance(token, AccessToken) and isinstance(info, AccessTokenInfo)
        assert tuple(token) == ("hush", 1 << 40)
        assert (info.token, info.expires_on, info.token_type) == ("hush", 1 << 40, "pop")
        assert info.refresh_on == 1 << 39
        assert "hush" not in repr(token) + repr(info) + repr(shared) + repr(shared._held)
        return token

    shared = share(WithInfo())
    assert look(shared) == ("hush", 1 << 40)
    with Pool(1) as pool:
        assert type(pool.submit(look, shared).result()) is AccessToken


def test_tokens_are_kept_by_scopes_tenant_and_cae():
    credential = Credential()
    shared = share(credential)

    def look():
        first = shared.get_token("a").token
        return [
            shared.get_token("a").token == first,
            shared.get_token("a", "b").token != first,
            shared.get_token("a", tenant_id="t").token != first,
            shared.get_token("a", enable_cae=True).token != first,
        ]

    with Pool(2) as pool:
        assert pool.call(look) == [[True] * 4] * 2
    assert credential.asked == [
        {"scopes": ("a",)},
        {"scopes": ("a", "b")},
        {"scopes": ("a",), "tenant_id": "t"},
        {"scopes": ("a",), "enable_cae": True},
    ]
    with pytest.raises(UsageError, match="no scope"):
        shared.get_token()


def test_an_async_credential_is_run():
    class Async(Credential):
        async def get_token(self, *scopes, **options):  # type: ignore[override]
            return super().get_token(*scopes, **options)

    shared = share(Async())
    with Pool(2) as pool:
        assert pool.call(tell, shared) == ["token-1"] * 2
        assert pool.call(tell, shared, "other") == ["token-2"] * 2
    del shared
    gc.collect()


def test_it_closes_nothing():
    class Closing(Credential):
        def close(self):
            raise AssertionError("others use it too")

    shared = share(Closing())
    with shared as entered:
        assert entered is shared
    shared.close()
    assert shared.get_token("s").token == "token-1"


@pytest.mark.parametrize("cls", [ClientAuthenticationError, CredentialUnavailableError, OSError])
def test_an_error_reaches_every_node_with_its_type_and_one_sign_in(cls):
    credential = Credential(cls("denied: client_secret=SECRET"))
    credential.open.clear()
    shared = share(credential)

    def try_it():
        try:
            shared.get_token("s")
        except Exception as error:
            return error
        return None

    with Pool(3) as pool:
        futures = [pool.submit_to(n, try_it) for n in range(3)]
        credential.entered.wait(50)
        wait_until(lambda: sum(map(len, broker._broker._waiting.values())) == 3)
        credential.open.set()
        errors = [future.result() for future in futures]
        assert [type(error) for error in errors] == [cls] * 3
        assert {str(error) for error in errors} == {"denied: client_secret=***"}
        assert len(credential.asked) == 1
        wait_until(lambda: pool.submit(try_it).result() is None)  # it is tried again after a while


def test_nobody_signs_in_before_the_server_allows_it():
    busy = ClientAuthenticationError("busy")
    busy.response = SimpleNamespace(headers={"Retry-After": "3600"})  # type: ignore[assignment]
    credential = Credential(busy)
    shared = share(credential)

    def fail():
        with pytest.raises(ClientAuthenticationError, match="busy"):
            shared.get_token("s")

    with Pool(3) as pool:
        pool.call(fail)
        pool.call(fail)
    fail()
    assert len(credential.asked) == 1


def test_a_credential_is_asked_one_thing_at_a_time():
    credential = Credential()
    with Pool(3) as pool:
        shared = share(credential)
        told = pool.map(lambda n: shared.get_token(str(n)).token, range(12), chunksize=1)
        assert len(set(told)) == 12
    assert credential.side_by_side == 1


# -- nothing hangs -------------------------------------------------------------------------------


def test_questions_that_wait_hold_no_threads():
    credential = Credential()
    credential.open.clear()
    shared = share(credential)

    def many():
        threads = [threading.Thread(target=tell, args=(shared,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return tell(shared)

    with Pool(8) as pool:
        futures = [pool.submit_to(n, many) for n in range(8)]
        wait_until(lambda: sum(map(len, broker._broker._waiting.values())) == 8)
        wait_until(lambda: len(service_threads()) <= 4)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("azpool-sign-in") == 1
        credential.open.set()
        assert [future.result() for future in futures] == ["token-1"] * 8
    assert len(credential.asked) == 1


def test_a_node_that_dies_while_it_asks_takes_nobody_with_it():
    credential = Credential()
    credential.open.clear()
    shared = share(credential)
    with Pool(3) as pool:
        futures = [pool.submit_to(n, tell, shared) for n in range(3)]
        wait_until(lambda: sum(map(len, broker._broker._waiting.values())) == 3)
        os.kill(pool.pids()[0], signal.SIGKILL)
        with pytest.raises(NodeDied):
            futures[0].result()
        credential.open.set()
        assert [future.result() for future in futures[1:]] == ["token-1"] * 2
        assert list(pool.map(tell, [shared] * 100)) == ["token-1"] * 100
    assert len(credential.asked) == 1


def test_a_pool_ends_while_its_nodes_wait_for_a_token():
    credential = Credential()
    credential.open.clear()
    shared = share(credential)
    pool = Pool(3)
    futures: list[Future[str]] = [pool.submit_to(n, tell, shared) for n in range(3)]
    wait_until(lambda: sum(map(len, broker._broker._waiting.values())) == 3)
    pool.delete()
    assert all(future.done() for future in futures)
    credential.open.set()
    with Pool(1) as again:
        assert again.submit(tell, shared).result() == "token-1"


def test_the_interpreter_ends_while_nodes_wait_for_a_token():
    code = """
import threading, time
from azpool import Pool
from azpool.identity import share
entered = threading.Event()
class Slow:
    def get_token(self, *scopes):
        entered.set()
        time.sleep(300)
shared = share(Slow())
pool = Pool(3)
futures = [pool.submit_to(n, shared.get_token, "s") for n in range(3)]
entered.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_credential_may_use_the_pool_that_waits_for_it():
    class Nested(Credential):
        def get_token(self, *scopes, **options):
            assert azpool.pool_lapply([1, 2], abs) == [1, 2]
            return super().get_token(*scopes, **options)

    shared = share(Nested())
    azpool.init_pool(2)
    try:
        assert azpool.pool_call(tell, shared) == ["token-1"] * 2
    finally:
        azpool.delete_pool()


def test_ctrl_c_ends_the_wait_and_not_the_sign_in():
    credential = Credential()
    credential.open.clear()
    shared = share(credential)

    def interrupt():
        assert credential.entered.wait(50)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        shared.get_token("s")
    thread.join()
    credential.open.set()
    assert shared.get_token("s").token == "token-1"
    assert len(credential.asked) == 1


def test_a_signals_handler_may_ask_in_the_middle_of_asking():
    credential = Credential()
    shared = share(credential)
    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(tell(shared, "other")))
    try:
        credential.open.clear()

        def interrupt():
            assert credential.entered.wait(50)
            os.kill(os.getpid(), signal.SIGUSR1)
            credential.open.set()

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert shared.get_token("s").token == "token-1"
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == ["token-2"]


# -- how long things live ------------------------------------------------------------------------


def test_a_credential_is_let_go_with_its_last_handle():
    credential = Credential()
    life = weakref.ref(credential)
    shared = share(credential)
    shared.get_token("s")
    del credential, shared
    wait_until(lambda: gc.collect() >= 0 and life() is None)


def test_a_credential_on_nodes_lives_as_long_as_a_pool():
    credential = Credential()
    life = weakref.ref(credential)
    with Pool(1) as pool:
        pool.export({"shared": share(credential)})
        del credential
        gc.collect()
        assert pool.evalq("shared.get_token('s').token") == ["token-1"]
    wait_until(lambda: gc.collect() >= 0 and life() is None)
    assert not registry._pins


def test_tokens_of_what_is_gone_are_forgotten():
    book = broker._broker._book
    shared = share(Credential())
    handle = shared._holder.handle
    shared.get_token("s")
    assert any(key[0] == handle for key in book._places)
    del shared

    def forgotten():
        gc.collect()
        share(Credential()).get_token("s")
        return not any(key[0] == handle for key in book._places)

    wait_until(forgotten)


def test_the_class_is_what_it_says():
    assert isinstance(share(Credential()), SharedCredential)
