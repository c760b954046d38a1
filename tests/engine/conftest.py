"""What an answer may be, by the schema that it is held to."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from schemas import Allows
from tiny import write_tiny_gguf

from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.grammar import Grammars


@pytest.fixture(scope="module")
def grammars(tmp_path_factory: pytest.TempPathFactory) -> Grammars:
    tokenizer = from_metadata(GGUFFile(write_tiny_gguf(tmp_path_factory.mktemp("tokenizer") / "t.gguf")).metadata)
    return Grammars(tokenizer, tokenizer.backend.get_vocab_size())


@pytest.fixture
def allows(grammars: Grammars) -> Allows:
    """Whether an answer may be this text and end there."""
    tokenizer = grammars._tokenizer

    def asked(schema: dict[str, Any], text: str) -> bool:
        grammar = grammars.of_schema(json.dumps(schema))
        for token in [*tokenizer.backend.encode(text, add_special_tokens=False).ids, tokenizer.special.eos_id]:
            logits_V = np.zeros(tokenizer.backend.get_vocab_size(), np.float32)
            grammar.forbid(logits_V)
            if logits_V[token] == -np.inf:
                return False
            grammar.accept(token)
        return True

    return asked
