"""Profile azpool while it moves small files: `_transfer_profile.py up|down LOCAL URL SAS`.

cProfile in the master's thread and in the thread of one node that runs the jobs: with one thread
a node, as against a server on this machine, that is where the files are moved. It makes
everything slower, calls the more so: read it for shares.
"""

import cProfile
import pstats
import sys
import time

from azpool import ensure_pool
from azpool.storage import Container

SHOWN = 25


def begin():
    import cProfile

    import azpool

    azpool.benchmark_profile = cProfile.Profile()
    azpool.benchmark_profile.enable()


def end():
    import io
    import pstats

    import azpool

    azpool.benchmark_profile.disable()
    out = io.StringIO()
    pstats.Stats(azpool.benchmark_profile, stream=out).sort_stats("tottime").print_stats(25)
    return out.getvalue()


def main():
    _, direction, local, url, sas = sys.argv
    container = Container(url, sas=sas)
    pool = ensure_pool(preload=("azpool.storage._batch", "azpool.storage._rest"))
    pool.submit_to(0, begin).result()
    master = cProfile.Profile()
    began = time.perf_counter()
    if direction == "up":
        report = master.runcall(container.upload_many, f"{local}/", "", pool=pool)
    else:
        report = master.runcall(container.download_many, "/", local, pool=pool)
    seconds = time.perf_counter() - began
    report.raise_for_failures()
    print(f"{len(report):,} files in {seconds:.2f} s, profiled\n\n--- master")
    pstats.Stats(master).sort_stats("tottime").print_stats(SHOWN)
    print("--- one of the nodes")
    print(pool.submit_to(0, end).result())


if __name__ == "__main__":
    main()
