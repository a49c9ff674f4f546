"""Nodes make files and upload them, each through one container that travelled without its secret.

Needs an account, and a key, SAS or connection string, in the environment.
"""

import secrets

from azpool import delete_pool, init_pool, pool_lapply
from azpool.storage import Container

container = Container(f"az://example-{secrets.token_hex(4)}")
container.create()

init_pool(3)


def make(number):
    name = f"part-{number}.txt"
    with open(name, "w", encoding="utf-8") as file:
        file.write("\n".join(str(number * n) for n in range(100)))
    return container.upload(name, f"parts/{name}").size_bytes


sizes = pool_lapply(range(12), make)
print(f"{len(sizes)} files, {sum(sizes):,} bytes")
assert len(list(container.list("parts/"))) == 12
container.remove()
delete_pool()
