"""One measure of one peer, in a process of its own: `_transfer_one.py MEASURE PEER OUT [quick]`."""

import json
import sys
from pathlib import Path

import _processes as processes
from _transfer_measures import MEASURES
from _transfer_peers import NotThere, make_peers


def main():
    _, measure, peer, out, *quick = sys.argv
    processes.adopt_orphans()
    found = {"failed": "interrupted"}
    try:
        found = MEASURES[measure](make_peers()[peer], bool(quick))
    except NotThere as reason:
        found = {"failed": str(reason)}
    except Exception as error:
        found = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
        raise
    finally:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
