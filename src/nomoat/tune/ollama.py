"""An Ollama Modelfile: the chat template as Ollama writes templates (Go's `text/template`), what ends an answer, and greedy answers.

For the Jinja template in a GGUF file Ollama looks for a near one among some thirty it knows and uses its own rendering of it, without
the default system message: SmolLM2 would lose it. Where none is near, as of Qwen2.5's, releases before 0.30 use none, later ones the
file's. The template written here is put together from what the model's own writes around each message, and only if that gives the
same text. In its place Ollama from 0.30 on uses the file's where that has tools.
Source: ollama/ollama, template/template.go (`Named`, `Execute`, `collate`), server/images.go (`shouldPreferChatTemplate`, since 0.30),
parser/parser.go, docs/modelfile.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat import whole_files
from nomoat.catalog import licences
from nomoat.catalog.licences import ChainVerdict
from nomoat.engine import tool_calls
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import UnsupportedError
from nomoat.labelling import question_line
from nomoat.records import Message, Role

CONTEXT_TOKENS = 4096  # Ollama cuts what is longer than its own default, without a word
SYSTEM, TURNS = "<<system>>", ("<<question 1>>", "<<answer 1>>", "<<question 2>>", "<<answer 2>>", "<<question 3>>")
UNWRITABLE = ("{{", "}}", '"""')  # Go's and the Modelfile's own signs


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a template writes around messages.

    `begin` stands before the first question; instead of it, around a system message, `system`, if the template allows one.
    """

    begin: str
    after_last_question: str
    after_earlier_question: str
    after_answer: str
    system: tuple[str, str] | None = None

    def render(self, system: str | None, turns: tuple[str, ...]) -> str:
        """A conversation: question, answer, question, ..."""
        begin = self.begin if system is None or self.system is None else system.join(self.system)
        ends = itertools.cycle((self.after_earlier_question, self.after_answer))
        return begin + "".join(turn + end for turn, end in zip(turns[:-1], ends, strict=False)) + turns[-1] + self.after_last_question

    def as_go(self) -> str:
        """The same as a Go template. What tools gave is told as a user's words are; a last answer is left open, to be gone on with.

        Ends are written late, since Ollama puts messages of one role together, but not those of tools.
        """
        begin, last = self.begin, self.after_last_question
        if self.system is not None:
            begin = f"{{{{ if .System }}}}{self.system[0]}{{{{ .System }}}}{self.system[1]}{{{{ else }}}}{self.begin}{{{{ end }}}}"
        return (
            begin + '{{ $asked := false }}{{ $answered := false }}{{ range .Messages }}{{ if or (eq .Role "user") (eq .Role "tool") }}'
            + "{{ if $answered }}" + self.after_answer + "{{ else if $asked }}\n\n{{ end }}{{ .Content }}"
            + '{{ $asked = true }}{{ $answered = false }}{{ else if eq .Role "assistant" }}'
            + "{{ if $asked }}" + self.after_earlier_question + "{{ end }}{{ .Content }}{{ $asked = false }}{{ $answered = true }}"
            + "{{ end }}{{ end }}{{ if $asked }}" + last + "{{ end }}"
        )  # fmt: skip


def write_modelfile(
    target: Path, *, model: Path, tokenizer: Tokenizer, context_tokens: int, question: str | None = None,
    terms: ChainVerdict | None = None,
) -> Path:  # fmt: skip
    """The Modelfile beside an exported file: `ollama create NAME -f Modelfile`. `question`: what a table's texts were asked with.
    `terms`: the licence chain, which `ollama show --license` prints; the texts of the licences themselves are not in it.
    """
    around = around_messages(tokenizer)
    lines = [*([f"# {question_line(question)}"] if question is not None else []), f"FROM ./{model.name}"]
    if around is None:
        guesses = "it takes a near one, or else the file's; before 0.30, none"
        lines.append(f"# This model's chat template cannot be written as one of Ollama's: {guesses}.")
    else:
        lines.append(f'TEMPLATE """{around.as_go()}"""')
        if tool_calls.reads_tools(tokenizer.template_for(["tool"]) or ""):
            lines.append("# This template has no place for tools: Ollama uses the file's, which has; before 0.30 it refuses them.")
    ends = [str(tokenizer.backend.id_to_token(end)) for end in tokenizer.special.stop_ids]
    lines += [f'PARAMETER stop "{end}"' for end in dict.fromkeys((*ends, *tokenizer.stops)) if '"' not in end and "\n" not in end]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    if context_tokens > CONTEXT_TOKENS:
        more = f"the model reads up to {context_tokens} tokens, which takes more memory"
        lines.append(f"# Of longer texts Ollama drops the beginning without a word; {more}.")
    lines.append(f"PARAMETER num_ctx {min(context_tokens, CONTEXT_TOKENS)}")
    if terms is not None:
        told = "\n".join(licences.chain_lines(licences.for_others(terms))).replace('"' * 3, "'" * 3)
        lines.append(f'LICENSE """{told}"""')
    with whole_files.whole_file(target) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return target


def around_messages(tokenizer: Tokenizer) -> Around | None:
    """What the model's template writes around messages; None if it has no template, or one that does more than that."""
    if tokenizer.chat_template is None:
        return None
    try:
        begin, earlier, answered, last = _between(_rendered(tokenizer, None, 3), TURNS[:3])
        found = Around(begin=begin, after_earlier_question=earlier, after_last_question=last, after_answer=answered)
    except (UnsupportedError, ValueError):
        return None
    try:
        before, after, _ = _between(_rendered(tokenizer, SYSTEM, 1), (SYSTEM, TURNS[0]))
        found = replace(found, system=(before, after))
    except (UnsupportedError, ValueError):
        pass  # a template may have no place for a system message
    systems = (None,) if found.system is None else (None, SYSTEM)
    same = all(found.render(system, TURNS[:count]) == _rendered(tokenizer, system, count) for system in systems for count in (1, 3, 5))
    pieces = (begin, earlier, last, answered, *(found.system or ()))
    return found if same and not any(sign in piece for sign in UNWRITABLE for piece in pieces) else None


def _rendered(tokenizer: Tokenizer, system: str | None, count: int) -> str:
    """As the model's own template writes it, without the token that begins a text if Ollama's tokenizer puts it."""
    roles: tuple[Role, ...] = ("user", "assistant")
    messages = [] if system is None else [Message(role="system", content=system)]
    messages += [Message(role=role, content=turn) for role, turn in zip(itertools.cycle(roles), TURNS[:count], strict=False)]
    text = tokenizer.render(messages)
    bos = tokenizer.special.bos_id
    return text.removeprefix(str(tokenizer.backend.id_to_token(bos))) if bos is not None and tokenizer.special.add_bos else text


def _between(text: str, marks: tuple[str, ...]) -> list[str]:
    """What stands before, between and after the marks. Raises ValueError if one is missing or stands twice."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError(mark)
        piece, text = text.split(mark)
        pieces.append(piece)
    return [*pieces, text]
