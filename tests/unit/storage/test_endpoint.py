import pickle

import pytest

from azpool.errors import UsageError
from azpool.identity import share
from azpool.identity.secret import Secret
from azpool.storage import Container, Endpoint
from azpool.storage._signing import Anonymous, Bearer, Sas, SharedKey
from azpool.storage.endpoint import EMULATOR_KEY, Given, parse_place, resolve

KEY = "c2VjcmV0LWtleQ=="
SAS = "sv=2024&sig=SECRETSIG"
URL = "https://acct.blob.core.windows.net/data"


class Credential:
    def get_token(self, *scopes, **_):
        raise NotImplementedError


def resolved(url, environ=None, **given):
    return resolve(url, Given(**given), environ=environ or {})


@pytest.mark.parametrize(
    ("url", "account_url", "container", "path"),
    [
        (URL, "https://acct.blob.core.windows.net", "data", ""),
        (URL + "/", "https://acct.blob.core.windows.net", "data", "/"),
        (URL + "/a/b%20c/", "https://acct.blob.core.windows.net", "data", "a/b c/"),
        ("https://acct.blob.core.windows.net", "https://acct.blob.core.windows.net", "", ""),
        (
            "http://127.0.0.1:10000/devstoreaccount1/data/x",
            "http://127.0.0.1:10000/devstoreaccount1",
            "data",
            "x",
        ),
        ("http://localhost:1/dev/data", "http://localhost:1/dev", "data", ""),
        ("http://[::1]:1/dev/data", "http://[::1]:1/dev", "data", ""),
        ("az://data", None, "data", ""),
        ("az://a-b", None, "a-b", ""),
        ("az://$root", None, "$root", ""),
        ("az://data/", None, "data", "/"),
        ("az://data/a%20b?c#d", None, "data", "a%20b?c#d"),
    ],
)
def test_urls(url, account_url, container, path):
    place = parse_place(url)
    assert (place.account_url, place.container, place.path) == (account_url, container, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data",
        "s3://bucket",
        "https://",
        "http://127.0.0.1:10000",
        "az://UPPER",
        "az://a--b",
        "az://ab",
        "az://" + "a-" * 40 + "b",
        "az://-ab",
        "https://user:password@acct.blob.core.windows.net/data",
        URL + "?restype=container",
        None,
        7,
    ],
)
def test_wrong_urls_are_usage_errors_in_the_houses_form(url):
    with pytest.raises(UsageError, match=r"^cannot open .*: .*; .*[^.]$") as got:
        parse_place(url)
    assert "password" not in str(got.value).split(":")[0]


def test_each_way_to_sign_in():
    credential = Credential()
    assert resolved(URL, key=KEY)[0].auth == SharedKey("acct", Secret(KEY))
    assert resolved(URL, sas="?" + SAS)[0].auth == Sas(Secret(SAS))
    assert resolved(URL + "?" + SAS)[0].auth == Sas(Secret(SAS))
    assert resolved(URL, anonymous=True)[0].auth == Anonymous()
    assert resolved(URL, credential=credential)[0].auth == Bearer(share(credential))
    text = f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};EndpointSuffix=x.net"
    recipe, _ = resolved("az://data", connection_string=text)
    assert recipe.account_url == "https://acct.blob.x.net"
    assert recipe.auth == SharedKey("acct", Secret(KEY))


@pytest.mark.parametrize(
    ("environ", "auth"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_KEY": KEY},
            SharedKey("acct", Secret(KEY)),
        ),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ACCOUNT_KEY": KEY},
            SharedKey("acct", Secret(KEY)),
        ),
        ({"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_SAS_TOKEN": SAS}, Sas(Secret(SAS))),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=acct;AccountKey={KEY}"},
            SharedKey("acct", Secret(KEY)),
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature={SAS}"
                )
            },
            Sas(Secret(SAS)),
        ),
    ],
)
def test_the_environment_of_the_azure_cli_and_adlfs(environ, auth):
    recipe, _ = resolved("az://data", environ)
    assert recipe.account_url == "https://acct.blob.core.windows.net"
    assert recipe.auth == auth


def test_the_emulators_short_connection_string():
    recipe, _ = resolved("az://data", connection_string="UseDevelopmentStorage=true")
    assert recipe.account_url == "http://127.0.0.1:10000/devstoreaccount1"
    assert recipe.auth == SharedKey("devstoreaccount1", Secret(EMULATOR_KEY))


def test_arguments_beat_the_url_which_beats_the_environment():
    environ = {"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_KEY": KEY}
    other = "b3RoZXI="
    assert resolved(URL, environ, key=other)[0].auth == SharedKey("acct", Secret(other))
    assert resolved(URL + "?" + SAS, environ)[0].auth == Sas(Secret(SAS))
    assert resolved(URL, environ, anonymous=True)[0].auth == Anonymous()
    assert resolved(URL, environ)[0].auth == SharedKey("acct", Secret(KEY))


@pytest.mark.parametrize(
    "environ",
    [
        {"AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_SAS_TOKEN": SAS},
        {"AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_KEY": KEY},
        {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=other;SharedAccessSignature={SAS}"},
    ],
)
def test_credentials_of_another_account_are_not_sent_to_this_one(environ):
    with pytest.raises(UsageError, match="nothing says how to sign in"):
        resolved(URL, environ)


def test_an_account_argument_names_the_url():
    recipe, _ = resolved("az://data/p", account="acct", key=KEY)
    assert recipe.url == "https://acct.blob.core.windows.net/data"
    recipe, _ = resolved("az://data", endpoint="http://127.0.0.1:9/dev/", key=KEY)
    assert recipe.url == "http://127.0.0.1:9/dev/data"
    assert recipe.auth == SharedKey("dev", Secret(KEY))


@pytest.mark.parametrize(
    ("url", "given", "words"),
    [
        (URL, {}, "nothing says how to sign in"),
        ("az://data", {"key": KEY}, "cannot find the storage account"),
        (URL, {"key": "not base64!"}, "not base64"),
        (URL, {"key": KEY, "sas": SAS}, "key and sas at once"),
        (URL + "?" + SAS, {"key": KEY}, "another credential"),
        (URL, {"credential": "token"}, "no get_token"),
        (URL, {"connection_string": "nonsense"}, "no '='"),
        (URL, {"connection_string": "AccountKey=x"}, "no AccountName"),
        ("https://files.example.com/data", {"key": KEY}, "pass account="),
        ("az://data", {"account": "Not_Valid", "key": KEY}, "account name"),
        ("http://acct.blob.example.com/data", {"credential": Credential()}, "use https"),
    ],
)
def test_what_can_not_work_is_told_before_anything_is_sent(url, given, words):
    with pytest.raises(UsageError, match=words) as got:
        resolved(url, **given)
    assert "SECRET" not in str(got.value)


def test_no_secret_shows_anywhere():
    for container in (Container(URL, key=KEY), Container(URL + "?" + SAS), Container(URL, sas=SAS)):
        for text in (repr(container), container.url, repr(container._recipe), str(container)):
            assert "SECRET" not in text
            assert KEY not in text


@pytest.mark.parametrize("signing", [{"key": KEY}, {"sas": SAS}, {"credential": Credential()}])
def test_a_container_pickles_as_a_recipe_without_a_secret(signing):
    container = Container(URL + "/sub", **signing)
    data = pickle.dumps(container)
    assert KEY.encode() not in data and b"SECRETSIG" not in data
    again = pickle.loads(data)
    assert again == container
    assert hash(again) == hash(container)
    assert again.path == "sub"


def test_a_credential_stays_one_store_after_pickling():
    container = Container(URL, credential=Credential())
    again = pickle.loads(pickle.dumps(container))
    assert again._recipe.key == container._recipe.key
    assert Container(URL, credential=Credential())._recipe.key != container._recipe.key


def test_endpoints_make_containers():
    endpoint = Endpoint("https://acct.blob.core.windows.net", key=KEY)
    assert endpoint.container("data") == Container(URL, key=KEY)
    assert repr(endpoint) == "Endpoint('https://acct.blob.core.windows.net')"
    for wrong in ("", "UPPER"):
        with pytest.raises(UsageError):
            endpoint.container(wrong)


def test_an_endpoint_has_no_path_and_a_container_has_a_name():
    with pytest.raises(UsageError, match="as an account"):
        Endpoint(URL + "/x", key=KEY)
    with pytest.raises(UsageError, match="names no container"):
        Container("https://acct.blob.core.windows.net", key=KEY)
