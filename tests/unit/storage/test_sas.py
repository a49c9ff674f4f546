"""The SAS that nodes get: as azure-storage-blob writes it, for one container, for an hour."""

import base64
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from azure.storage import blob

from azpool.errors import UsageError
from azpool.storage._sas import PERMISSIONS, SAS_SECONDS, SAS_VERSION, SasLender

KEY = base64.b64encode(b"k" * 64).decode()
NOW = 1_700_000_000.7


@pytest.mark.parametrize("container", ["data", "$root", "a-b-c"])
@pytest.mark.parametrize("protocols", ["https", "https,http"])
def test_the_signature_is_that_of_azure_storage_blob(container, protocols, monkeypatch):
    # It signs the version of its own requests; the form has been the same since ours.
    signing = blob._shared.shared_access_signature
    monkeypatch.setattr(signing, "X_MS_VERSION", SAS_VERSION)
    monkeypatch.setattr(blob._shared_access_signature, "X_MS_VERSION", SAS_VERSION)
    theirs = blob.generate_container_sas(
        "acct",
        container,
        account_key=KEY,
        permission=PERMISSIONS,
        expiry=datetime.fromtimestamp(int(NOW) + SAS_SECONDS, UTC),
        protocol=protocols,
    )
    mine = SasLender("acct").lend(KEY, (container, protocols), NOW)
    assert parse_qs(mine.value) == parse_qs(theirs)
    assert mine.expires_on == int(NOW) + SAS_SECONDS
    assert KEY not in repr(mine) and "sig=" not in repr(mine)


def test_a_key_that_is_none_is_refused_without_being_shown():
    with pytest.raises(UsageError) as refused:
        SasLender("acct").lend("not base64!", ("c", "https"), NOW)
    assert "not base64!" not in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__
