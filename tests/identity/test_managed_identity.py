"""azure-identity's own credentials, real ones, against an endpoint that counts and misbehaves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import AsyncioRequestsTransport
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential
from credentials import claims_of

from azpool import Pool
from azpool.identity import broker, share

pytestmark = pytest.mark.once

SCOPE = "https://storage.azure.com/.default"
CLAIMS = '{"access_token": {"nbf": {"essential": true, "value": "1"}}}'


def managed():
    return ManagedIdentityCredential(retry_total=0)


class Forgetful:
    """A managed identity that says when to refresh, and has no cache of its own.

    For tokens that live for hours azure-identity does say it; its cache would let no refresh
    through within 30 s of another.
    """

    def __init__(self):
        self.failed = 0

    def get_token_info(self, *scopes, options):
        try:
            with managed() as credential:
                info = credential.get_token_info(*scopes, options=options)
                info.refresh_on = int(time.time()) + 1
                return info
        except Exception:
            self.failed += 1
            raise


def number_of(token):
    return int(claims_of(token.token)["jti"])


def calls(shared, count):
    return {number_of(shared.get_token(SCOPE)) for _ in range(count)}


def keep_asking(shared, seconds, tokens=1):
    """Ask all the time until so many came, and tell how often it failed and which tokens came."""
    failed, came, began_at = [], set(), time.time()
    while time.time() < began_at + seconds or (len(came) < tokens and time.time() < began_at + 40):
        began = time.time()
        try:
            token = shared.get_token(SCOPE)
        except Exception as error:
            failed.append((began, error))
        else:
            # A new one may have ended where the master was held up on its way.
            if token.expires_on <= began and number_of(token) in came:
                failed.append((began, "given a token that had ended"))
            came.add(number_of(token))
        time.sleep(0.005)
    return failed, came


def wait_for_another(shared, number):
    while number_of(shared.get_token(SCOPE)) == number:
        time.sleep(0.01)


@pytest.mark.parametrize("endpoint", ["metadata service", "app service"], indirect=True)
@pytest.mark.parametrize("make", [ManagedIdentityCredential, DefaultAzureCredential])
def test_ten_nodes_and_ten_thousand_calls_make_one_request(endpoint, make):
    shared = share(make())
    with Pool(10) as pool:
        assert pool.call(calls, shared, 1000) == [{1}] * 10
    assert [request.resource for request in endpoint.requests] == ["https://storage.azure.com"]


def test_an_async_managed_identity_makes_one_request(endpoint):
    shared = share(AsyncManagedIdentityCredential(transport=AsyncioRequestsTransport()))
    with Pool(2) as pool:
        assert pool.call(calls, shared, 10) == [{1}] * 2
    assert len(endpoint.requests) == 1


def test_short_lived_tokens_are_renewed_in_time_whatever_the_number_of_nodes(
    endpoint,
):
    endpoint.life_seconds = 3
    shared = share(managed())
    with Pool(10) as pool:
        began = time.time()
        told = pool.call(keep_asking, shared, 8, 3)
        seconds = time.time() - began
    assert [failed for failed, _ in told] == [[]] * 10
    # A token lives for more than 2 s, as its end is in whole seconds; a fifth of that is left over.
    assert 3 <= len(endpoint.requests) <= seconds / (2 * 0.8) + 2
    assert all(len(came) >= 3 for _, came in told)


@pytest.mark.parametrize("trouble", ["down", "429", "slow"])
def test_nothing_fails_while_a_token_is_valid(endpoint, trouble):
    endpoint.life_seconds = 60
    credential = Forgetful()
    shared = share(credential)
    with Pool(4) as pool:
        assert calls(shared, 1) == {1}
        if trouble == "down":
            endpoint.stop()
        elif trouble == "429":
            endpoint.refuse(429, retry_after_seconds=1)
        else:
            endpoint.delay_seconds = 50
        assert pool.call(calls, shared, 1) == [{1}] * 4
        told, tried = [], False
        while not tried and len(told) < 40:
            told += pool.call(keep_asking, shared, 3)
            tried = credential.failed or shared._registration.working
        endpoint.start()
        endpoint.allow()
        endpoint.hurry()
        assert [failed for failed, _ in told] == [[]] * len(told)
        assert tried
        pool.call(wait_for_another, shared, 1)  # and soon all is well again


def test_without_a_valid_token_all_who_wait_get_one_error(endpoint):
    endpoint.refuse(429, retry_after_seconds=2)
    shared = share(managed())

    def fail():
        try:
            shared.get_token(SCOPE)
        except ClientAuthenticationError as error:
            return type(error).__name__, str(error)
        return "no error"

    with Pool(4) as pool:
        # Until all four wait, the answer does.
        endpoint.delay_seconds = 50
        futures = [pool.submit_to(n, fail) for n in range(4)]
        while sum(map(len, broker._broker._waiting.values())) < 4:
            time.sleep(0.005)
        endpoint.hurry()
        told = [future.result() for future in futures]
    assert len(set(told)) == 1 and told[0] != "no error"
    assert len(endpoint.requests) == 1


def test_a_challenge_reaches_every_node_and_makes_one_sign_in(endpoint):
    shared = share(managed())

    def use():
        """Do as a client does that is refused with the first token."""
        token = shared.get_token(SCOPE)
        if number_of(token) == 1:
            token = shared.get_token(SCOPE, claims=CLAIMS)
        return number_of(token), number_of(shared.get_token(SCOPE))

    with Pool(10) as pool:
        assert pool.call(calls, shared, 1) == [{1}] * 10
        assert pool.call(use) == [(2, 2)] * 10
    assert len(endpoint.requests) == 2


def test_a_token_replaced_by_a_challenge_is_replaced_where_nobody_was_challenged(
    endpoint,
):
    shared = share(managed())
    shared._registration.source.lease_seconds = 0.05

    with Pool(4) as pool:
        assert pool.call(calls, shared, 1) == [{1}] * 4
        challenged = pool.submit_to(0, lambda: shared.get_token(SCOPE, claims=CLAIMS))
        assert number_of(challenged.result()) == 2
        pool.call(wait_for_another, shared, 1)
    assert len(endpoint.requests) == 2


def test_nobody_waits_for_a_refresh(endpoint):
    shared = share(Forgetful())
    with Pool(2) as pool:
        assert calls(shared, 1) == {1}
        endpoint.delay_seconds = 50
        assert all(failed == [] for failed, _ in pool.call(keep_asking, shared, 3))
        assert pool.call(calls, shared, 1) == [{1}] * 2
        assert not broker._broker._waiting
        endpoint.stop()  # and lets go of whom it holds
