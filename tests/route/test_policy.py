"""The policy file: what it may say, and what is said of one that cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nomoat.errors import UsageError
from nomoat.route import policy as policies
from nomoat.route.pii import KINDS
from nomoat.route.policy import Policy, load_policy

A_PATTERN = (
    "give regular expressions in single quotes, bound repeats, and have none within another or behind one of the same characters: "
    r"['MRN\d{1,8}']"
)
A_SUM = "give a number of USD above 0, at most 1,000,000,000, without quotes; without `cloud` nothing is spent"


def written(text: str) -> Path:
    path = policies.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_everything_stays_here() -> None:
    policy = load_policy()
    assert (policy.cloud, policy.default, policy.never_leaves, policy.path) == (None, "local", KINDS, None)
    assert policy.origin("cloud") == "default"


def test_the_example_in_the_documentation_of_the_module_is_a_policy() -> None:
    example = (policies.__doc__ or "").partition("left out:")[2].partition("What this")[0]
    path = written("\n".join(line.strip() for line in example.splitlines()))
    policy = load_policy()
    assert policy.given == set(policies.SETTINGS)
    assert (policy.local, policy.cloud, policy.names) == ("smollm2-135m+reviews", "openai:gpt-4o-mini", ("김철수", "Project Moat"))
    assert policy.patterns == (r"환자번호 ?\d{8}",)
    assert (policy.max_usd_per_day, policy.max_usd_per_month, policy.max_answer_tokens) == (2.0, 20.0, 4096)
    assert policy.origin("cloud") == str(path)


def test_the_examples_in_the_manual_are_policies() -> None:
    """The first is what `auto` cannot do without, the other all that a policy may say."""
    manual = (Path(__file__).parents[2] / "docs/route.md").read_text(encoding="utf-8")
    given = []
    for example in manual.split("```toml\n")[1:]:
        written(example.partition("```")[0])
        given.append(load_policy().given)
    assert given == [{"local", "cloud"}, set(policies.SETTINGS)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'cloud = "openai:big"',
        'never_leaves = ["phone"]',  # nothing leaves without a cloud
        # nothing is a name while there are no `names`
        f'cloud = "openai:big"\nnever_leaves = {json.dumps([kind for kind in KINDS if kind != "name"])}',
    ],
)
def test_a_policy_that_lets_nothing_recognisable_leave_has_no_notes(text: str) -> None:
    written(text)
    assert load_policy().notes == ()


def test_numbers_of_numpys_are_pythons_own_in_a_policy() -> None:
    """Else the digest of `auto`, by which answers are kept, is another one."""
    given = Policy(
        threshold=np.float64(0.5), max_wait_seconds=np.int64(9), max_usd_per_day=np.int64(3), max_answer_tokens=np.int64(9)  # type: ignore[arg-type]
    )  # fmt: skip
    assert repr(given) == repr(Policy(threshold=0.5, max_wait_seconds=9.0, max_usd_per_day=3.0, max_answer_tokens=9))
    with pytest.raises(UsageError, match="`max_usd_per_day` is 'three'"):
        Policy(max_usd_per_day="three")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("clud = 'x'", "sets `clud`, which is no part of a policy", f"known: {', '.join(policies.SETTINGS)}"),
        ("threshold = 2", "sets `threshold` to 2", "give a number from 0 (everything local) to 1"),
        (f"threshold = 0x{'f' * 5000}", "sets `threshold` to 3.98e+6020", "give a number from 0 (everything local) to 1"),
        (f"default = '{'x' * 5000}'", "sets `default` to 'xxxxxxxxxxxx...xxxxxxxxxxxxx'", 'give "local" or "cloud"'),
        (f"max_answer_tokens = {'9' * 4000}", "sets `max_answer_tokens` to 1.00e+4000", "give a whole number of tokens, at least 1"),
        ("threshold = nan", "sets `threshold` to nan", "give a number from 0 (everything local) to 1"),
        ("threshold = true", "sets `threshold` to True", "give a number from 0 (everything local) to 1"),
        ("if_cloud_fails = 'cloud'", "sets `if_cloud_fails` to 'cloud'", 'give "error" or "local"'),
        *(
            (f"max_wait_seconds = {value}", f"sets `max_wait_seconds` to {told}", "give a number of seconds from 1 to 600")
            for value, told in (("0", "0"), ("601", "601"), ("true", "True"), ("nan", "nan"), ("'9'", "'9'"))
        ),
        ("max_usd_per_day = 0", "sets `max_usd_per_day` to 0", A_SUM),
        ("max_usd_per_day = -1.5", "sets `max_usd_per_day` to -1.5", A_SUM),
        ("max_usd_per_day = '2'", "sets `max_usd_per_day` to '2'", A_SUM),
        ("max_usd_per_month = true", "sets `max_usd_per_month` to True", A_SUM),
        ("max_usd_per_month = nan", "sets `max_usd_per_month` to nan", A_SUM),
        ("max_usd_per_month = 2_000_000_000", "sets `max_usd_per_month` to 2000000000", A_SUM),
        ("max_usd_per_month = inf", "sets `max_usd_per_month` to inf", A_SUM),
        *(
            (f"max_answer_tokens = {value}", f"sets `max_answer_tokens` to {told}", "give a whole number of tokens, at least 1")
            for value, told in (("0", "0"), ("1.5", "1.5"), ("true", "True"), ("'9'", "'9'"))
        ),
        (
            "max_answer_tokens = 99",
            "sets `max_answer_tokens` and no budget",
            "add `max_usd_per_day` or `max_usd_per_month`, or remove it",
        ),
        ("local = ''", "sets `local` to ''", "give a text in quotes, or leave it out"),
        ("default = 'moon'", "sets `default` to 'moon'", 'give "local" or "cloud"'),
        ("names = 'Kim'", "sets `names` to something else than texts", 'give a list of texts: ["one", "two"]'),
        ("names = ['Kim', '']", "sets `names` to something else than texts", 'give a list of texts: ["one", "two"]'),
        (
            "never_leaves = ['fon']",
            "names `fon` in `never_leaves`, which nomoat cannot recognise",
            f"known: {', '.join(KINDS)}",
        ),
        ("local = 'auto'", "names `auto` as a model, which is the router itself", "name the model that is to answer"),
        (
            "cloud = 'smollm2-135m'",
            "names `smollm2-135m` as `cloud`, which is no server",
            'such as "openai:gpt-4o-mini" or "https://host/v1#model"',
        ),
        (
            "cloud = 'http://[bad/v1#m'",
            "names `http://[bad/v1#m` as `cloud`, which is no address",
            'such as "https://host/v1#model"',
        ),
        ("cloud = 'http:///v1#m'", "names `http:///v1#m` as `cloud`, which is no address", 'such as "https://host/v1#model"'),
        ("default = 'cloud'", 'sets `default` to "cloud" and names no `cloud`', 'add cloud = "openai:gpt-4o-mini", or such'),
        (
            "cloud = 'openai:big'\nallowed = []",
            "sets `allowed` to [], which allows nobody, and names a `cloud`",
            "remove the line `cloud`, or `allowed`",
        ),
        (
            "names = ['Kim']\nnever_leaves = ['phone']",
            "lists `names`, and `never_leaves` does not hold `name`",
            "add it there, or remove the names",
        ),
        (
            "patterns = ['Kim']\nnever_leaves = ['phone']",
            "lists `patterns`, and `never_leaves` does not hold `name`",
            "add it there, or remove the patterns",
        ),
        ("patterns = 'Kim'", "sets `patterns` to something else than texts", 'give a list of texts: ["one", "two"]'),
        *(
            (f"patterns = ['MRN', '{pattern}']", f"lists `patterns`, of which number 2 {why}", A_PATTERN)
            for pattern, why in (
                ("Kim(", "is no regular expression: missing ) at position 4"),
                ("(?:Kim)?", "matches the empty text, and so every text"),
                ("(?a)(?u)MRN", "is no regular expression: ASCII, LOCALE and UNICODE flags are mutually incompatible"),
                (r"(\d+)+x", "is too slow: 1,000 characters take longer than 0.1 s"),
            )
        ),
    ],
)
def test_policy_that_cannot_be_meant_says_what_and_what_to_do(text: str, what: str, hint: str) -> None:
    path = written(text)
    with pytest.raises(UsageError) as raised:
        load_policy()
    assert (raised.value.message, raised.value.hint) == (f"the policy `{path}` {what}", hint)


@pytest.mark.parametrize(
    ("local", "place"),
    [
        ("http://llm.example/v1#m", ""),
        ("http://localhost:4000/v1#m", " (a gateway, as NOMOAT_GATEWAYS says)"),
        ("http://localhost:11434/v1#glm-4.6:cloud", " (a gateway to Ollama's cloud, as the name `glm-4.6:cloud` says)"),
        ("openai:gpt-4o", ""),
    ],
)
def test_what_is_to_stay_here_is_asked_of_no_server_outside(local: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the policy is told: `route policy` and `route explain`, too."""
    path = written(f"local = '{local}'")
    monkeypatch.setenv("NOMOAT_GATEWAYS", "http://127.0.0.1:4000")
    with pytest.raises(UsageError) as raised:
        load_policy()
    assert raised.value.message == f"the policy `{path}` names `{local}`{place} as `local`, and what it is asked leaves this machine"
    assert raised.value.hint == "name a model on this machine, or a server on it that runs the model itself"
    written("local = 'http://localhost:8000/v1#m'")
    assert load_policy().local == "http://localhost:8000/v1#m"


def test_file_that_is_not_toml_is_named() -> None:
    path = written("cloud = ")
    with pytest.raises(UsageError) as raised:
        load_policy()
    assert raised.value.message == f"the policy `{path}` cannot be read: Invalid value (at end of document)"


def test_file_that_windows_saved_as_ansi_is_named_with_the_way_out() -> None:
    path = written("")
    path.write_bytes("names = ['김철수']\n".encode("cp949"))
    with pytest.raises(UsageError) as raised:
        load_policy()
    assert raised.value.message == f"the policy `{path}` is not UTF-8 text"
    assert raised.value.hint == "save it as UTF-8 (in Notepad: `Encoding`, in Korean `인코딩`)"


def test_nobody_may_be_allowed_where_nobody_is_asked() -> None:
    written("allowed = []")
    assert load_policy().allowed == ()


def test_cloud_must_be_among_the_allowed() -> None:
    path = written("cloud = 'https://api.example.com/v1#m'\nallowed = ['openai', 'llm.example.com']")
    with pytest.raises(UsageError) as raised:
        load_policy()
    assert raised.value.message == "the policy does not allow to ask `api.example.com`: `allowed` is openai, llm.example.com"
    assert raised.value.hint == f"change `cloud` or `allowed` in `{path}`"


@pytest.mark.parametrize("host", ["api.openai.com", "LLM.example.com"])
def test_allowed_holds_providers_and_hosts(host: str) -> None:
    Policy(allowed=("openai", "llm.example.com")).require_allowed(host)
