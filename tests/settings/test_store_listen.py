"""[store.listen]: nothing is served to a network without TLS, and nothing at all without a say."""

from __future__ import annotations

import pytest

from appliance.settings import StoreListenSettings, check

CERT = 'cert_file = "/c"\nkey_file = "/k"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('address = "0.0.0.0:2379"', "store.listen.cert_file: is missing: others can reach"),
        ('address = "0.0.0.0:2379"\ninsecure = true', "only loopback may be insecure"),
        ('address = "127.0.0.1:2379"\ncert_file = "/c"', "store.listen.key_file: is missing"),
        ('address = "127.0.0.1:2379"\nclient_ca_file = "/c"', "which needs TLS"),
        ('address = "nowhere"', "it has no port"),
        ('cert_file = "c"\nkey_file = "/k"', "an absolute path"),
    ],
)
def test_one_finding(text: str, said: str) -> None:
    found = [str(finding) for finding in check("[store.listen]\n" + text, "x")]
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "", 'address = "127.0.0.1:2379"\ninsecure = true', 'address = "127.0.0.1:2379"',
        f'address = "0.0.0.0:1"\n{CERT}',
        f'address = "0.0.0.0:1"\n{CERT}client_ca_file = "/ca"',
    ],
)  # fmt: skip
def test_these_are_fine(text: str) -> None:
    assert check("[store.listen]\n" + text, "x") == ()


def test_who_is_trusted() -> None:
    assert StoreListenSettings().listeners() == ()
    (only,) = StoreListenSettings(address="127.0.0.1:1", insecure=True).listeners()
    assert only.trusting
    (only,) = StoreListenSettings(address="127.0.0.1:1").listeners()
    assert not only.trusting
