"""Commercial use, computed over the whole chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from nomoat.catalog import cards, licences
from nomoat.errors import UsageError
from nomoat.records import Parent

TERMS = """
["mpl-2.0"]
title = "Mozilla Public License 2.0"
commercial = "yes, if"
conditions = ["publish changed files"]
source = "mozilla.org/MPL/2.0"
confirmed = "read"
"""


def verdict(model_id: str) -> licences.ChainVerdict:
    return licences.chain(cards.card(model_id))


def tuned_on(model_id: str | None, parents: Sequence[Parent]) -> licences.ChainVerdict:
    return licences.chain_of_all(licences.chain(None if model_id is None else cards.card(model_id)), licences.of_parents(parents))


@pytest.mark.parametrize(
    ("model_id", "commercial"),
    [
        ("openllama-7b", "yes"),
        ("gpt-j-6b", "yes"),
        ("falcon-40b", "yes"),
        ("mpt-7b", "yes"),
        ("qwen2.5-coder-0.5b", "yes"),
        ("llama2-13b", "yes, if"),
        ("mpt-7b-instruct", "yes, if"),
        ("smollm2-135m", "yes, if"),
        ("bloom-560m", "yes, with use restrictions"),
        ("gemma3-270m", "yes, with use restrictions"),
        ("llama-65b", "no"),
        ("opt-125m", "no"),
        ("alpaca-7b", "no"),
        ("vicuna-13b-v1.1", "no"),
        ("vicuna-13b-v1.5", "no"),
        ("mpt-7b-chat", "no"),
    ],
)
def test_verdict(model_id: str, commercial: str) -> None:
    assert verdict(model_id).commercial == commercial


@pytest.mark.parametrize(
    ("given", "broken", "why"),
    [
        ('"yes, if"', '"yes, with conditions"', "commercial is 'yes, with conditions'"),
        ('"read"', '"Read"', "confirmed is 'Read'"),
        ('["publish changed files"]', '"publish changed files"', "conditions are no list of texts"),
        ('["publish changed files"]', "[1]", "conditions are no list of texts"),
        ('"mozilla.org/MPL/2.0"', '""', "title or source is no text"),
        ("conditions", "condition", "unexpected keyword argument 'condition'"),
        ("source", "sources", "unexpected keyword argument 'sources'"),
        ('source = "mozilla.org/MPL/2.0"', "", "missing 1 required keyword-only argument: 'source'"),
    ],
)
def test_terms_that_cannot_be_are_a_bug_that_names_them(given: str, broken: str, why: str) -> None:
    assert licences.parse_licences(TERMS)["mpl-2.0"].conditions == ("publish changed files",)
    with pytest.raises(ValueError, match=rf"^licences\.toml, mpl-2\.0: .*{why}"):
        licences.parse_licences(TERMS.replace(given, broken))


def test_alpaca_is_no_because_of_its_base_its_data_and_its_teacher() -> None:
    found = verdict("alpaca-7b")
    assert [(link.role, link.name) for link in found.deciding] == [
        ("weights", "alpaca-7b"),
        ("base", "llama-7b"),
        ("data", "Alpaca data (52K instructions)"),
        ("teacher", "text-davinci-003"),
    ]
    assert all(link.source for link in found.links)
    assert found.unconfirmed == ()


def test_llama2_names_its_users_and_the_training_of_other_models() -> None:
    conditions = " ".join(verdict("llama2-7b").conditions)
    assert "700 million monthly users" in conditions
    assert "improve any other large language model" in conditions


def test_vicuna_v15_is_released_under_llama2_but_its_teacher_decides() -> None:
    found = verdict("vicuna-7b-v1.5")
    assert found.links[0].commercial == "yes, if"
    assert [link.role for link in found.deciding] == ["teacher"]
    assert ("data", "unknown") in [(link.role, link.commercial) for link in found.links]


def test_terms_nobody_checked_are_shown_as_unconfirmed() -> None:
    assert [link.name for link in verdict("qwen2.5-7b").unconfirmed] == ["qwen2.5-7b"]
    assert verdict("qwen2.5-0.5b").unconfirmed == ()
    assert [link.licence for link in verdict("palm2").unconfirmed] == ["google-terms"]


def test_a_link_is_confirmed_only_if_its_terms_are_too() -> None:
    parent = Parent(kind="teacher", name="Gemini", licence="google-terms", source="its card", confirmed="read")
    assert [link.name for link in tuned_on("openllama-3b", [parent]).unconfirmed] == ["Gemini"]


@pytest.mark.parametrize(
    ("licence", "commercial"),
    [
        ("own", "yes"),
        ("cc-by-sa-3.0", "yes, if"),
        ("gemma", "yes, with use restrictions"),
        ("unknown", "unknown"),
        ("a licence of my own making", "unknown"),
        ("cc-by-nc-4.0", "no"),
    ],
)
def test_the_data_of_a_tuned_model_is_part_of_its_chain(licence: str, commercial: str) -> None:
    data = Parent(kind="data", name="고객 문의.csv", licence=licence)
    assert tuned_on("openllama-3b", [data]).commercial == commercial


def test_each_condition_says_whose_it_is() -> None:
    assert licences.reasons(verdict("smollm2-135m"))[-1] == (
        "condition of teacher GPT-4 (ratings and some answers in UltraFeedback): "
        "its output is not used to develop models that compete with OpenAI"
    )
    both = [Parent(kind="data", name=name, licence="cc-by-4.0") for name in ("a.csv", "b.csv")]
    assert licences.reasons(tuned_on("qwen2.5-0.5b", both))[-1] == "condition of data a.csv, data b.csv: name the authors"


def test_what_goes_along_with_copies_is_asked_of_weights_and_not_of_what_they_learned_from() -> None:
    found = tuned_on("qwen2.5-0.5b", [Parent(kind="data", name="d", licence="mit")])
    assert (found.commercial, licences.reasons(found)) == (
        "yes",
        [
            "condition of qwen2.5-0.5b itself: whoever passes it on, or what is made from it, adds the licence, keeps the notices, "
            "and says what was changed"
        ],
    )


def test_conditions_stand_beside_a_no_and_an_unknown() -> None:
    found = licences.reasons(verdict("vicuna-7b-v1.5"))
    assert found[0].startswith("because of teacher ChatGPT: ")
    assert "condition of vicuna-7b-v1.5 itself, base Llama 2 base: Meta's acceptable use policy is followed" in found[-1]
    assert not any("ShareGPT" in reason for reason in found)  # allows nothing
    unknown = licences.reasons(tuned_on("gemma3-270m", [Parent(kind="data", name="u", licence="unknown")]))
    assert unknown[0] == "because of data u: terms not known"
    assert unknown[1] == "condition of gemma3-270m itself: the uses in Google's prohibited use policy are forbidden"


def test_no_outweighs_unknown_and_unknown_outweighs_conditions() -> None:
    unknown, no = Parent(kind="data", name="u", licence="unknown"), Parent(kind="data", name="n", licence="opt")
    assert tuned_on("llama2-7b", [unknown]).commercial == "unknown"
    assert tuned_on("llama2-7b", [unknown, no]).commercial == "no"


def test_conditions_and_restrictions_on_use_add_up_and_the_verdict_says_both() -> None:
    found = tuned_on("bloom-560m", [licences.teacher("openai:gpt-4o-mini")])
    assert licences.in_short(found) == "yes, if, with use restrictions (BigScience BLOOM RAIL 1.0, OpenAI terms of use)"
    assert len(found.conditions) == 3
    assert licences.from_dict(json.loads(json.dumps(licences.as_dict(found)))) == found
    assert tuned_on("bloom-560m", [Parent(kind="data", name="u", licence="unknown")]).commercial == "unknown"


@pytest.mark.parametrize(
    ("base", "data", "together"),
    [
        ("gemma3-270m", ["cc-by-sa-4.0"], "Creative Commons BY-SA 4.0 and Gemma Terms of Use"),
        ("qwen2.5-0.5b", ["cc-by-sa-4.0", "cc-by-nc-sa-4.0"], "Creative Commons BY-SA 4.0 and Creative Commons BY-NC-SA 4.0"),
        ("qwen2.5-0.5b", ["cc-by-sa-3.0", "cc-by-sa-4.0"], None),  # what is under 3.0 may be passed on under 4.0
        ("qwen2.5-0.5b", ["cc-by-sa-4.0", "llama3.1"], None),  # as data: the terms go along with weights
        ("gemma3-270m", ["cc-by-4.0"], None),
    ],
)
def test_terms_that_may_not_be_kept_together_are_said_to_be_so(base: str, data: list[str], together: str | None) -> None:
    found = licences.reasons(tuned_on(base, [Parent(kind="data", name=one, licence=one) for one in data]))
    notes = [line.partition(" may not be kept together by who publishes the result: ")[0] for line in found if "note: " in line]
    assert notes == ([] if together is None else [f"note: {together}"])


def test_a_teacher_on_this_machine_teaches_on_the_terms_of_all_it_was_made_from() -> None:
    found = licences.taught_by("vicuna-7b-v1.5", verdict("vicuna-7b-v1.5"))
    assert {parent.kind for parent in found} == {"teacher"}
    assert found[0].name == "vicuna-7b-v1.5"
    assert "vicuna-7b-v1.5 (teacher ChatGPT)" in [parent.name for parent in found]
    assert licences.of_parents(found).commercial == "no"
    tuned = tuned_on("openllama-3b", [Parent(kind="data", name="mine", licence="own")])
    assert [parent.name for parent in licences.taught_by("openllama-3b+x", tuned)] == ["openllama-3b+x (weights openllama-3b)"]


@pytest.mark.parametrize(
    "ref", ["openai:gpt-4o-mini", "google:gemini-2.5-pro", "anthropic:claude", "https://api.openai.com/v1#gpt-4o"]
)
def test_a_provider_as_a_teacher_forbids_competing_assistants(ref: str) -> None:
    parents = licences.taught_by(ref, None)
    assert licences.of_parents(parents).commercial == "yes, if"
    assert licences.of_parents(licences.for_assistant(parents)).commercial == "no"


def test_whose_output_the_teacher_itself_learned_from_is_no_teacher_of_an_assistant() -> None:
    parents = licences.taught_by("smollm2-135m", verdict("smollm2-135m"))
    assert "openai-terms" in [parent.licence for parent in parents]
    assert licences.for_assistant(parents) == parents


@pytest.mark.parametrize(
    ("student", "commercial"), [("smollm2-135m", "no"), ("openllama-3b", "no"), ("llama2-13b", "yes, if"), (None, "no")]
)
def test_what_llama2_wrote_may_teach_llama2_alone(student: str | None, commercial: str) -> None:
    parents = licences.taught_by("llama2-7b", verdict("llama2-7b"))
    found = tuned_on(student, parents)
    assert found.commercial == commercial
    assert [(link.role, link.name) for link in found.deciding if link.role == "teacher"] == [("teacher", "llama2-7b")]
    assert licences.from_dict(json.loads(json.dumps(licences.as_dict(found)))) == found
    if commercial == "no":
        assert [link.conditions for link in found.deciding] == [licences.licence("llama2-output").conditions]


@pytest.mark.parametrize(
    ("teacher", "base", "commercial"),
    [
        ("llama3", "llama3", "yes, if"),
        ("llama3", "apache-2.0", "no"),
        ("llama3", "llama3.1", "no"),
        ("llama3.1", "apache-2.0", "yes, if"),
        ("llama3.3", "llama3.2", "yes, if"),
        ("exaone", "exaone", "no"),
    ],
)
def test_each_llama_has_terms_of_its_own_on_what_it_wrote(teacher: str, base: str, commercial: str) -> None:
    parents = [Parent(kind="base", name="b", licence=base), Parent(kind="teacher", name="t", licence=teacher)]
    assert licences.of_parents(parents).commercial == commercial


def test_what_llama2_wrote_is_bound_by_its_terms_at_any_remove() -> None:
    parents = licences.taught_by("llama2-7b", verdict("llama2-7b"))
    assert licences.of_parents(parents).commercial == "no"
    student = tuned_on("openllama-3b", parents)
    second = licences.taught_by("openllama-3b+student", student)
    assert tuned_on("gpt-j-6b", second).commercial == "no"
    assert licences.chain_of_all(verdict("llama2-13b"), licences.of_parents(second)).commercial == "yes, if"
    for kind in ("data", "teacher"):
        stated = Parent(kind=kind, name="x", licence="llama2")  # type: ignore[arg-type]
        assert tuned_on("openllama-3b", [stated]).commercial == "no"
    assert verdict("llama2-7b").commercial == "yes, if"


def test_terms_the_user_states_stand_in_for_unknown_ones_only() -> None:
    found = tuned_on("openllama-3b", [Parent(kind="data", name="not recorded", licence="unknown")])
    weights, data = licences.with_stated(licences.taught_by("openllama-3b+x", found), "cc-by-4.0")
    assert (weights.licence, data.licence, data.source) == ("apache-2.0", "cc-by-4.0", "stated by the user")
    with pytest.raises(UsageError) as caught:
        licences.with_stated(licences.taught_by("openai:gpt-4o", None), "apache-2.0")
    assert caught.value.message == (
        "the terms are known, and `apache-2.0` cannot stand in for them: openai:gpt-4o: OpenAI terms of use"
    )


def test_a_chain_of_an_earlier_nomoat_has_the_conditions_of_today() -> None:
    """Whoever went on from such an adapter had its base in the chain twice."""
    now = licences.of_parents(
        [Parent(kind="base", name="b", licence="apache-2.0"), Parent(kind="data", name="d", licence="house terms")]
    )
    told = json.loads(json.dumps(licences.as_dict(now)))
    told["links"][0]["conditions"], told["links"][1]["conditions"] = [], ["ask us"]
    read = licences.from_dict(told)
    assert read.links == (now.links[0], replace(now.links[1], conditions=("ask us",)))
    assert licences.chain_of_all(read, licences.of_parents([Parent(kind="base", name="b", licence="apache-2.0")])).links == read.links


def test_the_user_s_own_data_are_told_in_short_where_nothing_else_decides() -> None:
    own, base = Parent(kind="data", name="d", licence="own"), Parent(kind="base", name="b", licence="mit")
    assert licences.in_short(licences.of_parents([base, own])) == "yes (MIT License)"
    assert licences.in_short(licences.of_parents([own])) == "yes (your own data)"


def test_what_a_model_wrote_is_never_stated_to_be_the_user_s_own() -> None:
    with pytest.raises(UsageError) as caught:
        licences.with_stated(licences.taught_by("http://127.0.0.1:9/v1#m", None), "own")
    assert caught.value.message == "`own` is for data of yours, and what a model writes has the terms of the model"


def test_terms_of_an_unknown_name_are_refused_and_the_known_ones_listed() -> None:
    assert licences.require_known("CC-BY-4.0") == "cc-by-4.0"
    with pytest.raises(UsageError) as caught:
        licences.require_known("MIT ")
    assert caught.value.message == "no terms are called `MIT `"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean `mit`? those known are: own, unknown, apache-2.0, mit, ")
    nothing: Any = None
    with pytest.raises(UsageError, match="a licence's name is of the type NoneType, not a text"):
        licences.require_known(nothing)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("apache", "apache-2.0"),
        ("Apache 2", "apache-2.0"),
        ("cc-by-nc", "cc-by-nc-4.0"),
        ("cc by sa", None),  # 3.0 or 4.0
        ("cc-by-sa-2.0", None),
        ("cc-by-nc-sa-3.0", None),
        ("cc-by-nd-4.0", None),
        ("cc-by-2.0", None),  # not that of France
        ("llama3.4", None),
        ("exaone-3.5", None),
        ("proprietary", None),
        ("-", None),
    ],
)
def test_no_other_licence_or_version_is_suggested(given: str, meant: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        licences.require_known(given)
    assert caught.value.hint is not None and caught.value.hint.endswith("; all others are `unknown`")
    assert ("did you mean" in caught.value.hint, f"did you mean `{meant}`?" in caught.value.hint) == (meant is not None,) * 2


def test_weights_of_unknown_origin_make_the_chain_unknown() -> None:
    assert tuned_on(None, [Parent(kind="data", name="mine", licence="own")]).commercial == "unknown"


def test_the_own_data_of_the_user_needs_no_confirmation() -> None:
    found = tuned_on("openllama-3b", [Parent(kind="data", name="mine", licence="own")])
    assert found.unconfirmed == ()


@pytest.mark.parametrize(
    ("ref", "licence"),
    [
        ("openai:gpt-4o-mini", "openai-terms"),
        ("google:gemini-2.5-flash", "google-terms"),
        ("anthropic:claude-haiku-4-5", "anthropic-terms"),
        ("llama2-7b", "llama2"),
        ("http://127.0.0.1:11434/v1#m", "unknown"),
        ("https://api.openai.com/v1#gpt-4o", "openai-terms"),
        ("https://API.Anthropic.com:443/v1#claude-haiku-4-5", "anthropic-terms"),
        ("https://api.openai.com.example/v1#gpt-4o", "unknown"),
        ("http://[::1/v1#m", "unknown"),
    ],
)
def test_a_teacher_brings_the_terms_on_its_output(ref: str, licence: str) -> None:
    assert licences.teacher(ref).licence == licence


def test_a_chain_survives_being_written_down() -> None:
    found = verdict("alpaca-7b")
    assert licences.from_dict(json.loads(json.dumps(licences.as_dict(found)))) == found
