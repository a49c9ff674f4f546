"""A credential's errors arrive with their type and their text, and with nothing secret."""

import copy
import pickle
from types import SimpleNamespace

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import AuthenticationRequiredError, CredentialUnavailableError

from azpool.errors import AccessDenied, RemoteError
from azpool.identity.failures import portable, retry_after_seconds, scrub

JWT = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2ln"


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def response(**headers):
    return SimpleNamespace(
        status_code=429,
        reason="Too Many",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        text=lambda: "{}",
    )


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        (ClientAuthenticationError("denied"), ClientAuthenticationError),
        (CredentialUnavailableError("denied"), CredentialUnavailableError),
        (ClientAuthenticationError("denied", response=response()), ClientAuthenticationError),
        (HttpResponseError("denied"), HttpResponseError),
        # Its first argument is no text: the nearest base whose is.
        (AuthenticationRequiredError(["scope"], "denied"), CredentialUnavailableError),
        (OSError("denied"), OSError),
        (ValueError("denied"), ValueError),
        (AccessDenied("denied", status=403), AccessDenied),
    ],
)
def test_an_error_keeps_its_class_and_its_text(error, cls):
    try:
        raise KeyError("behind it") from ZeroDivisionError()
    except KeyError as behind:
        error.__cause__ = behind
        made = portable(error)
    assert type(made) is cls and "denied" in str(made)
    assert made.__cause__ is None
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is cls and str(again) == str(made)
    assert type(copy.copy(made)) is cls


def test_facts_are_kept_where_they_are_plain():
    assert portable(ClientAuthenticationError("x", response=response())).status_code == 429
    assert portable(AccessDenied("x", status=403)).status == 403


def test_an_error_that_can_not_be_made_again_comes_in_words():
    made = portable(Odd(1, 2))
    assert type(made) is RemoteError
    assert (made.type_name, made.text) == ("Odd", "1 and 2")


@pytest.mark.parametrize(
    "text",
    [
        f"got {JWT} from it",
        f"Authorization: Bearer {JWT}",
        "authorization: bearer 0123456789abcdef-SECRET",
        "https://a.blob.core.windows.net/c?sv=1&sig=SECRET%3D&se=2",
        "client_secret=SECRET&grant_type=x",
        '{"refresh_token": "SECRET", "error": "x"}',
        "{'access_token': 'SECRET'}",
        "AccountName=a;AccountKey=SECRET==;Endpoint=x",
        "X-IDENTITY-HEADER: SECRET",
    ],
)
def test_secrets_are_taken_out_of_texts(text):
    clean = scrub(text)
    assert "SECRET" not in clean and "eyJ" not in clean and "***" in clean
    assert "SECRET" not in str(portable(ClientAuthenticationError(text)))


def test_plain_texts_stay_as_they_are():
    text = "AADSTS700016: Application 'x' was not found in the directory 'y'. Trace ID: 1-2"
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"x_ms_retry_after_ms": "20"}, 0.02),
        ({"Retry_After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50),
        ({"Retry_After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
def test_what_the_server_asks_to_wait_is_read(headers, seconds):
    error = ClientAuthenticationError("x", response=response(**headers))
    assert retry_after_seconds(error, 10) == seconds
    outer = CredentialUnavailableError("x")
    outer.__cause__ = error
    assert retry_after_seconds(outer, 10) == seconds


def test_an_error_without_an_answer_asks_for_nothing():
    assert retry_after_seconds(OSError("x"), 0) is None
