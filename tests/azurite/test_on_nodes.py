"""Containers on nodes: all that they can do, without the account's key."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest

import azpool
from azpool import Pool
from azpool.errors import AccessDenied, Conflict, NotFound, NotShared, UsageError
from azpool.storage import Container, Endpoint
from azpool.storage._stores import close_stores

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool
    close_stores()


def all_of_it(container, folder):
    """Call every method of a container."""
    os.makedirs(folder)
    with open(f"{folder}/f", "wb") as file:
        file.write(b"12345")
    container.upload(f"{folder}/f", "one")
    container.upload(f"{folder}/f", "one", overwrite=False)
    container.upload_many(f"{folder}/", "many").raise_for_failures()
    container.download("one", f"{folder}/back")
    container.download_many("many/", f"{folder}/all").raise_for_failures()
    names = [blob.name for blob in container.list()]
    assert container.exists("one") and not container.exists("two") and container.exists()
    container.delete("one")
    container.delete(["many/f"]).raise_for_failures()
    with pytest.raises(NotFound):
        container.delete("one")
    return names, sorted(os.listdir(folder)), list(container.list())


def test_every_method_of_a_container_works_on_a_node(pool, container, tmp_path):
    told = pool.submit(all_of_it, container, str(tmp_path / "work")).result()
    assert told == (["many/f", "one"], ["all", "back", "f"], [])


def test_containers_are_made_found_and_removed_from_nodes(pool, azurite, container_name):
    endpoint = Endpoint(azurite.blob_url, key=azurite.key)

    def make_and_remove():
        container = endpoint.container(container_name)
        seen = [container.exists()]
        container.create()
        seen += [container.exists(), container_name in list(endpoint.list_containers("test-"))]
        with pytest.raises(Conflict) as caught:
            container.create()
        container.remove()
        seen += [container_name in list(endpoint.list_containers())]
        return seen, caught.value.code, caught.value.status

    seen, code, status = pool.submit(make_and_remove).result()
    assert (seen, code, status) == ([False, True, True, False], "ContainerAlreadyExists", 409)


def test_a_node_has_no_key_and_a_sas_for_one_container_for_an_hour(pool, azurite, container):
    pickled = pickle.dumps(container)
    assert azurite.key.encode() not in pickled and len(pickled) < 1000

    def look():
        key = container._recipe.auth.key
        with pytest.raises(UsageError, match="stays in its process"):
            key.reveal()
        return key.borrow(container.name, "https,http").value

    for sas in pool.call(look):
        facts = parse_qs(sas)
        assert facts["sp"] == ["racwdl"] and facts["sr"] == ["c"]
        again = Container(container.url, sas=sas)
        assert again.exists()
        other = Container(f"{azurite.blob_url}/elsewhere", sas=sas)
        with pytest.raises(AccessDenied):
            other.exists()


def test_a_node_asks_for_one_sas_and_keeps_it(pool, container, tmp_path):
    (tmp_path / "f").write_bytes(b"x")

    def upload(n):
        container.upload(str(tmp_path / "f"), str(n))
        sas = container._recipe.auth.key.borrow(container.name, "https,http")
        return os.getpid(), id(sas), sas.grant.serial

    told = set(pool.map(upload, range(40)))
    assert len(told) == len({pid for pid, _, _ in told})
    assert len({serial for _, _, serial in told}) == 1  # the master made one for all nodes


@pytest.mark.parametrize("signing", ["key", "sas"])
def test_moving_small_files_loads_nothing_of_azure_on_a_node(azurite, container, tmp_path, signing):
    (tmp_path / "f").write_bytes(b"x")
    if signing == "sas":
        sas = container._recipe.auth.key.borrow(container.name, "https,http").value
        container = Container(container.url, sas=sas)

    def upload():
        container.upload(str(tmp_path / "f"), "f")
        return sorted({"azure", "http", "asyncio"} & {m.partition(".")[0] for m in sys.modules})

    with Pool(1) as fresh:
        assert fresh.submit(upload).result() == []


def test_a_container_made_on_a_node_works_there(pool, azurite, container):
    url, key = container.url, azurite.key

    def make():
        made = Container(url, key=key)
        return made.exists(), made

    exists, made = pool.submit(make).result()
    assert exists
    with pytest.raises(NotShared, match="share a credential in this process"):
        list(made.list())


def test_a_container_comes_back_from_a_node_as_it_went(pool, container):
    assert pool.submit(lambda: container).result() == container
    assert pool.submit(lambda: container).result().exists()


def test_a_container_works_inline_in_handlers_and_in_children_of_fork(azurite, container):
    with Pool(1) as pool:
        pool.serve("exists", lambda request: azpool.pool_lapply([request], Container.exists))
        assert pool.submit(azpool.pool.ask, "exists", container).result() == [True]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if Container(container.url, key=azurite.key).exists() else 1)
    assert os.waitpid(pid, 0)[1] == 0
