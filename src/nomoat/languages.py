"""Which languages texts are in, by what py3langid thinks of each: a naive Bayes classifier of 139 languages.

What this does not cover: a text in several languages counts as one of them, code as what its words look like, mostly English, and a
language that is not among the 139, or not in its usual letters, as those most like it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

FEWEST_TEXTS, MOST_TEXTS = 10, 1000  # fewer say little: a short text alone is often taken for one in a related language
LOOKED_AT = 300  # characters of a text
LEAST_LIKELY = 0.1  # of a text's likeliest language; below, nothing in it tells, as in a number of an article
LEAST = 0.05
ROUNDS = 100


def language_shares(texts: Sequence[str]) -> dict[str, float]:
    """The part of the texts in each language, by its ISO 639 code, the largest first, of 5 % or more; `zxx` is none, as in base64.

    Texts that tell nothing are not counted; where fewer than `FEWEST_TEXTS` or half of them are left, nothing is said, as where Python
    was built without lzma, in which py3langid's model is, or has no room for temporary files. Of many texts `MOST_TEXTS` are looked
    at. The shares are those under which what was found of all texts is likeliest, so that a short text is taken for one of the
    languages that the others are in.
    Source: Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446.
    """
    if len(texts) < FEWEST_TEXTS:
        return {}
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        known = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # unpacks 77 MB among temporary files
    except (ImportError, OSError):  # no reason to end a training
        return {}
    if len(texts) > MOST_TEXTS:
        texts = random.Random(0).sample(texts, MOST_TEXTS)
    languages = known.labels
    ranks = (dict(known.rank(text[:LOOKED_AT])) for text in texts)
    likely_TL = np.array([[found[language] for language in languages] for found in ranks])  # T texts, L languages
    likely_TL = likely_TL[likely_TL.max(axis=1) >= LEAST_LIKELY] + 1e-9
    if len(likely_TL) < max(FEWEST_TEXTS, len(texts) / 2):
        return {}
    shares_L = np.full(len(languages), 1 / len(languages))
    for _ in range(ROUNDS):
        each_TL = likely_TL * shares_L
        shares_L = (each_TL / each_TL.sum(axis=1, keepdims=True)).mean(axis=0)
    return {languages[at]: round(float(shares_L[at]), 3) for at in np.argsort(-shares_L) if shares_L[at] >= LEAST}


def shares_in_words(shares: Mapping[str, float]) -> str:
    """Of languages or scripts: "en 75%, ko 25%"."""
    return ", ".join(f"{language} {part:.0%}" for language, part in shares.items())
