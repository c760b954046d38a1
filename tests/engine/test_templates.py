"""The texts of the named templates, letter by letter, as their models were tuned on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import TEMPLATE, write_adapter, write_tiny_gguf

from nomoat import references, responder
from nomoat.catalog import cards
from nomoat.engine import folder_tokenizer, templates
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import UnsupportedError, UsageError
from nomoat.hardware import Detected
from nomoat.records import Message, Request

U1, A1, U2 = Message(role="user", content="hi"), Message(role="assistant", content="hello"), Message(role="user", content="and?")
SYSTEM = Message(role="system", content="Be brief.")
EMPTY = Message(role="system", content="")  # as clients send where nothing was set
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
MPT = (
    "<|im_start|>system\n"
    "- You are a helpful assistant chatbot trained by MosaicML.\n"
    "- You answer questions.\n"
    "- You are excited to be able to help the user, but will refuse to do anything that could be considered harmful to the user.\n"
    "- You are more than just an information source, you are also able to write poetry, short stories, and make jokes.<|im_end|>\n"
)
TEXTS = [
    ("alpaca", (U1,), ALPACA + "### Instruction:\nhi\n\n### Response:"),
    ("alpaca", (U1, A1, U2), ALPACA + "### Instruction:\nhi\n\n### Response:hello</s>### Instruction:\nand?\n\n### Response:"),
    ("alpaca", (SYSTEM, U1), "Be brief.\n\n### Instruction:\nhi\n\n### Response:"),
    (
        "alpaca",
        (Message(role="user", content="Translate.\n\n### Input:\n안녕"),),
        ALPACA_INPUT + "### Instruction:\nTranslate.\n\n### Input:\n안녕\n\n### Response:",
    ),
    ("vicuna_v1.1", (U1,), VICUNA + "USER: hi ASSISTANT:"),
    ("vicuna_v1.1", (U1, A1, U2), VICUNA + "USER: hi ASSISTANT: hello</s>USER: and? ASSISTANT:"),
    ("vicuna_v1.1", (SYSTEM, U1), "Be brief. USER: hi ASSISTANT:"),
    ("llama-2", (U1,), "[INST] hi [/INST]"),
    ("llama-2", (U1, A1, U2), "[INST] hi [/INST] hello </s><s>[INST] and? [/INST]"),
    ("llama-2", (SYSTEM, U1), "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhi [/INST]"),
    ("llama-2", (EMPTY, U1), "[INST] hi [/INST]"),
    ("falcon", (U1,), "User: hi\n\nAssistant:"),
    ("falcon", (U1, A1, U2), "User: hi\n\nAssistant: hello\n\nUser: and?\n\nAssistant:"),
    ("falcon", (SYSTEM, Message(role="user", content="a\r\n\r\nb")), "Be brief.\n\nUser: a\nb\n\nAssistant:"),
    ("falcon", (EMPTY, U1), "User: hi\n\nAssistant:"),
    ("mpt-7b-chat", (U1,), MPT + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
    ("mpt-7b-chat", (SYSTEM, U1), "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
    (
        "chatml",
        (U1, A1, U2),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nand?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        "gemma",
        (U1, A1, U2),
        "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nhello<end_of_turn>\n<start_of_turn>user\nand?<end_of_turn>\n"
        "<start_of_turn>model\n",
    ),
    ("gemma", (SYSTEM,), "<start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>model\n"),
    ("gemma", (SYSTEM, U1), "<start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\n"),
]


def llama_like(path: Path) -> Tokenizer:
    """A tokenizer whose texts begin with <s> and end with </s>, from a file without a template."""
    metadata = dict(GGUFFile(write_tiny_gguf(path / "t.gguf", template=None)).metadata)
    names = {0: "<unk>", 1: "<s>", 2: "</s>"}
    tokens = [names.get(at, token) for at, token in enumerate(metadata["tokenizer.ggml.tokens"])]
    return from_metadata({**metadata, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.add_bos_token": True})


@pytest.mark.parametrize(("name", "messages", "text"), TEXTS)
def test_the_text_is_the_one_the_model_was_tuned_on(name: str, messages: tuple[Message, ...], text: str, tmp_path: Path) -> None:
    tokenizer = llama_like(tmp_path)
    tokenizer.use_template(name)
    assert tokenizer.render(messages) == text
    ids = tokenizer.prompt_ids(Request(messages=messages))
    assert ids[0] == tokenizer.special.bos_id and ids[1:] == tokenizer.encode(text)


@pytest.mark.parametrize("name", ["alpaca", "vicuna_v1.1", "llama-2", "falcon", "gemma"])
def test_a_system_message_in_the_middle_is_refused(name: str, tmp_path: Path) -> None:
    tokenizer = llama_like(tmp_path)
    tokenizer.use_template(name)
    with pytest.raises(UnsupportedError, match="this template has no place for the role system"):
        tokenizer.render((U1, A1, SYSTEM, U2))


def test_a_name_that_is_not_known_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        llama_like(tmp_path).use_template("koala")
    assert caught.value.message == "no chat template is called `koala`"
    assert caught.value.hint == f"known: {', '.join(sorted(templates.NAMED))}"


def test_every_template_of_the_catalogue_is_known() -> None:
    assert {card.template for card in cards.cards() if card.template} <= set(templates.NAMED)


def test_every_template_has_its_texts_here_and_a_line_in_the_docs() -> None:
    assert {name for name, *_ in TEXTS} == set(templates.NAMED)
    page = (Path(__file__).parents[2] / "docs" / "run.md").read_text(encoding="utf-8")
    table = page.partition("\n| name | a first question becomes |\n")[2].partition("\n\n")[0]
    names = [name for line in table.splitlines()[1:] for name in re.findall("`(.+?)`", line.split(" | ")[0])]
    assert sorted(names) == sorted(templates.NAMED)


@pytest.fixture
def without_template(tmp_path: Path) -> Path:
    """A file without a template that bears the name of Vicuna's."""
    return write_tiny_gguf(tmp_path / "vicuna-7b-v1.5.Q4_K_M.gguf", template=None)


def test_a_file_without_a_template_gets_its_cards(without_template: Path) -> None:
    with responder.load(str(without_template)) as model:
        assert model.template == Detected("vicuna_v1.1", "from its card: the file has none")
        assert model.engine.count_tokens(Request(messages=(U1,))) == model.engine.count_tokens(
            Request(prompt=VICUNA + "USER: hi ASSISTANT:")
        )


@pytest.mark.parametrize("text", ["", " \n", "llama2", "{{ bos_token }}the"])
def test_a_template_that_shows_no_question_is_none(text: str, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "vicuna-7b-v1.5.Q4_K_M.gguf", template=text)
    with responder.load(str(path)) as model:
        assert model.template == Detected("vicuna_v1.1", "from its card: the file has none")
    assert GGUFFile(path).chat_template is None
    assert GGUFFile(path).read_tokenizer().templates == {}
    (tmp_path / "chat_template.jinja").write_text(text)
    assert folder_tokenizer.chat_templates(tmp_path) == (None, None)


def test_a_file_may_name_its_template(tmp_path: Path) -> None:
    """As llama.cpp takes the name `chatml`."""
    path = write_tiny_gguf(tmp_path / "chatml.gguf", template="chatml\n")
    with responder.load(str(path)) as model:
        assert model.template == Detected("chatml", "as its file names it")
        assert model.engine.count_tokens(Request(messages=(U1,))) == model.engine.count_tokens(
            Request(prompt="<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        )
    assert references.find_files(str(path)).read_tokenizer(GGUFFile(path)).chat_template == templates.NAMED["chatml"].text


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_so_may_an_adapters_folder(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    (adapter / name).write_text("falcon\n" if name.endswith("jinja") else '{"chat_template": "falcon"}')
    with responder.load(f"{tiny_gguf}+{adapter}") as model:
        assert model.template == Detected("falcon", "as its file names it")
        assert model.engine.tokenizer is not None
        assert model.engine.tokenizer.prompt_text(Request(messages=(U1,))) == ("User: hi\n\nAssistant:", True)
    files = references.find_files(f"{tiny_gguf}+{adapter}")
    assert files.read_tokenizer(GGUFFile(tiny_gguf)).chat_template == templates.NAMED["falcon"].text


def test_where_the_only_template_is_the_one_with_functions_every_conversation_has_it(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf", template=[{"name": "tool_use", "template": TEMPLATE}])
    assert GGUFFile(path).chat_template == TEMPLATE
    assert GGUFFile(path).read_tokenizer().templates == {"default": TEMPLATE}


def test_a_template_that_is_asked_for_goes_before_the_files_and_other_prompts_are_other_answers(tiny_gguf: Path) -> None:
    with responder.load(str(tiny_gguf)) as own, responder.load(str(tiny_gguf), template="falcon") as asked:
        assert (own.template, asked.template) == (None, Detected("falcon", "as asked"))
        assert own.digest != asked.digest
        assert asked.engine.count_tokens(Request(messages=(U1,))) == asked.engine.count_tokens(
            Request(prompt="User: hi\n\nAssistant:")
        )


@pytest.mark.parametrize("ref", ["fake:", "http://127.0.0.1:9/v1#m", "stored:vicuna80/gpt35"])
def test_a_template_is_refused_where_nobody_would_use_it(ref: str) -> None:
    with pytest.raises(UsageError) as caught:
        responder.load(ref, template="falcon")
    assert caught.value.message == f"`{ref}` takes no chat template, and `falcon` is named"
    assert caught.value.hint == "leave out `--template` (in Python: `template`), which is for weights on this disk"


def test_a_model_without_template_and_card_says_what_to_do(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "nameless.gguf", template=None)
    with responder.load(str(path)) as model, pytest.raises(UnsupportedError) as caught:
        model.complete(Request(messages=(U1,)))
    assert caught.value.message == "this model has no chat template: it completes texts, it does not chat"
    assert caught.value.hint == (
        "use `run --raw` (in Python: `Request(prompt=…)`) or `POST /v1/completions`, or `--template NAME` (in Python: `template`) "
        "for the one it was tuned with: `chatml` fits its tokens; known are "
        f"{', '.join(sorted(templates.NAMED))}"
    )


def test_a_templates_stops_end_an_answer_of_a_conversation_and_no_raw_text(tiny_gguf: Path) -> None:
    with responder.load(str(tiny_gguf), template="falcon") as model:
        asked = Request(messages=(U1,), max_new_tokens=20)
        tokenizer = model.engine.tokenizer  # type: ignore[attr-defined]
        assert tokenizer.stops == ("\nUser",)
        whole = model.complete(asked).text
        tokenizer.stops = (whole[5:8],)
        assert model.complete(asked).text == whole[: whole.index(whole[5:8])]
        assert model.complete(Request(prompt="User: hi\n\nAssistant:", max_new_tokens=20)).text == whole
