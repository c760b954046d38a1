"""`nomoat route`, as a user's shell sees it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import shell
from homes import write_policy

from nomoat import paths
from nomoat.asking.store import AnswerStore
from nomoat.config import keys_path
from nomoat.engine.budget import Rates
from nomoat.engine.fake import FakeEngine
from nomoat.engine.remote import remote_engine
from nomoat.judge.suites import load_suite
from nomoat.records import Chunk, Outcome, Request
from nomoat.responder import Responder
from nomoat.responder import load as nomoat_load
from nomoat.route import learned
from nomoat.route.budget import Allowance
from nomoat.route.policy import Policy, default_path

nomoat = functools.partial(shell.nomoat, COLUMNS="100")


def spent_today(usd: float) -> None:
    """As `auto` counts it. Where midnight of UTC comes before it is read, a test fails: one run in some ten thousand."""
    rates = Rates(input_usd_per_million=0.0, output_usd_per_million=1e6)
    asked = Request(prompt="hello", max_new_tokens=2)
    cloud = Responder("big", remote_engine("http://127.0.0.1:9/v1#big"))
    allowance = Allowance(Policy(max_usd_per_day=2.0), rates, cloud)
    with allowance.paying(asked) as metered, metered.engine.meter.call(asked) as bill:  # type: ignore[attr-defined]
        bill.usd = usd
    allowance.close()
    cloud.close()


@pytest.fixture
def duelled(tmp_path: Path) -> Path:
    """A suite over which two models fought: `fake:` is good at names, and `openai:big` at everything."""
    path = tmp_path / "castle.jsonl"
    kinds = [("what is the name of bridge", 1.0), ("compute the sum of", 0.0)]
    rows = [{"id": f"{kind}{at}", "input": f"{kind} {at}", "target": "x"} for kind, _ in kinds for at in range(25)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    suite = load_suite(path)
    with AnswerStore() as store:
        for model, hard in (("fake:", 0.0), ("openai:big", 1.0)):
            scores = [(row["id"], 1.0 if row["id"].startswith("what") else hard) for row in rows]
            outcomes = [Outcome(suite=suite.name, example_id=name, model=model, answer="", score=score) for name, score in scores]
            store.save_outcomes(suite.sha256, suite.metric, f"digest of {model}", outcomes)
    return path


def test_policy_without_a_file_keeps_everything_here() -> None:
    done = nomoat("route", "policy")
    assert (done.returncode, done.stderr) == (
        0,
        "`auto` answers nothing: `auto` does not know the model on this machine: there is no policy that names it\n"
        f'hint: write local = "smollm2-135m", or such, into `{default_path()}`\n'
        f"there is no {default_path()}: everything stays here\n",
    )
    assert done.stdout == (
        "local              none  (default)\n"
        "cloud              none  (default)\n"
        "threshold          0.5  (default)\n"
        "default            local  (default)\n"
        "if_cloud_fails     error  (default)\n"
        "max_wait_seconds   120.0  (default)\n"
        "never_leaves       resident_number, identity_document, number_plate, phone, business_number, customs_code, bank_account, "
        "card, email, address, api_key, name  (default)\n"
        "names              none  (default)\n"
        "patterns           none  (default)\n"
        "allowed            wherever cloud is asked  (default)\n"
        "max_usd_per_day    none  (default)\n"
        "max_usd_per_month  none  (default)\n"
        "max_answer_tokens  4096  (default)\n"
        "router             none  (nothing is learned)\n"
    )


def test_policy_names_the_file_each_line_comes_from() -> None:
    write_policy('local = "fake:"\nnames = ["김철수"]')
    rows = {row["name"]: row for row in json.loads(nomoat("route", "policy", "--json").stdout)["policy"]}
    assert rows["names"] == {"name": "names", "value": ["김철수"], "origin": str(default_path())}
    assert rows["cloud"] == {"name": "cloud", "value": None, "origin": "default"}


@pytest.mark.parametrize("command", [("policy",), ("policy", "--json"), ("explain", "hello"), ("explain", "hello", "--json")])
def test_policy_and_explain_say_which_kinds_a_list_of_ones_own_leaves_out(command: tuple[str, ...]) -> None:
    write_policy(
        'local = "fake:"\ncloud = "openai:big"\n'
        'never_leaves = ["resident_number", "phone", "business_number", "bank_account", "card", "name"]'
    )
    done = nomoat("route", *command)
    assert (done.returncode, done.stderr) == (
        0,
        "note: never_leaves does not name identity_document, number_plate, customs_code, email, address, api_key: "
        "such data may leave\n",
    )


def test_policy_with_a_budget_is_shown_and_says_that_the_users_prices_cannot_be_read(empty_home: Path) -> None:
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"\nmax_usd_per_day = 2')
    (empty_home / "prices.toml").write_text("input = 0.15")
    done = nomoat("route", "policy", NOMOAT_OFFLINE="0", OPENAI_API_KEY="k")
    assert (done.returncode, done.stdout[:25]) == (0, "local              fake: ")
    assert done.stderr.startswith(f"`auto` answers nothing: `{empty_home / 'prices.toml'}` is not a table of prices: ")


def test_policy_shows_what_of_its_budget_is_spent() -> None:
    write_policy("max_usd_per_day = 2.0")
    assert nomoat("route", "policy").stdout.endswith("spent              $0.00 today, $0.00 this month  (UTC)\n")
    spent_today(1.9725)
    assert nomoat("route", "policy").stdout.endswith("spent              $1.9725 today, $1.9725 this month  (UTC)\n")
    said = json.loads(nomoat("route", "policy", "--json").stdout)["spent"]
    assert (said["today_usd"], said["month_usd"]) == (1.9725, 1.9725)


def test_policy_shows_small_numbers_without_an_exponent() -> None:
    write_policy("max_usd_per_day = 0.00005")
    assert f"max_usd_per_day    0.00005  ({default_path()})\n" in nomoat("route", "policy").stdout


def test_explain_keeps_here_what_could_cost_more_than_is_left() -> None:
    """5 bytes and 48 of template at $0.15, 512 new tokens at $0.60 a million: $0.00032, which $0.0003 does not hold."""
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"\ndefault = "cloud"\nmax_usd_per_day = 2.0')
    assert nomoat("route", "explain", "hello", NOMOAT_OFFLINE="0").stdout.startswith("cloud: openai:gpt-4o-mini\n")
    spent_today(1.9997)
    done = nomoat("route", "explain", "hello", NOMOAT_OFFLINE="0")
    assert done.stdout == "local: fake:\nwhy: of $2.00 a day, $1.9997 is spent, and this could cost up to $0.00032\n"


@pytest.mark.parametrize("command", [("policy",), ("policy", "--json"), ("explain", "hello"), ("explain", "hello", "--json")])
def test_policy_and_explain_say_that_auto_answers_nothing_without_the_clouds_key(command: tuple[str, ...]) -> None:
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"')
    done = nomoat("route", *command, NOMOAT_OFFLINE="0")
    error = (
        "`openai:gpt-4o-mini` needs a key, and OPENAI_API_KEY is not set\n"
        f'hint: export OPENAI_API_KEY=…, or write OPENAI_API_KEY = "…" into `{keys_path()}`, then try again\n'
    )
    assert (done.returncode, done.stderr) == (0, f"`auto` answers nothing: {error}")
    assert nomoat("run", "auto", "hello", NOMOAT_OFFLINE="0").stderr == f"error: {error}"
    for environment in ({"NOMOAT_OFFLINE": "1"}, {"NOMOAT_OFFLINE": "0", "OPENAI_API_KEY": "k"}):
        assert nomoat("route", *command, **environment).stderr == ""


def test_policy_is_shown_where_the_environment_names_no_server_for_its_cloud() -> None:
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"')
    done = nomoat("route", "policy", NOMOAT_OFFLINE="0", OPENAI_API_KEY="k", OPENAI_BASE_URL="gpu1:8000")
    assert (done.returncode, done.stdout[:25]) == (0, "local              fake: ")
    assert done.stderr.startswith("`auto` answers nothing: `gpu1:8000` is not the address of a server\nhint: write `OPENAI_BASE_URL=")


NAMES_NO_MODEL = "`auto` does not know the model on this machine: there is no policy that names it"


@pytest.mark.parametrize(
    ("policy", "environment", "why"),
    [
        (
            'local = "fake:"\ncloud = "openai:gpt-99"\nmax_usd_per_day = 2',
            {"OPENAI_API_KEY": "k"},
            "the price of `openai:gpt-99` is not known, and the budget in `{path}` cannot be kept without it",
        ),
        (
            'local = "fake:"\ncloud = "openai:big"\nallowed = ["openai"]',
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://evil.example.com/v1"},
            "the policy does not allow to ask `evil.example.com`: `allowed` is openai",
        ),
        (
            'local = "openai:m"',
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
            "`openai:m` needs a key, and OPENAI_API_KEY is not set",
        ),
        ('cloud = "openai:big"', {"OPENAI_API_KEY": "k"}, NAMES_NO_MODEL),
        ("", {}, NAMES_NO_MODEL),
    ],
)
def test_policy_and_explain_say_whatever_keeps_auto_from_being_loaded(policy: str, environment: dict[str, str], why: str) -> None:
    write_policy(policy)
    run = nomoat("run", "auto", "hello", NOMOAT_OFFLINE="0", **environment)
    assert run.stderr.startswith(f"error: {why.format(path=default_path())}\nhint: ")
    said = f"`auto` answers nothing: {run.stderr.removeprefix('error: ')}"
    done = nomoat("route", "policy", NOMOAT_OFFLINE="0", **environment)
    assert (done.returncode, done.stderr) == (0, said)
    if "max_usd" not in policy:  # what it would cost is a part of where it goes
        done = nomoat("route", "explain", "hello", NOMOAT_OFFLINE="0", **environment)
        assert (done.returncode, done.stderr) == (0, said)


def test_explain_says_where_and_why_and_not_what() -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"\ndefault = "cloud"')
    done = nomoat("route", "explain", "전화는 010-1234-5678입니다", NOMOAT_OFFLINE="0", OPENAI_API_KEY="k")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "local: fake:\nwhy: it holds a phone number, which the policy keeps from the cloud\n"


def test_explain_reads_what_is_piped_in() -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"\ndefault = "cloud"')
    done = nomoat("route", "explain", "--json", piped=b"What is a moat?\n", NOMOAT_OFFLINE="0")
    assert json.loads(done.stdout) == {
        "where": "cloud",
        "model": "openai:big",
        "why": "no router is learned; the policy's default is cloud",
        "rule": "default",
        "score": None,
        "kinds": [],
        "max_new_tokens": None,
    }
    assert nomoat("route", "explain", "-", "--json", piped=b"What is a moat?\n", NOMOAT_OFFLINE="0").stdout == done.stdout


def test_explain_of_nothing_says_what_to_do() -> None:
    done = nomoat("route", "explain", piped=b" \n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'error: there is no text to explain\nhint: nomoat route explain "TEXT", or pipe it in\n'


def test_learn_prints_figures_of_unseen_prompts_and_explain_uses_the_router(duelled: Path) -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"')
    done = shell.program("route", "learn", "fake:", "openai:big", "--suite", str(duelled), COLUMNS="100")
    assert (done.returncode, done.stderr) == (
        0,
        f"kept in {learned.folder()}\nto send more or less away, set `threshold` in {default_path()}\n",
    )
    figures, table = done.stdout.split("\n\n")
    assert figures == (
        "`fake:` is as good as `openai:big` on 25 of 50 prompts\n"
        "on prompts the router had not seen:\n"
        "  AUC 1.00 [0.90, 1.00] (chance is 0.50)\n"
        "  the cloud's mean score is higher by +0.500 [+0.347, +0.633]; of this gap\n"
        "  APGR 0.75 [0.67, 0.83] is recovered, on average over all shares sent away (at random 0.50)\n"
        "  CPT50: 25 % [18, 33] sent away recover half (at random 50 %)\n"
        "  CPT80: 40 % [29, 51] sent away recover four fifths (at random 80 %)\n"
        "  at the threshold 0.50, 50.0 % stay here, and the mean score is 1.000 (all local 0.500, all cloud 1.000)"
    )
    header, *rows = table.splitlines()
    assert header == "threshold  sent away  mean score            at random  gap recovered"
    assert all(
        re.fullmatch(r" {5}[01]\.\d\d {4,6}\d+\.\d %  \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] {6}\d\.\d{3}  \d+ % \[\d+, \d+\]", row)
        for row in rows
    )
    assert "50.0 %  1.000 [0.951, 1.000]      0.750  100 % [93, 106]" in table
    said = json.loads(shell.program("route", "explain", "compute the sum of 77", "--json", NOMOAT_OFFLINE="0").stdout)
    assert (said["where"], said["score"] < 0.5) == ("cloud", True)
    assert said["why"].endswith("the policy's threshold is 0.50, if `fake:` is the same as when the router was learned")
    provided = "`fake:` is the same as when the router was learned"
    assert f"router             fake: or openai:big  (learned, if {provided})\n" in nomoat("route", "policy").stdout
    assert json.loads(nomoat("route", "policy", "--json").stdout)["router"]["provided"] == provided


class Unsure(FakeEngine):
    """Says a word where it is good at the question or the number is a multiple of five, and else two."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = "digest of fake:"

    def _words(self, request: Request) -> Generator[Chunk]:
        asked = request.messages[-1].content
        is_sure = asked.startswith("what") or int(asked.split()[-1]) % 5 == 0
        return super()._words(replace(request, max_new_tokens=1 if is_sure else 2))


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.responder.load", lambda ref, **_: Responder(ref, Unsure(), question="Text: {text}\nLabel:"))


@pytest.mark.usefixtures("unsure")
def test_learn_by_answers_asks_the_local_model_how_sure_it_is(duelled: Path) -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"')
    done = nomoat("route", "learn", "fake:", "openai:big", "--suite", str(duelled), "--by", "answer")
    assert done.returncode == 0
    by, auc = done.stdout.splitlines()[1:3]
    assert (by, auc[:9]) == ("by how sure `fake:` is of its answer, on prompts the router had not seen:", "  AUC 0.8")
    told = json.loads(nomoat("route", "explain", "compute the sum of 77", "--json", NOMOAT_OFFLINE="0").stdout)
    assert (told["where"], told["rule"], told["score"]) == ("local", "learned", None)
    why = "local answers first, and what it is not sure enough of goes to the cloud"
    assert told["why"] == f"{why}, if `fake:` is the same as when the router was learned"
    assert "  (learned, by how sure the first is of its answer, if `fake:` is" in nomoat("route", "policy").stdout
    assert json.loads(nomoat("route", "policy", "--json").stdout)["router"]["by"] == "answer"


@pytest.mark.usefixtures("unsure")
def test_learn_of_a_model_that_was_tuned_on_a_table_keeps_the_better_router(duelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the prompts all of these can be told apart, by the answers most."""
    monkeypatch.setattr("nomoat.references.names_weights", lambda ref: ref == "fake:")
    command = ("route", "learn", "fake:", "openai:big", "--suite", str(duelled), "--json")
    for by, kept in (((), "prompt"), (("--by", "answer"), "answer"), (("--by", "prompt"), "prompt")):
        told = json.loads(nomoat(*command, *by).stdout)
        assert (told["by"], told["figures"]["auc"] == 1.0) == (kept, kept == "prompt")


def test_what_a_router_goes_by_is_one_of_two(duelled: Path) -> None:
    done = nomoat("route", "learn", "fake:", "openai:big", "--suite", str(duelled), "--by", "luck")
    assert (done.returncode, done.stderr) == (1, "error: `--by` is 'luck'\nhint: known are prompt, answer\n")


def test_learn_says_when_the_policy_does_not_use_it(duelled: Path) -> None:
    done = nomoat("route", "learn", "fake:", "openai:big", "--suite", str(duelled), "--json")
    figures = json.loads(done.stdout)["figures"]
    assert (figures["num_prompts"], figures["frontier"]["gap"]["value"]) == (50, 0.5)
    router = json.loads(nomoat("route", "policy", "--json").stdout)["router"]
    assert (router["figures"], router["why_not"]) == (figures, "the router was learned for `fake:` and `openai:big`")
    assert nomoat("route", "policy").stdout.endswith(
        "router             fake: or openai:big  (not in use: the router was learned for `fake:` and `openai:big`)\n"
    )
    assert done.stderr == (
        f'not in use yet: the policy names none and none\nhint: write local = "fake:" and cloud = "openai:big" into {default_path()}\n'
    )


def test_the_same_questions_under_two_names_are_learned_from_once_and_so_it_is_said(duelled: Path) -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"')
    again = duelled.with_name("moat.jsonl")
    again.write_bytes(duelled.read_bytes())
    done = nomoat("route", "learn", "fake:", "openai:big", "-s", str(duelled), "-s", str(again), "-s", str(duelled), "--json")
    assert done.stderr == "`moat` has the questions of `castle`, and they count once\n"
    said = json.loads(done.stdout)
    assert (said["suites"], said["figures"]["num_prompts"]) == (["castle"], 50)
    assert json.loads(nomoat("route", "policy", "--json").stdout)["router"]["suites"] == ["castle"]


def test_learn_shows_a_person_what_it_is_at(duelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 prompts took minutes without a word."""
    monkeypatch.setattr("nomoat.cli.console.shows_bars", lambda: True)
    done = nomoat("route", "learn", "fake:", "openai:big", "-s", str(duelled), FORCE_COLOR="1")
    assert f"reading {duelled}" in done.stderr
    assert "learning from 50 prompts" in done.stderr
    assert re.search("83%", done.stderr)


def test_learn_tells_a_log_how_far_it_is(duelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    done = nomoat("route", "learn", "fake:", "openai:big", "-s", str(duelled))
    assert "learning from 50 prompts: 0%\n" in done.stderr and "learning from 50 prompts: 83%\n" in done.stderr


def test_learn_says_that_there_is_no_gap_and_what_the_thresholds_do(duelled: Path) -> None:
    """`fake:` is good at names, and `other` at sums: together they are better than either, and neither is better."""
    suite = load_suite(duelled)
    outcomes = [
        Outcome(suite=suite.name, example_id=one.id, model="other", answer="", score=float(one.id.startswith("compute")))
        for one in suite.examples
    ]
    with AnswerStore() as store:
        store.save_outcomes(suite.sha256, suite.metric, "digest of other", outcomes)
    done = nomoat("route", "learn", "fake:", "other", "--suite", str(duelled))
    assert "  the cloud's mean score cannot be told to be higher (+0.000 [-0.281, +0.276]): there is no gap to recover" in done.stdout
    assert "50.0 %  1.000 [0.951, 1.000]      0.500\n" in done.stdout
    frontier = json.loads(nomoat("route", "policy", "--json").stdout)["router"]["figures"]["frontier"]
    assert (frontier["apgr"], frontier["cpt50"], frontier["cpt80"]) == (None, None, None)


@pytest.mark.parametrize("by_this_nomoat", [True, False])
def test_learn_refuses_answers_that_the_local_model_would_not_give_by_now(
    by_this_nomoat: bool, duelled: Path, tiny_gguf: Path
) -> None:
    """Another release may import it otherwise: what is learned of those answers `auto` would not use."""
    suite = load_suite(duelled)
    with nomoat_load(str(tiny_gguf)) as model:
        digest = model.digest if by_this_nomoat else "digest of an older import"
    outcomes = [
        Outcome(suite=suite.name, example_id=one.id, model=str(tiny_gguf), answer="", score=float(one.id.startswith("what")))
        for one in suite.examples
    ]
    with AnswerStore() as store:
        store.save_outcomes(suite.sha256, suite.metric, digest, outcomes)
    done = nomoat("route", "learn", str(tiny_gguf), "openai:big", "--suite", str(duelled), "--json")
    assert (done.returncode == 0, learned.folder().exists()) == (by_this_nomoat, by_this_nomoat)
    if not by_this_nomoat:
        assert done.stderr == (
            f"error: `{tiny_gguf}` has changed, or this nomoat imports it otherwise, since these duels: "
            "a router learned from them would not be used\n"
            f"hint: duel again with this nomoat: `nomoat duel {tiny_gguf} openai:big --suite {duelled} --all`\n"
        )


def test_router_of_an_older_nomoat_has_to_be_learned_again_and_the_policy_is_shown_with_it(duelled: Path) -> None:
    write_policy('local = "fake:"\ncloud = "openai:big"')
    nomoat("route", "learn", "fake:", "openai:big", "--suite", str(duelled))
    path = learned.folder() / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    why = f"the learned router in `{learned.folder()}` is of an older nomoat: version 1 and not {learned.VERSION}"
    hint = "duel again with this nomoat (`nomoat duel LOCAL CLOUD -s SUITE --all`), then `nomoat route learn`; or remove that folder"
    done = nomoat("route", "policy")
    assert (done.returncode, done.stderr) == (0, f"`auto` answers nothing: {why}\nhint: {hint}\n")
    assert f"\ncloud              openai:big  ({default_path()})\n" in done.stdout
    assert done.stdout.endswith(f"\nrouter             none  (not in use: {why})\n")
    assert json.loads(nomoat("route", "policy", "--json").stdout)["router"]["why_not"] == why
    done = nomoat("route", "explain", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {why}\nhint: {hint}\n")


@pytest.mark.parametrize("local", ["fake:", "base+tuned"])
def test_learn_finds_the_duel_over_a_table_by_the_instruction_and_the_labels_it_was_asked_with(local: str, tmp_path: Path) -> None:
    folder = paths.adapters() / "tuned"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    learned_labels = {"question": "Which kind?", "labels": {"bridge": 1, "sum": 1, "other": 1}}
    (folder / "provenance.json").write_text(json.dumps({"data": learned_labels}))
    table = tmp_path / "castle.csv"
    kinds = {"bridge": "what is the name of bridge", "sum": "compute the sum of"}
    table.write_text("text,kind\n" + "".join(f"{words} {at},{kind}\n" for kind, words in kinds.items() for at in range(25)))
    suite = load_suite(table, input_column="text", label_column="kind", instruction="Which kind?", models=[local])
    with AnswerStore() as store:
        for model, hard in ((local, 0.0), ("openai:big", 1.0)):
            outcomes = [
                Outcome(suite=suite.name, example_id=one.id, model=model, answer="", score=1.0 if one.target == "bridge" else hard)
                for one in suite.examples
            ]
            store.save_outcomes(suite.sha256, suite.metric, f"digest of {model}", outcomes)
    asked = ("route", "learn", local, "openai:big", "--suite", str(table), "--input-column", "text", "--label-column", "kind")
    assert nomoat(*asked).stderr.endswith(
        f"error: no outcomes of `{local}` and `openai:big` on the same questions of `castle`\n"
        f"hint: fight it first: `nomoat duel {local} openai:big --suite {table} --input-column text --label-column kind --all`; "
        "of a table, the question depends on the models named together\n"
    )
    done = nomoat(*asked, "--instruction", "Which kind?")
    assert done.stdout.startswith(f"`{local}` is as good as `openai:big` on 25 of 50 prompts\n")
    note = "note: asked for besides the table's labels: other; `base+tuned` learned to choose from these, too\n"
    assert (note in done.stderr) == (local == "base+tuned")


def test_learn_without_a_duel_names_the_duel(duelled: Path) -> None:
    done = nomoat("route", "learn", "fake:", "openai:other", "--suite", str(duelled))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no outcomes of `fake:` and `openai:other` on the same questions of `castle`\n"
        f"hint: fight it first: `nomoat duel fake: openai:other --suite {duelled} --all`\n"
    )
    assert not learned.folder().exists()


def test_the_duel_that_is_named_has_a_judge_where_one_has_to_compare(tmp_path: Path) -> None:
    """Without one it would be refused; whoever fights it as it is named can learn from it."""
    path = tmp_path / "letters.jsonl"
    path.write_text("".join(f'{{"id": "{at}", "input": "question {at}"}}\n' for at in range(3)))
    path.with_suffix(".toml").write_text('metric = "judge"\n')
    done = nomoat("route", "learn", "fake:", "fake:", "--suite", str(path))
    duel = f"nomoat duel fake: fake: --suite {path} --judge MODEL --all"
    assert done.stderr.endswith(f"hint: fight it first: `{duel}`\n")
    fought = nomoat(*(word.replace("MODEL", "fake:") for word in duel.split()[1:]))
    assert (fought.returncode, "hint:" in fought.stderr) == (0, False)


def test_broken_policy_stops_every_command() -> None:
    write_policy("treshold = 0.9")
    done = nomoat("route", "explain", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: the policy `{default_path()}` sets `treshold`, which is no part of a policy\n"
        "hint: known: local, cloud, threshold, default, if_cloud_fails, max_wait_seconds, never_leaves, names, patterns, allowed, "
        "max_usd_per_day, max_usd_per_month, max_answer_tokens\n"
    )
