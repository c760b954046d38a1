"""Whether models can be asked a suite at all: found out of all of them before the first one is loaded, and asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nomoat import config, references
from nomoat import responder as responders
from nomoat.engine import templates, tokenizer
from nomoat.engine.source import open_source
from nomoat.errors import SET_CONTEXT, DataError, UnsupportedError
from nomoat.judge import sandbox
from nomoat.judge.settings import RunSettings
from nomoat.judge.suites import Suite
from nomoat.records import Example, Message
from nomoat.references import STORED
from nomoat.responder import Responder

if TYPE_CHECKING:
    from nomoat.judge.run import Asking

FOR_A_JUDGE = (Message(role="user", content="Which answer is better?"),)  # as `judge_prompts` asks: one message of the user
SUITE_HINT = "ask it a suite with `chat = false`"


def require_askable(
    models: Sequence[str | Responder], suite: Suite, settings: RunSettings, *, judge: str | Responder | None = None
) -> None:
    """Raises what `load` raises for weights that are not here, that nomoat cannot run, or that memory does not hold, and
    UnsupportedError for a model whose chat template is missing, or refuses the first question. No weights are read.

    Not looked at: servers, stored answers, and what workers on other machines have.
    """
    for model in models:
        _require(model, suite.examples[0].messages if suite.chat else (), (f"`{suite.name}` asks in a chat", SUITE_HINT), settings)
    if judge is not None:
        _require(judge, FOR_A_JUDGE, ("a judge is asked in a chat", "let another model judge"), settings)


def require_scorable(suite: Suite) -> None:
    """Refuse a suite whose answers have no score of their own, or none that this machine can find out."""
    if suite.metric == "code":
        sandbox.require_wall()
    if suite.metric in ("review", "judge"):
        raise UnsupportedError(
            f"the answers to `{suite.name}` are neither right nor wrong: they can only be compared",
            hint="let a judge do it, with --judge MODEL (in Python: `nomoat.judge.judged.run_graded`); "
            f"or compare stored reviews: `nomoat duel {STORED}vicuna80/vicuna-13b {STORED}vicuna80/gpt35`",
        )


def require_context(run: Asking, examples: Sequence[Example], *, new_tokens: int) -> None:
    """Find the example that is too long before the first one is asked, and name it."""
    context_tokens = run.model.engine.context_tokens
    if context_tokens is None:
        return
    for example in examples:
        try:
            prompt_tokens = run.model.engine.count_tokens(run.request(example))
        except UnsupportedError:
            return
        if prompt_tokens + new_tokens > context_tokens:
            is_shortened = context_tokens == config.context_tokens()
            longer = f"raise {SET_CONTEXT}" if is_shortened else "choose a model with a longer context"
            raise DataError(
                f"example `{example.id}` of `{run.suite.name}` has {prompt_tokens:,} tokens and the answer may have {new_tokens:,}, "
                f"but the context of `{run.model.ref}` is {context_tokens:,} tokens",
                hint=f"shorten or remove the example, or {longer}",
            )


def _require(model: str | Responder, chat: Sequence[Message], why: tuple[str, str], settings: RunSettings) -> None:
    """`chat` is what it is asked, if that is a conversation; `why` is it one, and what to do where there is no template for it."""
    if isinstance(model, Responder):
        words = getattr(model.engine, "tokenizer", None)
        if isinstance(words, tokenizer.Tokenizer) and chat:
            _require_chat(model.ref, words.chat_template, chat, why)
    elif references.names_weights(model) and (settings.workers is None or settings.workers.is_here):
        files = references.find_files(model)
        source = open_source(files.weights)
        responders.require_memory(model, source)
        named = files.template(own=source.chat_template, fallback=settings.template)
        if chat:
            _require_chat(model, templates.named(named.value).text if named else source.chat_template, chat, why)


def _require_chat(ref: str, template: str | None, chat: Sequence[Message], why: tuple[str, str]) -> None:
    if template is None:
        raise UnsupportedError(
            f"`{ref}` has no chat template, and {why[0]}",
            hint="give it the one it was tuned with, by `--template NAME` (in Python: `template`): "
            f"{', '.join(templates.NAMED)}; a base model was tuned with none: {why[1]}",
        )
    try:
        tokenizer.render(template, chat)
    except UnsupportedError as exc:
        raise UnsupportedError(
            f"`{ref}`: {exc.message}",
            hint="ask what it does not refuse; or start `nomoat serve MODEL --template NAME`, and ask that server",
        ) from exc
