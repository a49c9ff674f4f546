"""Signatures: against known vectors and against azure-storage-blob's own signing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.identity import share
from azpool.identity.secret import Secret
from azpool.storage._requests import Builder, encode_query
from azpool.storage._signing import (
    Anonymous,
    Bearer,
    Request,
    Sas,
    SharedKey,
    http_date,
    make_signer,
    string_to_sign,
)

KEY = base64.b64encode(b"k" * 64).decode()
URL = "https://acct.blob.core.windows.net"
NOW = 1_248_698_933.5  # Mon, 27 Jul 2009 12:48:53 GMT
SHARED = SharedKey("acct", Secret(KEY))

word = st.text("abcXYZ019_", min_size=1, max_size=8).filter(lambda s: not s[0].isdigit())
value = st.text("abc XYZ-=/:", max_size=8).map(str.strip)
# Two names that differ in nothing but case are one header.
metadata = st.dictionaries(word, value, max_size=6).filter(
    lambda d: len({k.lower() for k in d}) == len(d)
)


def test_the_date_is_https_own():
    assert http_date(int(NOW)) == "Mon, 27 Jul 2009 12:48:53 GMT"


def test_the_string_to_sign_of_a_small_upload():
    request = Builder("", "box").put(
        "a b.txt", 11, content_type="text/plain", metadata={"m1": "v1"}, overwrite=False
    )
    signed = make_signer(SHARED, URL)(request, NOW)
    text = string_to_sign("acct", request, signed.headers)
    assert text == (
        "PUT\n\n\n11\n\ntext/plain\n\n\n\n*\n\n\n"
        "x-ms-blob-type:BlockBlob\nx-ms-date:Mon, 27 Jul 2009 12:48:53 GMT\nx-ms-meta-m1:v1\n"
        "x-ms-version:2024-11-04\n/acct/box/a%20b.txt"
    )
    mac = hmac.new(b"k" * 64, text.encode(), hashlib.sha256).digest()
    assert signed.headers["Authorization"] == f"SharedKey acct:{base64.b64encode(mac).decode()}"


def requests_to_sign(meta):
    build = Builder("/dev", "box")
    return [
        build.put("dir/ü #?%.bin", 0, content_type=None, metadata=meta, overwrite=True),
        build.put("x", 5, content_type="a/b", metadata=meta, overwrite=False),
        build.stage("x", "block-1", 100),
        build.commit("x", 50, content_type=None, metadata=meta, overwrite=True),
        build.staged("x"),
        build.get("a//b", 5, 10, '"0x8D"'),
        build.list("a/b'c&d=e ü", "/", "2!88!x/+="),
        build.delete("x"),
        build.create_container(),
    ]


@given(metadata)
def test_shared_key_signs_as_the_sdk_does(meta):
    authentication = pytest.importorskip("azure.storage.blob._shared.authentication")
    rest = pytest.importorskip("azure.core.rest")
    policy = authentication.SharedKeyCredentialPolicy("acct", KEY)
    sign = make_signer(SHARED, URL)
    for request in requests_to_sign(meta):
        signed = sign(request, NOW)
        mine = signed.headers.pop("Authorization")
        url = URL + request.path + ("?" + encode_query(request.query) if request.query else "")
        theirs = rest.HttpRequest(request.method, url, headers=signed.headers)
        policy.on_request(
            SimpleNamespace(http_request=theirs, context=SimpleNamespace(transport=None))
        )
        assert theirs.headers["Authorization"] == mine


@pytest.mark.parametrize("token", ["?sv=1&sig=a%2Bb", "sv=1&sig=a%2Bb", "&sv=1&sig=a%2Bb\n"])
def test_a_sas_goes_as_it_is(token):
    signed = make_signer(Sas(Secret(token)), URL)(Request("GET", "/c", (), {}), NOW)
    assert signed.query == "sv=1&sig=a%2Bb"
    assert "Authorization" not in signed.headers


@pytest.mark.parametrize(
    "auth",
    [
        SharedKey("acct", Secret("not base64!")),
        SharedKey("acct", Secret("")),
        Sas(Secret("sv=1&se=2")),
        Sas(Secret("sv=1&sig=SECRET x")),
    ],
)
def test_credentials_that_can_not_be_right_are_refused_without_being_shown(auth):
    with pytest.raises(UsageError) as refused:
        make_signer(auth, URL)
    assert "SECRET" not in str(refused.value)
    assert "not base64!" not in str(refused.value)
    assert "***" in repr(auth)


class Credential:
    def __init__(self):
        self.asked = []

    def get_token(self, *scopes, **options):
        assert scopes == ("https://storage.azure.com/.default",)
        self.asked.append(options)
        return SimpleNamespace(token=f"t{len(self.asked)}", expires_on=int(time.time()) + 3600)


def test_a_token_is_fetched_once_for_all_threads():
    credential = Credential()
    sign = make_signer(Bearer(share(credential)), URL)
    request = Request("GET", "/c", (), {})
    threads = [threading.Thread(target=sign, args=(request, NOW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert credential.asked == [{}]
    assert sign(request, NOW).headers["Authorization"] == "Bearer t1"


def test_a_refused_token_is_replaced():
    credential = Credential()
    sign = make_signer(Bearer(share(credential)), URL)
    request = Request("GET", "/c", (), {})
    assert sign(request, NOW).headers["Authorization"] == "Bearer t1"
    sign.challenged("claims")
    assert sign(request, NOW).headers["Authorization"] == "Bearer t2"
    assert credential.asked == [{}, {"claims": "claims"}]


def test_a_token_never_goes_over_plain_http():
    with pytest.raises(UsageError, match="https"):
        make_signer(Bearer(share(Credential())), "http://acct.blob.core.windows.net")
    make_signer(Bearer(share(Credential())), "http://127.0.0.1:10000/devstoreaccount1")


def test_anonymous_requests_carry_no_credentials():
    signed = make_signer(Anonymous(), URL)(Request("GET", "/c", (), {}), NOW)
    assert signed.query == "" and "Authorization" not in signed.headers
