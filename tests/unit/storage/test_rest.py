"""Requests and answers as pure functions, and the store against a server that lies."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from scripted_server import scripted

from azpool.errors import (
    AccessDenied,
    BadResponse,
    Conflict,
    ConnectionFailed,
    IntegrityError,
    NameRefused,
    NotFound,
    ServerError,
    StorageError,
    Throttled,
    UsageError,
)
from azpool.identity import share
from azpool.identity.secret import Secret
from azpool.storage import _answers
from azpool.storage._http import Answer, ClientOptions
from azpool.storage._requests import Builder, block_list_body, encode_name, encode_query
from azpool.storage._rest import open_store
from azpool.storage._signing import Anonymous, Bearer, Sas
from azpool.storage.options import TransferOptions
from azpool.storage.store import Prefix, Properties

BUILD = Builder("", "box")
TRICKY = [
    "a//b",
    "%",
    "%2E%2E",
    "#",
    "?",
    "a b",
    "ü/€/😀",
    "a.",
    "a/.../b",
    "..a",
    "a&b=c+d'\"<>",
    "~",
]


@pytest.mark.parametrize("name", TRICKY)
def test_names_travel_exactly(name):
    path = BUILD.head(name).path
    assert unquote(path) == f"/box/{name}"
    assert not set(path) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%/"
    )


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
def test_any_name_is_refused_or_comes_back(name):
    try:
        encoded = encode_name(name)
    except NameRefused:
        assert {"\\", ".", ".."} & ({*name} | {*name.split("/")})
    else:
        assert unquote(encoded) == name
        assert encoded.isascii() and not {*encoded} & {*" ?#"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b", "a/./b", "../a", "a/..", "a\\b", "a\nb", "a\x7fb", "a" * 1025]
)
def test_names_that_do_not_survive_are_refused_before_a_url_is_built(name):
    with pytest.raises(NameRefused):
        BUILD.get(name, 0, None, None)


@pytest.mark.parametrize("name", ["ab", "Box", "a--b", "-ab", "ab-", "a_b", "a/b", "a" * 64, ".."])
def test_container_names_are_checked(name):
    with pytest.raises(NameRefused):
        Builder("", name)


@pytest.mark.parametrize("name", ["abc", "a-b-c", "123", "$root", "$web", "$logs", "a" * 63])
def test_container_names_of_azure_pass(name):
    assert Builder("/dev", name).head("x").path == f"/dev/{name}/x"


@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1), st.text(st.characters(exclude_categories=("Cs",)))),
        max_size=4,
    )
)
def test_queries_come_back(pairs):
    text = encode_query(tuple(pairs))
    back = [part.partition("=") for part in text.split("&")] if pairs else []
    assert [(name, unquote(value)) for name, _, value in back] == pairs


def test_every_write_says_its_length():
    meta = {"content_type": None, "metadata": None, "overwrite": True}
    for request in (
        BUILD.put("x", 0, **meta),
        BUILD.commit("x", 9, **meta),
        BUILD.stage("x", "i", 4),
    ):
        assert request.headers["Content-Length"].isdigit()
    assert BUILD.create_container().headers["Content-Length"] == "0"


def test_conditional_writes_and_deletes_are_not_repeatable():
    meta = {"content_type": None, "metadata": None}
    assert BUILD.put("x", 0, **meta, overwrite=True).repeatable
    assert not BUILD.put("x", 0, **meta, overwrite=False).repeatable
    assert not BUILD.commit("x", 0, **meta, overwrite=False).repeatable
    assert not BUILD.delete("x").repeatable
    assert not BUILD.create_container().repeatable


@pytest.mark.parametrize(
    "meta", [{"a-b": "x"}, {"1a": "x"}, {"a": "x\r\nb"}, {"a": "ü"}, {"a": " x"}]
)
def test_metadata_that_can_not_be_a_header_is_refused(meta):
    with pytest.raises(UsageError):
        BUILD.put("x", 0, content_type=None, metadata=meta, overwrite=True)


def test_what_is_stored_with_a_blob_is_said_in_headers():
    properties = Properties(
        cache_control="no-cache",
        content_encoding="gzip",
        content_language="de",
        content_disposition="inline",
        tags={"a b": "c/d=e", "x": ""},
        tier="Cold",
    )
    md5 = hashlib.md5(b"").digest()
    common = {
        "x-ms-blob-cache-control": "no-cache",
        "x-ms-blob-content-encoding": "gzip",
        "x-ms-blob-content-language": "de",
        "x-ms-blob-content-disposition": "inline",
        "x-ms-access-tier": "Cold",
        "x-ms-tags": "a%20b=c%2Fd%3De&x=",
        "x-ms-meta-k": "v",
    }
    for request, own in (
        (
            BUILD.put("x", 0, metadata={"k": "v"}, properties=properties, md5=md5),
            "Content-MD5",
        ),
        (
            BUILD.commit("x", 9, metadata={"k": "v"}, properties=properties, md5=md5),
            "x-ms-blob-content-md5",
        ),
    ):
        assert common.items() <= request.headers.items()
        assert request.headers[own] == "1B2M2Y8AsgTpgAmY7PhCfg=="
    # A commit's own MD5 would be the block list's.
    assert "Content-MD5" not in request.headers
    assert BUILD.stage("x", "i", 0, md5=md5).headers["Content-MD5"] == "1B2M2Y8AsgTpgAmY7PhCfg=="


def test_one_calls_properties_are_not_anothers():
    hot, cold = Properties(tier="Hot"), Properties(tier="Cold")
    for properties in (hot, cold, hot):
        headers = BUILD.put("x", 0, properties=properties).headers
        assert headers["x-ms-access-tier"] == properties.tier
    assert "x-ms-access-tier" not in BUILD.put("x", 0).headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"cache_control": "a\r\nb"},
        {"content_disposition": "filename=ü"},
        {"content_encoding": ""},
        {"content_language": " de"},
        {"tier": "cool"},
        {"tags": {"": "x"}},
        {"tags": {"a": "x&y"}},
        {"tags": {"a": "x" * 257}},
        {"tags": {str(n): "" for n in range(11)}},
    ],
)
def test_properties_that_the_service_refuses_are_refused_before(wrong):
    with pytest.raises(UsageError, match="cannot use"):
        Properties(**wrong)
    with pytest.raises(UsageError, match="cannot use"):
        TransferOptions(**wrong)


def test_an_md5_that_does_not_fit_is_a_matter_of_integrity():
    answer = Answer(400, {"x-ms-error-code": "Md5Mismatch", "x-ms-request-id": "r"}, b"")
    error = _answers.error_of(answer, verb="upload", thing="'x'", path="x")
    assert isinstance(error, IntegrityError)
    assert error.retryable
    assert "changed on the way (400 Md5Mismatch); try again" in str(error)


def test_ranges():
    assert BUILD.get("x", 0, None, None).headers == {}
    assert BUILD.get("x", 5, None, None).headers == {"x-ms-range": "bytes=5-"}
    assert BUILD.get("x", 5, 10, '"e"').headers == {"x-ms-range": "bytes=5-14", "If-Match": '"e"'}
    with pytest.raises(UsageError):
        BUILD.get("x", -1, None, None)


def test_block_ids():
    assert base64.b64encode(b"00001") in block_list_body(["00001"])
    for wrong in ("", "x" * 65):
        with pytest.raises(UsageError):
            BUILD.stage("x", wrong, 1)


def listing(items: str, marker: str = "") -> bytes:
    return (
        '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="x" '
        f'ContainerName="c"><Blobs>{items}</Blobs><NextMarker>{marker}</NextMarker>'
        "</EnumerationResults>"
    ).encode()


def test_a_listing_is_read_with_all_its_facts():
    body = listing(
        "<BlobPrefix><Name>a/</Name></BlobPrefix>"
        "<Blob><Name>b &amp; c</Name><Properties><Last-Modified>Mon, 27 Jul 2009 12:28:53 GMT"
        "</Last-Modified><Etag>0x8D</Etag><Content-Length>5</Content-Length><Content-Type>t/x"
        "</Content-Type><Content-MD5>XUFAKrxLKna5cZ2REBfFkg==</Content-MD5></Properties>"
        "<Metadata><Key>v</Key><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>"
        '<Blob><Name Encoded="true">bad%EF%BF%BEname</Name><Properties><Content-Length>0'
        "</Content-Length></Properties></Blob>",
        "next!",
    )
    (prefix, blob, odd), marker = _answers.parse_blobs(body)
    assert prefix == Prefix("a/") and marker == "next!"
    assert (blob.name, blob.size_bytes, blob.etag) == ("b & c", 5, '"0x8D"')
    assert blob.last_modified == datetime(2009, 7, 27, 12, 28, 53, tzinfo=UTC)
    assert blob.md5.hex() == "5d41402abc4b2a76b9719d911017c592"
    assert blob.metadata == {"Key": "v", "hdi_isfolder": "true"} and blob.is_directory_marker
    assert odd.name == "bad\ufffename"


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), max_size=5))
def test_listed_names_come_back(names):
    names = [name.replace("\ufffe", "").replace("\uffff", "") or "x" for name in names]
    body = listing(
        "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>1</Content-Length>"
            "</Properties></Blob>"
            for name in names
        )
    )
    assert [item.name for item in _answers.parse_blobs(body)[0]] == names


_LENGTH = "<Content-Length>7</Content-Length>"
_FACTS = st.lists(
    st.sampled_from(
        [
            "<Last-Modified>Mon, 27 Jul 2009 12:28:53 GMT</Last-Modified>",
            "<Content-MD5>XUFAKrxLKna5cZ2REBfFkg==</Content-MD5>",
            "<Content-Type>a/b</Content-Type>",
            "<Content-Encoding />",
            "<Etag>0x8D</Etag>",
            "<ResourceType>directory</ResourceType>",
        ]
    ),
    unique=True,
)
_AFTER = st.sampled_from(
    [
        "",
        "<Metadata />",
        "<Metadata/><OrMetadata />",
        "<Metadata><mtime>1</mtime><Empty /><hdi_isfolder>true</hdi_isfolder></Metadata>",
        "<Metadata><a>/></a></Metadata>",
        "<Metadata><a><b>1</b></a></Metadata>",
        "<Tags><TagSet /></Tags>",
        "<!-- </Blob> -->",
    ]
)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b/c d", "e &lt; f", "ü", " "]), _FACTS, _AFTER)),
    st.sampled_from(["", "<BlobPrefix><Name>p/</Name></BlobPrefix>"]),
)
def test_usual_listings_are_read_as_all_others_are(blobs, more):
    body = listing(
        "".join(
            f"<Blob><Name>{name}</Name><Properties>{''.join(facts)}{_LENGTH}"
            f"<BlobType>BlockBlob</BlobType></Properties>{after}</Blob>"
            for name, facts, after in blobs
        )
        + more
    )
    assert _answers.parse_blobs(body) == _answers._any_blobs(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b"not xml",
        listing("")[:-20],
        b'<!DOCTYPE x [<!ENTITY a "b">]><EnumerationResults><Blobs/></EnumerationResults>',
        "<!DOCTYPE x []><EnumerationResults><Blobs/></EnumerationResults>".encode("utf-16"),
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x []><EnumerationResults><Blobs/>'
        "</EnumerationResults>".encode("utf-16"),
        listing("<Blob><Name></Name></Blob>"),
        listing("<Blob><Name>x</Name></Blob>"),
        listing("<Blob><Name>&xxe;</Name></Blob>"),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_listing_is_a_bad_response(body):
    with pytest.raises(BadResponse):
        _answers.parse_blobs(body)


@given(st.binary(max_size=200))
def test_any_bytes_for_xml_end_in_a_bad_response(body):
    for parse in (_answers.parse_blobs, _answers.parse_containers, _answers.parse_block_list):
        with pytest.raises(BadResponse):
            parse(body)


def test_block_lists_keep_what_is_ours():
    ours = base64.b64encode(b"0001").decode()
    body = (
        f"<BlockList><CommittedBlocks/><UncommittedBlocks><Block><Name>{ours}</Name><Size>8</Size>"
        "</Block><Block><Name>/w==</Name><Size>8</Size></Block></UncommittedBlocks></BlockList>"
    )
    assert _answers.parse_block_list(body.encode()) == {"0001": 8}


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (401, "NoAuthenticationInformation", AccessDenied, False),
        (403, "AuthenticationFailed", AccessDenied, False),
        (404, "BlobNotFound", NotFound, False),
        (409, "BlobAlreadyExists", Conflict, False),
        (409, "ContainerBeingDeleted", Conflict, True),
        (412, "ConditionNotMet", Conflict, False),
        (429, None, Throttled, True),
        (503, "ServerBusy", Throttled, True),
        (500, "InternalError", ServerError, True),
        (502, None, ServerError, True),
        (400, "InvalidHeaderValue", StorageError, False),
        (408, None, StorageError, True),
        (400, None, BadResponse, False),
        (301, None, BadResponse, False),
        (200, None, BadResponse, False),
    ],
)
def test_statuses_become_errors_with_their_facts(status, code, kind, retryable):
    headers = {"x-ms-request-id": "id1", "retry-after": "7"}
    body = f"<Error><Code>{code}</Code><Message>Said so.\nRequestId:x</Message></Error>"
    answer = Answer(status, headers, body.encode() if code else b"")
    error = _answers.error_of(answer, verb="upload", thing="'x'", path="x")
    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, "id1")
    assert error.retryable is retryable
    assert str(error).startswith("cannot upload 'x': ") and str(error).count(";") == 1
    if kind is Throttled:
        assert error.retry_after_seconds == 7


def fetch(raw: bytes, action, auth=None):
    with scripted(lambda c: (server.seen.append(c.read()), c.answer(raw))) as server:
        store = open_store(
            server.url, "box", auth or Anonymous(), ClientOptions(read_timeout_seconds=20)
        )
        try:
            return action(store)
        finally:
            store.close()


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", 4),  # the range ignored
        (b"HTTP/1.1 206 P\r\nContent-Length: 4\r\n\r\n1234", 4),  # no Content-Range
        (b"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 9-12/20\r\n\r\n1234", 4),
        (b"HTTP/1.1 206 P\r\nContent-Length: 2\r\nContent-Range: bytes 5-6/20\r\n\r\n12", 4),
        (b"HTTP/1.1 206 P\r\nContent-Length: 2\r\nContent-Range: bytes 5-8/20\r\n\r\n12", 4),
        (b"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 5-8/20\r\n\r\n1234", None),
    ],
)
def test_a_range_that_was_not_asked_for_is_an_integrity_error(raw, length):
    with pytest.raises(IntegrityError):
        fetch(raw, lambda store: store.get("x", offset=5, length=length))


def test_a_ranges_md5_is_not_taken_for_the_blobs():
    raw = (
        b"HTTP/1.1 206 P\r\nContent-Length: 2\r\nContent-Range: bytes 5-6/7\r\n"
        b"Content-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\n\r\n12"
    )
    info, data = fetch(raw, lambda store: store.get("x", offset=5, length=9))
    assert (data, info.size_bytes, info.md5) == (b"12", 7, None)


def test_a_sas_is_in_no_error_and_in_no_repr():
    sas = Sas(Secret("?sv=1&sig=TOPSECRET%3D"))
    for raw in (b"", b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b"garbage\r\n\r\n"):
        with pytest.raises(StorageError) as failed:
            fetch(raw, lambda store: store.get("x"), sas)
        shown = [str(failed.value), repr(failed.value), repr(failed.value.__dict__)]
        cause = failed.value.__cause__
        shown += [str(cause), repr(cause)]
        assert not any("TOPSECRET" in text for text in shown)


class Tokens:
    """A credential whose tokens are numbered; `error` is raised in their place."""

    def __init__(self, error=None):
        self.asked = []
        self.error = error

    def get_token(self, *scopes, **options):
        self.asked.append(options)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(token=f"token-{len(self.asked)}", expires_on=1 << 40)


def challenge(claims):
    text = base64.urlsafe_b64encode(claims.encode()).rstrip(b"=").decode()
    return (
        'Bearer authorization_uri="https://login.windows.net/x", error="insufficient_claims", '
        f'claims="{text}"'
    )


def test_a_refused_token_is_replaced_and_the_request_sent_again_once():
    refusals = iter((True, False, True, True))
    claims = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'

    def script(connection):
        while request := connection.read():
            server.seen.append(request)
            if next(refusals):
                header = f"WWW-Authenticate: {challenge(claims)}\r\n".encode()
                connection.answer(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n", header, b"\r\n")
            else:
                connection.answer(b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n")

    credential = Tokens()
    with scripted(script) as server:
        store = open_store(server.url, "box", Bearer(share(credential)))
        store.put("x", b"body")
        assert [b"Bearer token-1" in server.seen[0], b"Bearer token-2" in server.seen[1]] == [
            True
        ] * 2
        assert all(request.endswith(b"body") for request in server.seen)
        with pytest.raises(AccessDenied):  # the second token was refused too: equal challenges
            store.put("y", b"body")
        store.close()
    assert len(server.seen) == 4
    assert credential.asked == [{}, {"claims": claims}]


@pytest.mark.parametrize("header", ["", "Bearer", 'Bearer claims="%"', 'Basic claims="eyJ9"'])
def test_a_refusal_without_claims_is_a_refusal(header):
    raw = f"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: {header}\r\n\r\n".encode()
    credential = Tokens()
    with pytest.raises(AccessDenied):
        fetch(raw, lambda store: store.get("x"), Bearer(share(credential)))
    assert credential.asked == [{}]


def test_a_sign_in_that_fails_is_access_denied_and_names_what_was_wanted():
    credential = Tokens(ValueError("no identity; sig=SECRET"))
    with pytest.raises(
        AccessDenied, match=r"cannot download 'x': no token: ValueError: no id"
    ) as e:
        fetch(b"", lambda store: store.get("x"), Bearer(share(credential)))
    assert "SECRET" not in str(e.value)


def test_a_broken_connection_names_the_blob_and_the_server():
    with pytest.raises(
        ConnectionFailed, match=r"cannot upload 'd/x': could not reach http"
    ) as failed:
        fetch(b"", lambda store: store.put("d/x", b"1"))
    assert failed.value.path == "d/x" and failed.value.retryable


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "x", "http://u:p@x", "http://x?sig=1", "http://x:abc", "http://[::1"],
)
def test_addresses_that_can_not_be_right_are_refused(url):
    with pytest.raises(UsageError):
        open_store(url, "box", Anonymous())


def test_no_sdk_and_no_http_library_is_imported():
    code = (
        "import sys; import azpool.storage._rest as r\n"
        "from azpool.storage._signing import SharedKey; from azpool.identity.secret import Secret\n"
        "s = r.open_store('http://127.0.0.1:1', 'box', SharedKey('a', Secret('a2V5')))\n"
        "try: s.put('x', b'1')\n"
        "except r.ConnectionFailed: pass\n"
        "bad = {'azure', 'requests', 'urllib3', 'httpx', 'http', 'email', 'ssl_', 'xml'}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
