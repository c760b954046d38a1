"""Keys of APIs and private keys. None here opens anything."""

from __future__ import annotations

import base64

import pytest
from private_kinds import kinds

HEX = "5f0c9a7be4d1428860fe9b2c7a64d3e8"
KEYS = [
    ("sk-", "proj-abcdEFGH0123456789_-abcdEFGH"),
    ("sk-", "ant-api03-abcdEFGH0123456789"),
    ("sk-", "or-v1-0f3c9a7be4d1528860fe9b2c7a64d3e85190bc2ad7f6e3410958cb7ade2f6034"),
    ("sk-", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
    ("sk-", "qn3vx8rjw2m5tzk7ybd4hgs9"),
    ("AKIA", "ABCDEFGH01234567"),
    ("ghp_", "abcdEFGH0123456789abcdEFGH0123456789"),
    ("github_pat_", "abcdEFGH0123456789_abcdEFGH0123456789abcdEFGH"),
    ("glpat-", "abcdEFGH0123456789ab"),
    ("AIza", "SyabcdEFGH0123456789abcdEFGH0123456"),
    ("xoxb-", "012345678901-abcdEFGH0123456789"),
    ("hf_", "abcdEFGHabcdEFGHabcdEFGHabcdEFGHab"),
    ("sk-", "lf-5f0c9a7b-e4d1-4288-60fe-9b2c7a64d3e8"),
    ("gsk_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3d"),
    ("xai-", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3d"),
    ("nvapi-", "aB3dE5gH7j-B3dE5gH7j_B3dE5gH7jaB3dE5gH7jaB3d"),
    ("r8_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5g"),
    ("tgp_v1_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("AQ.", "Ab8RN6aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3d"),
    ("ya29.", "a0aB3dE5gH7jaB3dE5gH7j_B3dE5gH7jaB3d"),
    ("GOCSPX-", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH"),
    ("ABSK", "QmVkcm9ja0FQSUtleS1aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("ghs_", "1234_eyJhbGciOiJSUzI1NiJ9aB3dE5gH7j.eyJpc3MiOiJ4In0"),
    ("gldt-", "aB3dE5gH7jaB3dE5gH7j"),
    ("xapp-", "1-A012345678-1234567890123-0f3c9a7be4d1528860fe9b2c7a64d3e85190bc2ad7f6e3410958cb7ade2f6034"),
    ("xoxc-", "2345678901-2345678901-aB3dE5gH7j"),
    ("xoxd-", "aB3dE5gH7j%2BaB3dE5gH7j%3D"),
    ("sk_live_", "aB3dE5gH7jaB3dE5gH7jaB3d"),
    ("live_sk_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7ja"),
    ("whsec_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB"),
    ("npm_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5"),
    ("dckr_pat_", "aB3dE5gH7jaB3dE5gH7jaB3dE5g"),
    ("hvs.", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5"),
    ("SG.", "aB3dE5gH7jaB3dE5gH7jaB.aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("shpat_", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
    ("key-", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
    ("lin_api_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("123456789:", "AAaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("AGE-SECRET-KEY-", "1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"),
    ("glft-", "aB3dE5gH7jaB3dE5gH7j"),
    ("glffct-", "aB3dE5gH7jaB3dE5gH7j"),
    ("GR1348941", "aB3dE5gH7jaB3dE5gH7j"),
    ("api_org_", "abcdEFGHabcdEFGHabcdEFGHabcdEFGHab"),
    ("up_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("wandb_v1_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("IQoJb3JpZ2luX2Vj", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("FwoGZXIvYXdzE", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("aB3", "8Q~aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3d"),
    ("aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB", "JQQJ99BFACYeBjFXJ3w3AAALACOGz5j0"),
    ("ncp_iam_", "BPASKRaB3dE5gH7jaB3d"),
    ("vcp_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5"),
    ("vercel_blob_rw_", "aB3dE5gH7jaB3dE5_aB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("cfut_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j0f3c9a7b"),
    ("v1.0-", f"5f0c9a7be4d1428860fe9b2c-{HEX * 4}5f0c9a7be4d1428860"),
    ("fo1_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("fm2_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("HRKU-", "AAaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH"),
    ("rnd_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH"),
    ("pscale_tkn_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("dp.pt.", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("tskey-auth-", "kaB3dE5gH7jCNTRL-aB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("ops_", "eyJaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("CCIPAT_", "aB3dE5gH7jaB3dE5gH7jaB_5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b"),
    ("bkua_", "5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b"),
    ("pul-", "5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b"),
    ("squ_", "5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b"),
    ("dose", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
    ("django-insecure-", "q#3v@x8r&j$w2m^5t*z(k7=y+b_d4-h9s!g6f1n0c#3v@x8r&j"),
    ("django-insecure-", "q#3v@x8r&j)w2m^5t*z(k7=y+b_d4-h9s!g6f1n0c#3v@x8r&j"),
    ("pataB3dE5gH7jaB3d.", "5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b5f0c9a7be4d1428860fe9b2c"),
    ("NRAK-", "A1B2C3D4E5F6G7H8J9K0L1M2N3P"),
    ("dt0c01.", "A1B2C3D4E5F6G7H8J9K0L1M2.A1B2C3D4E5F6G7H8A1B2C3D4E5F6G7H8A1B2C3D4E5F6G7H8A1B2C3D4E5F6G7H8"),
    ("phx_", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("re_", "aB3dE5gH_aB3dE5gH7jaB3dE5gH7jaB3d"),
    ("xkeysib-", "5f0c9a7be4d1428860fe9b2c7a64d3e85f0c9a7b5f0c9a7be4d1428860fe9b2c-aB3dE5gH7jaB3dE5"),
    ("sq0csp-", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3"),
    ("1/", "1204567890123456:5f0c9a7be4d1428860fe9b2c7a64d3e8"),
    ("sl.", "aB3dE5gH7j" * 13),
    ("MTIzNDU2Nzg5MDEyMzQ1Njc4", ".GaB3dE.aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH"),
    ("mfa.", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
    ("AGE-SECRET-KEY-PQ-", "1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"),
    ("b3BlbnNzaC1rZXktdjE", "AAAAABG5vbmUAAAAEbm9uZQAAAA"),
    ("xprv", "aB3dE5gH7j" * 11),
    ("-----BEGIN ", "RSA PRIVATE KEY-----"),
    ("-----BEGIN ", "PGP PRIVATE KEY BLOCK-----"),
    ("---- BEGIN ", "SSH2 ENCRYPTED PRIVATE KEY ----"),
]


@pytest.mark.parametrize(("start", "rest"), KEYS)
def test_api_key_is_seen(start: str, rest: str) -> None:
    """In two parts, so that nobody who looks for keys in this file finds one."""
    assert kinds(f'KEY="{start}{rest}"', kinds=["api_key"]) == {"api_key"}
    assert kinds(f"키는 {start}{rest}입니다", kinds=["api_key"]) == {"api_key"}
    assert kinds(f"x{start}{rest}", kinds=["api_key"]) == ({"api_key"} if start.startswith("-") else set())


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("https://hooks.slack.com/services/", "T0123ABCD/B0123ABCD/aB3dE5gH7jaB3dE5gH7jaB3d"),
        ("https://discord.com/api/webhooks/", "123456789012345678/aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7j"),
        ("https://api.telegram.org/bot", "123456789:AAaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3/sendMessage"),
        ("otpauth://totp/GitHub:kim?secret=", "ODLF77FLZWO36NMBNUPI7FM5YIPQCTEI&issuer=GitHub"),
        ("https://a.blob.core.windows.net/b/c?sp=r&sig=", "aB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3dE5gH7jaB3%3D"),
    ],
)
def test_an_address_that_is_a_key_is_seen(start: str, rest: str) -> None:
    assert kinds(f"{start}{rest}", kinds=["api_key"]) == {"api_key"}


@pytest.mark.parametrize(
    "text",
    [
        "sk-toggleable__label-arrow-of-a-long-1", "sk-Estimator-id-1", "AKIA is how they begin", "hf_hub_download", "AIza",
        "sk-learn-something-long", "sk-learn-1-with-2-many-3-short-4-words", "sk-internationalization2024",
        "sk-otherwiseunbelievablylongword", "sk-123456789012345678901234", "disk-0f3c9a7be4d1528860fe9b2c7a64d3e8", "sk-0f3c9a7be4d1",
        "my sk-learn-Pipeline-Example-Version-2-notes", "sk-learn-RandomForestClassifier2-Comparison-Notebook",
        "ghp_" + "x" * 36, "AGE-SECRET-KEY-1...", "eyJ.eyJ.x", "gsk_short", "npm_config_registry", "key-0f3c9a7be4d1",
        "pip-key-d41d8cd98f00b204e9800998ecf8427e", "Cache restored from key: Linux-cache-key-d41d8cd98f00b204e9800998ecf8427e",
        "glft-short", "up_and_running_with_a_long_name_of_things2", "re_compile_the_pattern", "rnd_uniform_between_two_numbers",
        "pul-request", "vcp_model_of_the_third_generation", "dp.pt.x", "sl.u.x", "MTIzNDU2.abc.def", "2/1204567890123456", "xprv...",
        "otpauth://totp/Example", "mfa.enabled", "update_all_records_of_2024_now", "v1.0-rc1-2024", "NRAK-1",
        "patterns.of.many.things2",
        "vcp_a_model_of_the_third_generation_with_a_very_long_name", "rnd_uniformbetweentwonumberswithlongname",
        "mfa." + "enabled_for_all_of_the_users_" * 3, "sl." + "enabled_for_all_of_the_users_" * 5,
        "re_compiled_allofthepatternsthatthereare",
        "django-insecure-change-me-in-production-please-now-and-here", "django-insecure-this-is-of-2024-and-for-development-only-ok",
        "django-insecure-change-me-1234567890!@#$%^&*-abcdefghijkl",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----BEGIN CERTIFICATE-----",
    ],
)  # fmt: skip
def test_everyday_words_are_no_api_keys(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(("start", "rest"), [key for key in KEYS if not key[0].startswith("-")])
def test_a_key_that_a_lines_end_parts_is_seen(start: str, rest: str) -> None:
    """As terminals and mail programs break lines, but beside a `%`, a `/` and such."""
    key = start + rest
    for at in range(1, len(key), 3):
        end = ("\n", "  \n    ", "\n> ", "\r\n")[at % 4]
        if not set("%/!@#$^&*()=+") & set(key[at - 1 : at + 1]):
            assert kinds(f"my key is\n{key[:at]}{end}{key[at:]}\nplease", kinds=["api_key"]) == {"api_key"}, at


def test_a_key_over_several_lines_is_seen() -> None:
    token = f"eyJ{'aB3dE5gH7j' * 20}.eyJ{'aB3dE5gH7j' * 60}.{'aB3dE5gH7j' * 5}"
    lines = "\n".join(token[at : at + 76] for at in range(0, len(token), 76))
    assert kinds(f"Cookie: token={lines}\nHost: a.example") == {"api_key"}


@pytest.mark.parametrize(
    "words",
    [
        "hf_xet httpcore httpx huggingfacehub idna jinja markupsafe multidict networkx",
        "npm_config registry npmlog nopt osenv semver which normalize packages",
        "ASIA EUROPE AFRICA AMERICA OCEANIA",
        "sk-SK sl-SI sq-AL sr-RS sv-SE es-419 zh-Hans-CN",
        "sk-learn Version2 RandomForest pipeline2 notes3",
        "we-use-sk-learn pandas2 numpy1 and-then-more-words",
    ],
)
def test_words_line_by_line_are_no_key(words: str) -> None:
    assert kinds("\n".join(words.split())) == set()
    assert kinds("\n  ".join(words.split())) == set()


@pytest.mark.parametrize("label", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_in_base64_is_seen_and_what_is_public_is_not(label: str) -> None:
    def encoded(what: str) -> str:
        return base64.b64encode(f"-----BEGIN {what}-----\nMIIEowIBAAKCAQEA".encode()).decode()

    assert kinds(f"client-key-data: {encoded(f'{label}PRIVATE KEY')}") == {"api_key"}
    assert kinds(f"tls.key: {encoded(f'{label}PRIVATE KEY')}") == {"api_key"}
    assert kinds(f"client-certificate-data: {encoded('CERTIFICATE')}") == set()
    assert kinds(f"ca: {encoded(f'{label}PUBLIC KEY')}") == set()
