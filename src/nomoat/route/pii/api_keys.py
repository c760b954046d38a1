"""API keys and private keys."""

from __future__ import annotations

import re

# Of OpenAI, Anthropic and whoever writes them so, AWS, GitHub, GitLab, Google, Slack, Hugging Face; private keys: PEM, PGP, SSH2.
API_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[\w-]{0,40}[A-Z])(?=[\w-]{0,40}\d)[A-Za-z0-9_-]{20,250}"
    r"|sk-(?:[a-z0-9]{1,12}-){0,3}(?=[a-z]*\d+[a-z]+\d[a-z]*\d)[a-z0-9]{24}"  # hex and the like: no word has digits in two places
    r"|A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9])"
    r"|gh[opsur]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,90}|glpat-[A-Za-z0-9_-]{20}|AIza[A-Za-z0-9_-]{35}|xox[abprs]-[A-Za-z0-9-]{20,90}|hf_[A-Za-z0-9]{34})"
    r"|-{4,5} ?BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
)


def holds_api_key(text: str) -> bool:
    return API_KEY.search(text) is not None
