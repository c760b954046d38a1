"""A model's tokens, as vLLM's servers tell of them: by these lm-evaluation-harness (`tokenizer_backend=remote`) counts and cuts.

Format: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html. Not covered: conversations in place of a text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from nomoat.engine.tokenizer import Tokenizer, name_of
from nomoat.errors import UnsupportedError, UsageError
from nomoat.responder import Responder
from nomoat.serve import web
from nomoat.serve.served import Served, read_body
from nomoat.serve.shapes import Several, Shape, parse_shape


class _Text(Shape):
    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None


class _Tokens(Shape):
    model: str | None = None
    tokens: Several[Annotated[int, Field(ge=0, lt=1 << 32)]]


def add_routes(app: FastAPI, served: Served) -> None:
    """Put /tokenize, /detokenize and /tokenizer_info into an application."""

    async def told(request: HttpRequest, model: str | None, tell: Callable[[Tokenizer, Responder], dict[str, Any]]) -> Response:
        return await served.work(request, model, lambda loaded, _stop: JSONResponse(tell(_tokenizer(loaded), loaded)))

    @app.post("/tokenize")
    async def tokenize(request: HttpRequest) -> Response:
        asked = await read_body(request, lambda body: parse_shape(_Text, body))

        def tell(tokenizer: Tokenizer, loaded: Responder) -> dict[str, Any]:
            ids = tokenizer.encode(asked.prompt, add_bos=asked.add_special_tokens is not False)
            return {"count": len(ids), "max_model_len": loaded.engine.context_tokens, "tokens": ids}

        return await told(request, asked.model, tell)

    @app.post("/detokenize")
    async def detokenize(request: HttpRequest) -> Response:
        asked = await read_body(request, lambda body: parse_shape(_Tokens, body))

        def tell(tokenizer: Tokenizer, _loaded: Responder) -> dict[str, Any]:
            strange = next((token for token in asked.tokens if name_of(tokenizer.backend, token) is None), None)
            if strange is not None:  # the tokenizer would leave it out
                raise UsageError(f"token {strange} is not one of this model's", hint="send its own, as /tokenize tells them")
            return {"prompt": tokenizer.decode(asked.tokens, with_control=True)}

        return await told(request, asked.model, tell)

    @app.api_route("/tokenizer_info", methods=web.READING)
    async def tokenizer_info(request: HttpRequest, model: str | None = None) -> Response:
        return await told(request, model, _info)


def _tokenizer(loaded: Responder) -> Tokenizer:
    """Raises UnsupportedError where the model is elsewhere."""
    found = loaded.engine.tokenizer
    if found is None:
        raise UnsupportedError(f"`{loaded.name}` does not tell its tokens", hint="use a model on this machine")
    return found


def _info(tokenizer: Tokenizer, loaded: Responder) -> dict[str, Any]:
    bos, eos = tokenizer.special.bos_id, tokenizer.special.eos_id
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if bos is None else name_of(tokenizer.backend, bos),
        "eos_token": name_of(tokenizer.backend, eos),
        "add_bos_token": tokenizer.special.add_bos,
        "chat_template": tokenizer.chat_template,
        "model_max_length": loaded.engine.context_tokens,
    }
