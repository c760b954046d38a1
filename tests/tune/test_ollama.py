"""The Modelfile: what Ollama would write with its template is what the model's own template writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.catalog import licences
from nomoat.engine import templates
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.tokenizer import Tokenizer
from nomoat.records import Message, Parent
from nomoat.tune import ollama

CHATML = """FROM ./mine.gguf
TEMPLATE \"""{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
<|im_start|>user
{{ else }}<|im_start|>user
{{ end }}{{ $asked := false }}{{ $answered := false }}{{ range .Messages }}{{ if or (eq .Role "user") (eq .Role "tool") }}\
{{ if $answered }}<|im_end|>
<|im_start|>user
{{ else if $asked }}

{{ end }}{{ .Content }}{{ $asked = true }}{{ $answered = false }}{{ else if eq .Role "assistant" }}{{ if $asked }}<|im_end|>
<|im_start|>assistant
{{ end }}{{ .Content }}{{ $asked = false }}{{ $answered = true }}{{ end }}{{ end }}{{ if $asked }}<|im_end|>
<|im_start|>assistant
{{ end }}\"""
PARAMETER stop "<|endoftext|>"
PARAMETER stop "<|im_end|>"
PARAMETER temperature 0
PARAMETER repeat_penalty 1
PARAMETER num_ctx 256
"""


@pytest.fixture
def tokenizer(tiny_gguf: Path) -> Tokenizer:
    return GGUFFile(tiny_gguf).read_tokenizer()


def test_the_modelfile_holds_the_template_in_go_and_what_ends_an_answer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ollama.write_modelfile(tmp_path / "Modelfile", model=tmp_path / "mine.gguf", tokenizer=tokenizer, context_tokens=256)
    assert (tmp_path / "Modelfile").read_text() == CHATML


def test_the_modelfile_holds_the_terms(tokenizer: Tokenizer, tmp_path: Path) -> None:
    terms = licences.of_parents([Parent(kind="data", name="d", licence="own"), Parent(kind="base", name='a"""b', licence="mit")])
    target, model = tmp_path / "Modelfile", tmp_path / "mine.gguf"
    ollama.write_modelfile(target, model=model, tokenizer=tokenizer, context_tokens=256, terms=terms)
    told = target.read_text().removeprefix(CHATML)
    assert told.startswith("LICENSE \"\"\"commercial use: yes\n  condition of base a'''b: whoever passes it on keeps")
    assert "  data d: the maker's own data -> yes\n    source: the maker's own, where" in told
    assert told.endswith('source: opensource.org/license/mit"""\n') and told.count('"""') == 2


def test_the_modelfile_says_what_ollama_cuts_and_refuses(tokenizer: Tokenizer, tmp_path: Path) -> None:
    target, model = tmp_path / "Modelfile", tmp_path / "mine.gguf"
    ollama.write_modelfile(target, model=model, tokenizer=tokenizer, context_tokens=32_768)
    assert "the model reads up to 32768 tokens, which takes more memory.\nPARAMETER num_ctx 4096\n" in target.read_text()
    assert "tools" not in target.read_text()
    tokenizer.chat_template = "{% if tools %}{{ tools }}{% endif %}" + (
        "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls }}{% endif %}[{{ m.content }}]{% endfor %}>"
    )
    ollama.write_modelfile(target, model=model, tokenizer=tokenizer, context_tokens=256)
    assert "has no place for tools: Ollama uses the file's, which has; before 0.30 it refuses them.\n" in target.read_text()


@pytest.mark.parametrize("name", templates.NAMED)
def test_every_named_template_can_be_written(tokenizer: Tokenizer, name: str) -> None:
    tokenizer.use_template(name)
    around = ollama.around_messages(tokenizer)
    assert around is not None
    roles = ("user", "assistant", "user")
    turns = ("the hello", "yes", "and now?")
    messages = [Message(role=role, content=turn) for role, turn in zip(roles, turns, strict=True)]  # type: ignore[arg-type]
    assert around.render(None, turns) == tokenizer.render(messages)
    assert around.render("Be kind.", turns) == tokenizer.render([Message(role="system", content="Be kind."), *messages])


def test_a_default_system_message_is_kept_and_gives_way_to_one_that_is_given(tokenizer: Tokenizer) -> None:
    tokenizer.use_template("mpt-7b-chat")
    around = ollama.around_messages(tokenizer)
    assert around is not None
    go = around.as_go()
    assert go.count("You are a helpful assistant chatbot") == 1
    assert go.index("{{ else }}") < go.index("You are a helpful assistant chatbot") < go.index("{{ end }}")


def test_a_template_without_place_for_a_system_message_is_written_without_one(tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.content }}]{% endfor %}>"
    )
    around = ollama.around_messages(tokenizer)
    assert around is not None and around.system is None
    assert around.as_go().startswith("[{{ $asked")


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",  # counts
        "{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}",  # Go's own sign
        "{{ messages[-1].content }}",  # forgets
    ],
)
def test_a_template_that_cannot_be_written_is_not_guessed(tokenizer: Tokenizer, template: str | None, tmp_path: Path) -> None:
    tokenizer.chat_template = template
    assert ollama.around_messages(tokenizer) is None
    ollama.write_modelfile(tmp_path / "Modelfile", model=tmp_path / "mine.gguf", tokenizer=tokenizer, context_tokens=10_000)
    text = (tmp_path / "Modelfile").read_text()
    assert "TEMPLATE" not in text and "num_ctx 4096" in text
    assert "cannot be written as one of Ollama's: it takes a near one, or else the file's; before 0.30, none.\n" in text


def test_the_token_that_begins_a_text_is_left_to_ollama_s_tokenizer(tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}>"
    around = ollama.around_messages(tokenizer)
    assert around is not None
    assert around.begin == ("[" if tokenizer.special.add_bos else "<|im_start|>[")


@pytest.mark.data
def test_qwen_s_template_with_tools_is_written_with_its_default_system_message(qwen_coder_gguf: Path) -> None:
    around = ollama.around_messages(GGUFFile(qwen_coder_gguf).read_tokenizer())
    assert around is not None
    assert around.begin.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")
    assert around.after_last_question == "<|im_end|>\n<|im_start|>assistant\n"
