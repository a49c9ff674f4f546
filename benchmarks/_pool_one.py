"""One measure of one peer, in a process of its own: `_pool_one.py MEASURE PEER OUT [quick]`.

Workers of some peers import this file again, so it imports nothing by itself.
"""


def main():
    import faulthandler
    import json
    import sys
    from pathlib import Path

    from _pool_measures import MEASURES
    from _pool_peers import make_peers

    faulthandler.enable()
    _, measure, peer, out, *quick = sys.argv
    chosen = make_peers()[peer]
    found = {"failed": "interrupted"}
    try:
        chosen.load()
        found = MEASURES[measure](chosen, bool(quick))
    except Exception as error:
        found = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        raise
    finally:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
