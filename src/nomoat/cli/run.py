"""`nomoat run`: ask a model once, or talk with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import answering, console, options
from nomoat.cli.loading import load_with_bar
from nomoat.errors import UsageError
from nomoat.records import Message, Request, TokenLikelihood

if TYPE_CHECKING:
    from nomoat.responder import Responder


def _or_no_limit(value: int) -> int | None:
    if value < 1 and value != options.NONE:
        raise typer.BadParameter(f"{value} is neither 1 or more, nor {options.NONE}.")
    return None if value == options.NONE else value


LongestAnswer = Annotated[
    int | None,
    typer.Option("--max-tokens", "-n", callback=_or_no_limit, help="Longest answer, in tokens; -1: no limit."),
]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Sample from so many likeliest tokens; 0: from all.")]
TopP = Annotated[float, options.sampling("top_p", "--top-p", means="Sample from this share of likelihood.")]
MinP = Annotated[float, options.sampling("min_p", "--min-p", means="Leave out what is less likely than this share of the likeliest.")]
RepetitionPenalty = Annotated[
    float, options.sampling("repetition_penalty", "--repeat-penalty", means="Above 1: avoid what was said already.")
]
JsonSchema = Annotated[
    Path | None, typer.Option("--json-schema", show_default=False, help="A file with a JSON schema that the answer follows.")
]
Logprobs = Annotated[
    int | None,
    typer.Option(min=0, max=20, show_default=False, help="With --json: how likely each token was, and so many likeliest ones."),
]
TemplateVariables = Annotated[
    list[str] | None,
    typer.Option(
        "--template-variable", metavar="NAME=VALUE", show_default=False,
        help="What the chat template is to know besides, such as enable_thinking=false for Qwen3.",
    ),
]  # fmt: skip
AsTuned = Annotated[
    bool, typer.Option("--as-tuned", help="Ask about the PROMPT, a text, in the words of the table that BASE+NAME was tuned on.")
]


def run(
    model: options.Model,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The question; piped text follows it; `-` is that alone.", callback=options.not_piped),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: LongestAnswer = 512,
    temperature: options.Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, show_default=False, help="Makes sampling repeatable.")] = None,
    json_schema: JsonSchema = None,
    logprobs: Logprobs = None,
    context_tokens: options.ContextSize = None,
    quality: options.Quality = None,
    template: options.Template = None,
    template_variables: TemplateVariables = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")] = False,
    as_tuned: AsTuned = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object for machines, when the answer is whole.")] = False,
) -> None:
    """Ask a model once, or talk with it when there is no PROMPT.

    \b
    Examples:
      nomoat run smollm2-135m "What is a moat?"
      nomoat run smollm2-135m "Summarise this:" < letter.txt
      nomoat run smollm2-135m "Who wrote this?" --json-schema author.json < letter.txt
      nomoat run smollm2-135m                            # talk; /help lists the commands
      nomoat run smollm2-135m+reviews --as-tuned "It broke after a day"  # about a text, as the table it was tuned on asks
      nomoat run http://127.0.0.1:11434/v1#llama3 hello  # any OpenAI-compatible server

    The answer goes to stdout, its speed to stderr.
    """
    need_template = {
        "--system": system is not None, "--template": template is not None, "--template-variable": bool(template_variables),
        "--as-tuned": as_tuned,
    }  # fmt: skip
    for name, is_given in need_template.items():
        if raw and is_given:
            raise UsageError(f"`--raw` uses no chat template, and `{name}` needs one", hint="leave one of them out")
    talk = prompt is None and console.has_person()
    if talk and (raw or as_tuned or as_json):
        flag = "--raw" if raw else "--as-tuned" if as_tuned else "--json"
        raise UsageError(f"`{flag}` needs a prompt", hint=f'nomoat run {model} "PROMPT"')
    if logprobs is not None and not as_json:
        raise UsageError("`--logprobs` prints numbers for machines", hint="add `--json`")
    settings = {
        "max_new_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "top_logprobs": logprobs,
        "json_schema": None if json_schema is None else _schema_text(json_schema),
        "template_variables": _variables_text(template_variables or ()),
    }  # fmt: skip
    if talk:
        from nomoat.cli.chat import Chat

        with load_with_bar(model, context_tokens=context_tokens, template=template, takes_auto=True) as responder:
            Chat(responder, settings=settings, system=system).talk()
        return
    text = _in_its_words(model, _whole_prompt(prompt)) if as_tuned else _whole_prompt(prompt)
    turns = [Message(role="system", content=system)] if system else []
    asked = {"prompt": text} if raw else {"messages": (*turns, Message(role="user", content=text))}
    request = Request(**asked, **settings)  # type: ignore[arg-type]
    with load_with_bar(model, context_tokens=context_tokens, template=template, takes_auto=True) as responder:
        _ask(responder, request, as_json=as_json)


def _ask(responder: Responder, request: Request, *, as_json: bool) -> None:
    if as_json:
        console.print_json(_as_object(responder, request))
        answering.say_notes(responder.notes_on(request))
        return
    shown = answering.show(responder, request)
    answering.say_notes(responder.notes_on(request))
    knows_context = responder.engine.context_tokens is not None
    answering.say_outcome(shown, max_new_tokens=request.max_new_tokens, knows_context=knows_context)
    if shown.finish_reason == "cancelled":
        raise typer.Exit(console.STOPPED_EXIT)


def _as_object(responder: Responder, request: Request) -> dict[str, Any]:
    whole = responder.complete(request)
    found: dict[str, Any] = {
        "model": responder.ref, "text": whole.text, "finish_reason": whole.finish_reason,
        "usage": dataclasses.asdict(whole.usage), "bytes_out": whole.usage.bytes_out,
    }  # fmt: skip
    if request.top_logprobs is not None:
        found["tokens"] = [_likelihood(one) for one in whole.likelihoods]
    return found


def _likelihood(one: TokenLikelihood) -> dict[str, Any]:
    row = {"token": one.content.decode("utf-8", "replace"), "bytes": list(one.content), "log_probability": one.log_probability}
    return row | ({"top": [_likelihood(other) for other in one.top]} if one.top else {})


def _schema_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
        json.loads(text)
        return text
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(f"cannot read the JSON schema `{path}`: {exc}", hint="name a file with a JSON schema") from exc


def _variables_text(given: Sequence[str]) -> str:
    """As JSON; a value that is no JSON is a text."""
    variables: dict[str, Any] = {}
    for one in given:
        name, is_given, value = one.partition("=")
        if not name or not is_given:
            raise UsageError(f"`--template-variable {one}` gives no value", hint="write NAME=VALUE, such as enable_thinking=false")
        try:
            variables[name] = json.loads(value)
        except (ValueError, RecursionError):
            variables[name] = value
    return json.dumps(variables, ensure_ascii=False, sort_keys=True) if variables else ""


def _in_its_words(ref: str, text: str) -> str:
    """The question a tuned model was taught to answer, about this text. Raises UsageError if it was taught none."""
    from nomoat import labelling, references

    tuned = ref
    if ref == references.AUTO:
        from nomoat.route.policy import load_policy
        from nomoat.route.router import require_loadable

        tuned = require_loadable(load_policy())
    question = references.find_files(tuned).question if references.names_weights(tuned) else None
    if question is None:
        raise UsageError(
            f"`--as-tuned` asks in the words of a table, and nothing here says that `{tuned}` was tuned on one",
            hint="name BASE+NAME of a table's adapter, or a file that was exported of one and has its .provenance.json beside it; "
            "or write the whole question and leave out `--as-tuned`",
        )
    return labelling.put_question(question, text)


def _whole_prompt(prompt: str | None) -> str:
    """The argument, and after an empty line what is piped in. Raises UsageError if there is nothing, or if it is not text."""
    text = "\n\n".join(part for part in (prompt, console.piped().strip("\n")) if part)
    if not text.strip():
        raise UsageError("the prompt is empty", hint='nomoat run MODEL "PROMPT", or pipe text in')
    return text
