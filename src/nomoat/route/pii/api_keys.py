"""API keys, tokens and private keys by their form, and keys and passwords by what names them (`passwords`)."""

from __future__ import annotations

import re
from itertools import pairwise

from nomoat.route.pii.passwords import holds_password

# As whoever makes them writes them, and as long: `X` of letters and digits, `W` of those, `_` and `-`, `H` hexadecimal.
X, W, H = "[A-Za-z0-9]", "[A-Za-z0-9_-]", "[0-9a-f]"


def _mixed(length: int) -> str:
    """A pattern of there being a digit and a capital in so many characters, as chance has it and names do not."""
    return rf"(?={W}{{0,{length - 1}}}\d)(?={W}{{0,{length - 1}}}[A-Z])"


FORMS = (
    # OpenAI, Anthropic and whoever writes them so: 10 characters without a dash with a capital and a digit, but no words with a short
    # number behind; or hex and the like: no word has digits in two places.
    rf"sk-(?={W}{{20}})(?:{W}{{0,60}}[_-])?(?![A-Za-z]{{1,60}}\d{{0,4}}(?!{X}))(?={X}{{0,40}}[A-Z])(?={X}{{0,40}}\d){X}{{10}}",
    r"sk-(?:[a-z0-9]{1,12}-){0,3}(?=[a-z]*\d+[a-z]+\d[a-z]*\d)[a-z0-9]{24}",
    rf"sk-lf-{H}{{8}}-{H}{{4}}-",  # Langfuse
    rf"sk_{H}{{48}}",  # ElevenLabs
    # Other providers of models: Groq, xAI, Perplexity, Replicate, NVIDIA, Cerebras, Together, Jina, Hugging Face, Upstage, W&B.
    rf"gsk_{X}{{40}}|xai-{X}{{40}}|pplx-{X}{{40}}|r8_{X}{{30}}|nvapi-{W}{{40}}|csk-[a-z0-9]{{40}}|tgp_v1_{W}{{30}}|jina_{X}{{50}}|hf_{X}{{34}}",
    rf"api_org_{X}{{34}}|up_{_mixed(28)}{X}{{28}}|wandb_v1_{W}{{70}}",
    # Google: API keys of both forms, OAuth's access and refresh tokens, and its clients' secrets.
    rf"AIza{W}{{35}}|AQ\.A{W}{{39}}|ya29\.{W}{{30}}|1//0{W}{{40}}|GOCSPX-{W}{{20}}",
    # AWS, also a session's; Azure's keys with their checksum, Naver Cloud.
    rf"A[KS]IA[0-9A-Z]{{16}}(?!{X})|ABSK[A-Za-z0-9+/]{{60}}|(?:IQoJb3JpZ2lu|FwoGZXIvYXdz)[A-Za-z0-9+/]{{60}}",
    rf"{X}{{52}}JQQJ99{X}{{20}}|ncp_iam_[A-Z]{{6}}{X}{{14}}",
    rf"gh[opsur]_{X}{{36}}|ghs_\d{{1,20}}_eyJ{W}{{20}}|github_pat_\w{{40}}|gl(?:pat|dt|rt|ptt|soat|agent|cbt|oas|ft|ffct|imt)-{W}{{20}}"
    rf"|GR1348941{W}{{20}}",
    rf"xox[abcdeprs][-.][A-Za-z0-9%+/=-]{{20}}|xapp-\d-[A-Z0-9]{{1,20}}-\d{{1,20}}-{H}{{40}}",  # Slack
    # Payments: Stripe, Toss.
    rf"[sr]k_(?:live|test)_{X}{{20}}|whsec_[A-Za-z0-9+/]{{24}}|(?:live|test)_g?sk_{X}{{20}}",
    # Where programs and packages are kept and run: npm, PyPI, RubyGems, Docker, DigitalOcean, Databricks, Vault, Terraform, Supabase.
    rf"npm_{X}{{36}}|pypi-AgE{W}{{50}}|rubygems_{H}{{48}}|dckr_[po]at_{W}{{20}}|do[opr]_v1_{H}{{64}}|dapi{H}{{32}}|hv[sbr]\.{W}{{20}}",
    # Vercel, Cloudflare, Fly.io, Heroku, Render, PlanetScale, Doppler, Tailscale, 1Password, CircleCI, Buildkite, Pulumi, Sonar,
    # Databricks once more, Django.
    rf"vc[pikar]_{_mixed(50)}{W}{{50}}|vercel_blob_rw_{X}{{16}}_{X}{{20}}|cf[ua]t_{X}{{40}}|v1\.0-{H}{{24}}-{H}{{146}}|fo1_{W}{{43}}"
    rf"|fm[12][ar]?_[A-Za-z0-9+/]{{80}}|HRKU-{W}{{50}}|rnd_{_mixed(28)}{X}{{28}}|pscale_(?:tkn|oauth|pw)_{W}{{32}}"
    rf"|dp\.(?:pt|st|sa|ct|scim|audit)\.(?:[a-z0-9_-]{{1,35}}\.)?{X}{{40}}|tskey-[a-z]{{3,8}}-{X}{{10,20}}-{X}{{20}}|ops_eyJ{W}{{80}}"
    rf"|CCIPAT_{X}{{22}}_{H}{{40}}|bkua_{H}{{40}}|pul-{H}{{40}}|sq[apu]_{H}{{40}}|dose{H}{{32}}"
    r"|django-insecure-(?!\S{0,39}change.?me)(?=\D{0,39}\d)(?=[\w-]{0,39}[!@#$%^&*(=+)])[a-z0-9!@#$%^&*(=+)_-]{40}",
    rf"{X}{{14}}\.atlasv1\.{W}{{40}}|sbp_{H}{{40}}|sb_secret_{W}{{20}}",
    # SendGrid, Mailgun, Mailchimp, Shopify, Notion, Linear, Figma, LangSmith, Tavily, Pinecone, Atlassian, Grafana, Sentry, Postman.
    rf"SG\.{W}{{20,24}}\.{W}{{40}}|(?<![\w-])key-{H}{{32}}(?!{X})|{H}{{32}}-us\d{{1,2}}(?!{X})|shp(?:at|ss|ca|pa)_{H}{{32}}|ntn_{X}{{40}}|secret_{X}{{43}}",
    rf"lin_(?:api|oauth)_{X}{{32}}|figd_{W}{{30}}|lsv2_[ps][tk]_{H}{{32}}|tvly-(?:dev-|prod-)?{X}{{20}}|pcsk_\w{{40}}|ATATT3{W}{{50}}",
    # Airtable, New Relic, Dynatrace, PostHog, Resend, Brevo, Square, Asana, Dropbox.
    rf"pat{X}{{14}}\.{H}{{64}}|NRAK-[A-Z0-9]{{27}}|dt0[a-z]\d\d\.[A-Z0-9]{{24}}\.[A-Z0-9]{{64}}|phx_{X}{{40}}|re_{_mixed(33)}{X}{{8}}_{X}{{24}}"
    rf"|xkeysib-{H}{{64}}-{X}{{16}}|sq0(?:csp|atp)-{W}{{22}}|[0-2]/\d{{13,16}}(?:/\d{{13,16}})?:{H}{{32}}|sl\.(?:u\.)?{_mixed(120)}{W}{{120}}",
    rf"gl(?:sa|c)_{X}{{32}}|sntry[su]_{W}{{40}}|PMAK-{H}{{24}}-{H}{{34}}",
    rf"(?:bot)?\d{{8,10}}:AA{W}{{33}}(?!{W})",  # Telegram
    # Discord: the number of 17 to 19 digits in base64 that a bot has, and users' with a second factor.
    rf"(?:[MNO][DTjz][AEIMQUYcgk][w-z0-5]){{5,6}}{X}{{0,3}}\.{W}{{6}}\.{W}{{27}}|mfa\.{_mixed(60)}{W}{{60}}",
    rf"eyJ{W}{{10,2000}}\.eyJ{W}{{10,4000}}\.{W}{{20}}",  # JSON Web Tokens
    # age; the first words of OpenSSH's in base64; wallets' (BIP 32).
    r"AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{50}|b3BlbnNzaC1rZXktdjE[A-Za-z0-9+/]{20}|[xyz]prv[1-9A-HJ-NP-Za-km-z]{100}|PuTTY-User-Key-File-\d:",
)
# Addresses that are a key: of Slack's, Discord's and Microsoft's webhooks, of files in Azure and AWS, and of what makes codes for one
# login each.
ADDRESSES = (
    rf"hooks\.slack\.com/(?:services|workflows)/T\w{{5,20}}/[AB]\w{{5,20}}/\w{{16}}|discord(?:app)?\.com/api/webhooks/\d{{15,25}}/{W}{{50}}"
    rf"|\.webhook\.office\.com/webhookb2/{H}{{8}}-|[?&]sig=[A-Za-z0-9%+/]{{40}}"
    rf"|otpauth://[^\s?]{{1,300}}\?\S{{0,300}}?secret=[A-Za-z2-7]{{16}}"
)
# A private key's first line in base64, as Kubernetes has it: of its middle word, whichever of its letters a group of four begins with.
ENCODED_PEM = r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,30}(?:UFJJVkFUR|BSSVZBVE|QUklWQVRF)"
# Only Azure's begins with other characters than these. What each begins with is asked first: most characters begin none.
AZURE = r"[\w.~-]{3}\dQ~[\w.~-]{31}"
OTHERS = rf"(?=[hd.?&oL])(?:{ADDRESSES}|{ENCODED_PEM})"
API_KEY = re.compile(rf"(?<!{X})(?:(?={X})(?:{'|'.join(FORMS)})|{AZURE})|{OTHERS}")
FIRST_LINE = re.compile(r"-{4,5} ?BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
BLANK = re.compile("[xX]{8}")  # of examples: `ghp_xxxxxxxx…`
# What a line's end parts within a key, as terminals and mail programs break lines: lines between its first and last are long, and hold
# nothing else. (Lists of short words look like keys where all of their lines are joined.)
LINES_END = r"(?<=[A-Za-z0-9_.:-])[^\S\n]{0,12}\n[^\S\n]{0,12}(?=[A-Za-z0-9_.:-])"
SHORTEST = 20  # characters: AWS's. No key of these forms has spaces in it, but for PEM's first line.
WRAPPED = re.compile(rf"(?<!\S)\S++(?:{LINES_END}\S{{20,}}+(?={LINES_END}))*(?=({LINES_END}\S++))")


def holds_api_key(text: str) -> bool:
    return _holds_form(text) or holds_password(text) or any(map(_holds_wrapped_form, WRAPPED.finditer(text)))


def _holds_wrapped_form(found: re.Match[str]) -> bool:
    """In all of these lines, in those behind the first, and in each two: a key ends where another character follows."""
    lines = (found[0] + found[1]).split()
    return any(map(_is_form_in, {"".join(lines), "".join(lines[1:]), *map("".join, pairwise(lines))}))


def _holds_form(text: str) -> bool:
    return any(map(_is_form_in, text.split())) or ("PRIVATE KEY" in text and FIRST_LINE.search(text) is not None)


def _is_form_in(word: str) -> bool:
    """Whether there is one in what has no spaces."""
    return len(word) >= SHORTEST and any(BLANK.search(found[0]) is None for found in API_KEY.finditer(word))
