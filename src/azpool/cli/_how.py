"""The options of `azpool cp` that say how files are moved, and what is stored with them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from azpool.cli import _values as values
from azpool.errors import UsageError

MODES = ("always", "never", "if-newer", "if-different", "fail")
TIERS = ("Hot", "Cool", "Cold", "Archive")

_PACE = "Pace"
_STORED = "Stored with each upload"


def _stored(name: str, metavar: str, about: str) -> Any:
    return typer.Option(name, metavar=metavar, help=about, rich_help_panel=_STORED)


OverwriteOption = Annotated[
    str | None,
    typer.Option(
        "--overwrite",
        metavar="MODE",
        help="What becomes of targets that exist: always (replace them: the default), never "
        "(skip them), if-newer or if-different (else skip them), fail (nothing moves).",
    ),
]
NoOverwriteOption = Annotated[
    bool, typer.Option("--no-overwrite", help="The same as --overwrite never.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Move nothing: say what would be moved, skipped and refused, and why."
    ),
]
VerifyOption = Annotated[
    str | None,
    typer.Option(
        "--verify",
        metavar="md5",
        help="Send an MD5 with each part, store that of each file, compare downloads with it.",
    ),
]
MaxFailuresOption = Annotated[
    str | None,
    typer.Option("--max-failures", metavar="N", help="Stop when so many files have failed."),
]
PreserveTimesOption = Annotated[
    bool,
    typer.Option(
        "--preserve-times", help="Give downloads the time that their upload had, else the blob's."
    ),
]
EncodeNamesOption = Annotated[
    bool,
    typer.Option(
        "--encode-names",
        help="Percent-encode what a blob's name may not hold, and decode it on the way down.",
    ),
]
NodesOption = Annotated[
    str | None,
    typer.Option(
        "--nodes",
        "-n",
        metavar="N",
        help="Size of the pool. Default: two a core, at most 10; none for a few small files.",
        rich_help_panel=_PACE,
    ),
]
MaxConcurrencyOption = Annotated[
    str | None,
    typer.Option(
        "--max-concurrency",
        metavar="N",
        help="Requests in flight at most. Default: as many as make it faster.",
        rich_help_panel=_PACE,
    ),
]
CapRateOption = Annotated[
    str | None,
    typer.Option(
        "--cap-rate",
        metavar="RATE",
        help="Bytes a second at most, of all nodes: 50MiB, 400Mbit.",
        rich_help_panel=_PACE,
    ),
]
CapRequestsOption = Annotated[
    str | None,
    typer.Option(
        "--cap-requests",
        metavar="N",
        help="Requests a second at most, of all nodes.",
        rich_help_panel=_PACE,
    ),
]
ContentTypeOption = Annotated[
    str | None, _stored("--content-type", "TYPE", "Default: guessed by each name.")
]
CacheControlOption = Annotated[
    str | None, _stored("--cache-control", "TEXT", "As in HTTP: 'max-age=3600'.")
]
ContentEncodingOption = Annotated[
    str | None, _stored("--content-encoding", "TEXT", "As in HTTP: gzip.")
]
ContentLanguageOption = Annotated[
    str | None, _stored("--content-language", "TEXT", "As in HTTP: de.")
]
ContentDispositionOption = Annotated[
    str | None, _stored("--content-disposition", "TEXT", "As in HTTP: attachment.")
]
MetadataOption = Annotated[
    list[str] | None, _stored("--metadata", "NAME=VALUE", "May be given several times.")
]
TagOption = Annotated[
    list[str] | None,
    _stored("--tag", "NAME=VALUE", "A blob index tag; may be given several times."),
]
TierOption = Annotated[
    str | None, _stored("--tier", "TIER", "Hot, Cool, Cold or Archive. Default: the account's.")
]


def pool_size(text: str | None) -> int | None:
    """Answer the pool's size, or None: as the engine chooses.

    Raises:
        UsageError: no pool has this size.
    """
    if text is None:
        return None
    try:
        size = int(text)
    except ValueError:
        raise UsageError(
            f"cannot make a pool of {text!r} nodes: not a whole number; give --nodes 10"
        ) from None
    if size < 1:
        raise UsageError(f"cannot make a pool of {size} nodes: it has at least 1; give --nodes 10")
    return size


def overwrite_mode(mode: str | None, *, no_overwrite: bool) -> str:
    """Answer what becomes of targets that exist.

    Raises:
        UsageError: no such mode, or two that differ.
    """
    chosen = values.one_of("--overwrite", mode, MODES)
    if no_overwrite and chosen not in {None, "never"}:
        raise UsageError(
            f"cannot use --overwrite {chosen} with --no-overwrite: they differ; give one of them"
        )
    return "never" if no_overwrite else chosen or "always"


def keywords(verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """Make of the options' texts what `azpool.storage` takes, without what is unset.

    Args:
        verb: upload or download.
        given: the options by their names there, as texts.

    Raises:
        UsageError: a value can't be meant, or is for uploads and this is none.
    """
    read = {
        "verify": values.one_of("--verify", given["verify"], ("md5",)),
        "max_failures": values.whole_number("--max-failures", given["max_failures"], 100),
        "max_concurrency": values.whole_number("--max-concurrency", given["max_concurrency"], 64),
        "max_bytes_per_second": values.rate("--cap-rate", given["max_bytes_per_second"]),
        "max_requests_per_second": values.per_second(
            "--cap-requests", given["max_requests_per_second"], 500
        ),
        "preserve_times": given["preserve_times"] or None,
        "encode_names": given["encode_names"] or None,
    }
    stored = {
        name: given[name]
        for name in (
            "content_type",
            "cache_control",
            "content_encoding",
            "content_language",
            "content_disposition",
        )
    }
    stored["metadata"] = values.pairs("--metadata", given["metadata"]) or None
    stored["tags"] = values.pairs("--tag", given["tags"]) or None
    stored["tier"] = values.one_of("--tier", given["tier"], TIERS)
    if verb != "upload":
        for name, value in stored.items():
            if value is not None:
                option = "--tag" if name == "tags" else f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"cannot use {option} for a download: it is stored with uploads; leave it out"
                )
    found = read | stored
    return {name: value for name, value in found.items() if value is not None}
