"""A run with everything in it, which prints all that it can get hold of: test_secrecy reads it.

The secrets come as JSON on standard input, so that no process has them as an argument or in its
environment but by azpool's doing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import signal
import sys
import traceback

import azpool
from azpool import Pool, events
from azpool.cli import main
from azpool.errors import NodeDied
from azpool.storage import Container, Endpoint, RetryOptions

logging.basicConfig(filename="debug.log", level=logging.DEBUG)
given = json.loads(sys.stdin.readline())
url, dead, box = given["url"], given["dead"], given["box"]


def show(what, value):
    print(what, repr(value), str(value), getattr(value, "__dict__", ""))
    if hasattr(value, "_repr_html_"):
        print(value._repr_html_())
    if isinstance(value, BaseException):
        print("".join(traceback.format_exception(value)), getattr(value, "__notes__", ""))
        print(pickle.dumps(value) if not isinstance(value, BaseExceptionGroup) else "")


def fails(what, call, *arguments):
    try:
        show(what, call(*arguments))
    except Exception as error:
        show(what, error)


def containers():
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    def at(place, **signing):
        return Container(f"{place}/{box}", retry=RetryOptions(attempts=2), **signing)

    yield "key", at(url, key=given["key"])
    yield "sas", at(url, sas=given["sas"])
    yield "sas in the url", Container(f"{url}/{box}?{given['sas']}")
    yield "wrong sas", at(url, sas=given["wrong_sas"])
    yield "identity", at(url, credential=ManagedIdentityCredential())
    yield "chain", at(url, credential=DefaultAzureCredential())
    yield "nobody there, key", at(dead, key=given["key"])
    yield "nobody there, sas", at(dead, sas=given["sas"])


def crash(container):
    container.exists("x")
    os._exit(3)


def boom(container, *, credential=None):
    with contextlib.suppress(Exception):
        container.exists("x")
    raise ValueError(f"{container} {container._recipe!r} {container._recipe.auth!r} {credential}")


def use(what, container, pool):
    show(what, container)
    print(pickle.dumps(container))
    fails(what, container.exists)
    fails(what, container.upload, "one.txt")
    fails(what, container.upload, "missing.txt")
    for report in (
        lambda: container.upload_many("tree/", "up", pool=pool),
        lambda: container.download_many("up/", f"down-{what}", pool=pool),
        lambda: container.delete(["no", "none"], pool=pool),
    ):
        fails(what, lambda report=report: show(what, report().to_json()))
    fails(what, lambda: pool.submit(crash, container).result())
    fails(what, lambda: pool.call(boom, container, credential=container._recipe.auth))
    pool.export({"container": container})
    fails(what, lambda: pool.evalq("print(container); container.exists(None)"))


seen: list[events.Event] = []
with events.listen(seen.append), Pool(3) as pool:
    Endpoint(url, key=given["key"]).container(box).create()
    for what, container in containers():
        use(what, container, pool)
    killed = pool[0].submit(signal.raise_signal, signal.SIGKILL)
    with contextlib.suppress(NodeDied):
        killed.result()
    pool.call(boom.__repr__)
    show("statistics", pool.statistics())
    show("pool", pool)
    azpool.init_pool(2)
    for option in (["--key", given["key"]], ["--sas", given["sas"]]):
        main(["cp", "--debug", "--json", *option, "tree/", f"{url}/{box}/cli"])
        main(["cp", *option, "tree/", f"{url}/missing-box/cli"])
    main(["ls", "--sas", given["sas"], f"{dead}/{box}"])
    main(["login-check"])
    print("READY", flush=True)
    sys.stdin.readline()  # while processes are looked at
    azpool.delete_pool()
for event in seen:
    show("event", event)
print("DONE", len(seen))
