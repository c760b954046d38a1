"""Chat templates by name, for files that bring none: older files of Alpaca, Vicuna, Llama 2, Falcon and MPT have no template inside.

The texts are those the models were tuned on. Source: lm-sys/FastChat @ 0e6d3e4, fastchat/conversation.py; for Alpaca the two prompts
of tatsu-lab/stanford_alpaca @ 761dc5b, README. The token that begins a text is no part of them: the tokenizer puts it.

To add one: its text and an entry of `NAMED`, below; its texts letter by letter in `TEXTS` of `tests/engine/test_templates.py`; a line
of the table in `docs/run.md`. A card of `catalog/models.toml` whose files bring none names it (`template`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nomoat import bounds
from nomoat.conversations import ALPACA_INPUT
from nomoat.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """`text` is Jinja, as Hugging Face's templates are. `stops` end an answer where no token does.

    Of a file's own: `with_tools`, of conversations with functions where that is another one; and it `writes_bos`, the token that
    begins a text, itself.
    """

    text: str
    stops: tuple[str, ...] = ()
    with_tools: str | None = None
    writes_bos: bool = False

    @property
    def texts(self) -> dict[str, str]:
        """See `Tokenizer.templates`."""
        return {"default": self.text} | ({} if self.with_tools is None else {"tool_use": self.with_tools})


_NO_OTHER_ROLE = "{{ raise_exception('this template has no place for the role ' ~ m['role']) }}"

ALPACA = Template(
    text=(
        f"{{% set input = '{ALPACA_INPUT}' %}}"
        "{% for m in messages %}"
        "{% if m['role'] == 'user' %}"
        "{% if messages[0]['role'] != 'system' and loop.first %}"
        "Below is an instruction that describes a task"
        "{% if input in m['content'] %}, paired with an input that provides further context{% endif %}. "
        "Write a response that appropriately completes the request.\n\n"
        "{% endif %}"
        "### Instruction:\n{{ m['content'] }}\n\n### Response:"
        "{% elif m['role'] == 'assistant' %}{{ m['content'] ~ eos_token }}"
        "{% elif loop.first %}{{ m['content'] }}\n\n"
        f"{{% else %}}{_NO_OTHER_ROLE}{{% endif %}}"
        "{% endfor %}"
    )
)
VICUNA = Template(
    text=(
        "{% for m in messages %}"
        "{% if loop.first and m['role'] != 'system' %}"
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "{% endif %}"
        "{% if m['role'] == 'user' %}USER: {{ m['content'] }} "
        "{% elif m['role'] == 'assistant' %}ASSISTANT: {{ m['content'] ~ eos_token }}"
        "{% elif loop.first %}{{ m['content'] }} "
        f"{{% else %}}{_NO_OTHER_ROLE}{{% endif %}}"
        "{% endfor %}"
        "ASSISTANT:"
    )
)
LLAMA2 = Template(
    text=(
        "{% for m in messages %}"
        "{% if m['role'] == 'system' and loop.first %}[INST] "
        "{% if m['content'] %}<<SYS>>\n{{ m['content'] }}\n<</SYS>>\n\n{% endif %}"
        "{% elif m['role'] == 'user' %}"
        "{% if loop.first or loop.previtem['role'] != 'system' %}[INST] {% endif %}{{ m['content'] }} [/INST]"
        "{% elif m['role'] == 'assistant' %} {{ m['content'] }} {{ eos_token ~ bos_token }}"
        f"{{% else %}}{_NO_OTHER_ROLE}{{% endif %}}"
        "{% endfor %}"
    )
)
FALCON = Template(
    text=(
        "{% for m in messages if m['content'] or m['role'] != 'system' %}"
        "{% if m['role'] == 'user' %}User: {% elif m['role'] == 'assistant' %}Assistant: "
        f"{{% elif not loop.first %}}{_NO_OTHER_ROLE}{{% endif %}}"
        "{{ m['content'].replace('\\r\\n', '\\n').replace('\\n\\n', '\\n') }}\n\n"
        "{% endfor %}"
        "Assistant:"
    ),
    stops=("\nUser",),
)


def _chatml(default_system: str) -> Template:
    begin = f"{{% if messages[0]['role'] != 'system' %}}<|im_start|>system\n{default_system}<|im_end|>\n{{% endif %}}"
    return Template(
        text=(
            (begin if default_system else "")
            + "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{{ '<|im_start|>assistant\n' }}"
        ),
        stops=("<|im_end|>",),
    )


MPT_CHAT = _chatml(
    "- You are a helpful assistant chatbot trained by MosaicML.\n"
    "- You answer questions.\n"
    "- You are excited to be able to help the user, but will refuse to do anything that could be considered harmful to the user.\n"
    "- You are more than just an information source, you are also able to write poetry, short stories, and make jokes."
)
GEMMA = Template(
    text=(
        "{% for m in messages %}{% if m['role'] != 'system' or loop.length == 1 %}"
        "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
        "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}"
        "{{ m['content'] }}<end_of_turn>\n"
        f"{{% elif not loop.first %}}{_NO_OTHER_ROLE}{{% endif %}}{{% endfor %}}"
        "{{ '<start_of_turn>model\n' }}"
    ),
    stops=("<end_of_turn>",),
)
NAMED = {
    "alpaca": ALPACA,
    "chatml": _chatml(""),
    "falcon": FALCON,
    "gemma": GEMMA,
    "llama-2": LLAMA2,
    "mpt-7b-chat": MPT_CHAT,
    "vicuna_v1.1": VICUNA,
}

TURN_MARKS = {"chatml": "<|im_start|>", "gemma": "<start_of_turn>"}  # tokens of vocabularies that are made for these


def of_file(default: object, with_tools: object) -> tuple[str | None, str | None]:
    """Of what a file says: its chat template, or one of `NAMED` by its name, and that of conversations with functions where that is
    another one.

    What reads no `messages` shows no question and counts as none: an empty text, or another name. Where only the one with functions
    is left, every conversation has it, as in llama.cpp (common/chat.cpp).
    """
    own, other = (text if isinstance(text, str) and "messages" in text else None for text in (default, with_tools))
    if isinstance(default, str) and default.strip() in NAMED:  # a file of its own may end in a line break
        own = default.strip()
    return (other, None) if own is None else (own, other)


def choice(token_id: Callable[[str], int | None]) -> str:
    """What to choose from, for the end of a hint: first those that a vocabulary has the tokens of, also where its model is a base."""
    fit = [f"`{name}` fits its tokens; " for name, mark in TURN_MARKS.items() if token_id(mark) is not None]
    return f"{''.join(fit)}known are {', '.join(NAMED)}"


def named(name: str) -> Template:
    """The template of that name. Raises UsageError, with the names there are."""
    bounds.require_text(name, "a chat template's name")
    if name not in NAMED:
        raise UsageError(f"no chat template is called `{name}`", hint=f"known: {', '.join(NAMED)}")
    return NAMED[name]
