"""Moves files as the users of the SDK and of obstore do: `_transfer_clients.py WHICH JOB`.

JOB is JSON. What was done is told as a line of JSON, with the seconds that it took from the first
look at the folder or the container to the last file: imports are not in them.
"""

import contextlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

PART_BYTES = 8 * 1024**2


class Sdk:
    """azure-storage-blob: one client, threads over the files, or over the parts of few files."""

    def __init__(self, job):
        from azure.storage.blob import ContainerClient

        self.job = job
        self.client = ContainerClient.from_container_url(
            f"{job.url}?{job.sas}", connection_verify=job.ca_file or True
        )
        self.options = {
            "max_concurrency": max(1, job.threads // job.count),
            **({"validate_content": True} if job.md5 else {}),
        }

    def list(self):
        return [blob.name for blob in self.client.list_blobs()]

    def send(self, path, name):
        with path.open("rb") as file:
            self.client.upload_blob(name, file, overwrite=True, **self.options)

    def fetch(self, name, path):
        with path.open("wb") as file:
            self.client.download_blob(name, **self.options).readinto(file)


class Obstore:
    """obstore: threads over the files; big files as parts, up by itself, down by ranges."""

    def __init__(self, job):
        import obstore
        from obstore.store import AzureStore

        self.job = job
        self.obstore = obstore
        account_url, _, container = job.url.rpartition("/")
        options = {"allow_http": True}
        if job.ca_file:
            options["root_certificate"] = Path(job.ca_file).read_bytes()
        self.store = AzureStore(
            container,
            account_name=account_url.rpartition("/")[2],
            sas_key=job.sas,
            endpoint=account_url,
            client_options=options,
        )
        self.parts = ThreadPoolExecutor(job.threads)

    def list(self):
        stream = self.obstore.list(self.store, chunk_size=5000)
        self.sizes = {item["path"]: item["size"] for page in stream for item in page}
        return [*self.sizes]

    def send(self, path, name):
        if path.stat().st_size > PART_BYTES:
            self.obstore.put(self.store, name, path, chunk_size=PART_BYTES)
        else:
            self.obstore.put(self.store, name, path.read_bytes(), use_multipart=False)

    def fetch(self, name, path):
        size = self.sizes[name]
        if size <= PART_BYTES:
            path.write_bytes(self.obstore.get(self.store, name).bytes())
            return
        with path.open("wb") as file:
            starts = range(0, size, PART_BYTES)
            for _ in self.parts.map(lambda start: self.fetch_part(name, file, start, size), starts):
                pass

    def fetch_part(self, name, file, start, size):
        end = min(start + PART_BYTES, size)
        part = self.obstore.get_range(self.store, name, start=start, end=end)
        os.pwrite(file.fileno(), memoryview(part), start)


def main():
    job = SimpleNamespace(**json.loads(sys.argv[2]))
    client = {"sdk": Sdk, "obstore": Obstore}[sys.argv[1]](job)
    local = Path(job.local)
    began = time.perf_counter()
    with ThreadPoolExecutor(job.threads) as executor:
        if job.direction == "up":
            paths = [local] if local.is_file() else [p for p in local.rglob("*") if p.is_file()]
            root = local.parent if local.is_file() else local
            list(executor.map(lambda path: client.send(path, str(path.relative_to(root))), paths))
        else:
            names = client.list()
            for folder in {os.path.dirname(name) for name in names}:
                (local / folder).mkdir(parents=True, exist_ok=True)
            list(executor.map(lambda name: client.fetch(name, local / name), names))
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    with contextlib.suppress(AttributeError):
        client.parts.shutdown()


if __name__ == "__main__":
    main()
