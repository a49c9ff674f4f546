"""Bearer tokens and HTTPS, on the real emulator: it reads a token's claims, not its signature."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from azure.core.credentials import AccessToken

from azpool import Pool
from azpool.errors import AccessDenied, ConnectionFailed
from azpool.identity import share
from azpool.storage import Container
from azpool.storage._http import ClientOptions
from azpool.storage._stores import close_stores
from azpool.testing.azurite import Azurite

pytestmark = pytest.mark.may_leave("processes", "threads", "fds", "files")


def jwt(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.{part('unsigned')}"


class Tokens:
    """A credential as azure-identity's are: an object with `get_token`."""

    def __init__(self, audience: str = "https://storage.azure.com") -> None:
        self._audience = audience
        self.calls = 0

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        assert scopes == ("https://storage.azure.com/.default",)
        self.calls += 1
        now = int(time.time())
        claims = {
            "aud": self._audience,
            "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + 3600,
        }
        return AccessToken(jwt(claims), now + 3600)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = ca.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    return ca, folder


@pytest.fixture(scope="module")
def secure(
    authority: tuple[trustme.CA, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Azurite]:
    folder = authority[1]
    with Azurite(
        tmp_path_factory.mktemp("azurite"),
        certificate=(folder / "cert.pem", folder / "key.pem"),
        oauth=True,
    ) as service:
        yield service
    close_stores()


def test_a_credential_moves_files_over_https_on_a_pool(
    secure: Azurite, authority: tuple[trustme.CA, Path], tmp_path: Path
) -> None:
    trusted = ClientOptions(ca_file=str(authority[1] / "ca.pem"))
    credential = Tokens()
    container = Container(f"{secure.blob_url}/tokens", credential=credential, options=trusted)
    container.create()
    (tmp_path / "in").mkdir()
    for n in range(20):
        (tmp_path / "in" / f"{n}.txt").write_text(str(n) * 100)
    with Pool(2) as pool:
        assert pool.call(container.exists) == [True, True]
        container.upload_many(f"{tmp_path}/in/", pool=pool).raise_for_failures()
        container.download_many("/", str(tmp_path / "out"), pool=pool).raise_for_failures()
    assert credential.calls == 1
    back = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert back == {path.name: path.read_text() for path in (tmp_path / "in").iterdir()}


def test_clients_of_the_azure_sdk_take_the_handle_on_a_node(
    secure: Azurite, authority: tuple[trustme.CA, Path]
) -> None:
    credential = Tokens()
    shared, url, ca_file = share(credential), secure.blob_url, str(authority[1] / "ca.pem")

    def upload(n: int) -> bytes:
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient(url, credential=shared, connection_verify=ca_file) as client:
            client.get_blob_client("tokens", f"sdk-{n}").upload_blob(b"%d" % n, overwrite=True)
            return client.get_blob_client("tokens", f"sdk-{n}").download_blob().readall()

    with Pool(2) as pool:
        assert list(pool.map(upload, range(6))) == [b"%d" % n for n in range(6)]
    assert credential.calls == 1


def test_a_token_for_another_service_is_refused(
    secure: Azurite, authority: tuple[trustme.CA, Path]
) -> None:
    trusted = ClientOptions(ca_file=str(authority[1] / "ca.pem"))
    stranger = Tokens("https://graph.microsoft.com")
    container = Container(f"{secure.blob_url}/tokens", credential=stranger, options=trusted)
    with pytest.raises(AccessDenied) as caught:
        container.exists()
    assert "eyJ" not in str(caught.value)


def test_a_certificate_of_an_unknown_authority_is_refused(secure: Azurite) -> None:
    container = Container(f"{secure.blob_url}/tokens", credential=Tokens())
    with pytest.raises(ConnectionFailed, match="certificate"):
        container.exists()
