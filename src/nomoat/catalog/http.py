"""Downloads over HTTP that go on where they stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nomoat import net
from nomoat.catalog.part import Part
from nomoat.errors import DownloadError, NotThereError

if TYPE_CHECKING:
    import httpx

SHA256, COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the hub says of a file in its answer: the sha256 of a large one, and the commit of the repository it is of."""

    sha256: str | None = None
    commit: str | None = None


def fill(
    part: Part,
    url: str,
    *,
    where: str,
    is_checked: bool,
    size_bytes: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Promise:
    """Append what is missing of `url` to the part; start over if the server cannot resume, has another version by now, or does not
    say which version it has.

    `where` names the file in errors; `is_checked`: its sha256 is known beforehand, so that the way by which it comes does not matter.
    Raises DownloadError, OfflineError, NotEnoughDiskError, and RedirectedError where https leads to http.
    """
    import httpx

    have = part.size_bytes()
    if size_bytes is not None and have == size_bytes:
        return Promise()
    if size_bytes is not None and have > size_bytes:
        part.start_over()
    asked = {"accept-encoding": "identity", **(headers or {}), **_range(part)}
    try:
        https_only = urlsplit(url).scheme == "https" and not is_checked
        with net.client(part.purpose, https_only=https_only) as client, client.stream("GET", url, headers=asked) as response:
            if "range" not in asked or _goes_on(response, part):
                _require_success(response, where)
                _receive(response, part)
                return _promise(response)
        part.start_over()
        return fill(part, url, where=where, is_checked=is_checked, size_bytes=size_bytes, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as exc:
        raise DownloadError(
            f"cannot reach `{urlsplit(url).hostname}` to pull `{where}`: {exc}",
            hint=net.certificate_hint(exc) or net.proxy_hint(url) or "check the network and the proxy settings",
        ) from exc
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise DownloadError(f"cannot pull `{where}`: {exc}", hint="check the address") from exc
    except httpx.HTTPError as exc:
        have, hint = part.size_bytes(), "run the same command again"
        if have and part.version_path.exists():
            hint += " to resume"
        elif have:
            hint += "; it begins anew: the server does not say which version of the file it has"
        raise DownloadError(f"the connection was lost after {have:,} bytes of `{where}`", hint=hint) from exc


def _range(part: Part) -> dict[str, str]:
    """The headers that ask for the rest, and only of the same version of the file. A part of no known version is forgotten."""
    if not part.version_path.exists():
        part.start_over()
    have = part.size_bytes()
    return {"range": f"bytes={have}-", "if-range": part.version_path.read_text()} if have else {}


def _goes_on(response: httpx.Response, part: Part) -> bool:
    """Whether the answer to a range is that range of the same version, or the whole file, or a refusal that has its own error.

    416: the part is longer than the file. Some servers answer with a range of whatever version they have. A range names its tag
    again, but need not say again when the file changed. Source: RFC 9110, 15.3.7.
    """
    if response.status_code != 206:
        return response.status_code != 416
    begins = response.headers.get("content-range", "").startswith(f"bytes {part.size_bytes()}-")
    asked, named = part.version_path.read_text(), _version(response)
    return begins and (named == asked or (not named and not asked.startswith('"')))


def _version(response: httpx.Response) -> str:
    """What a later request can name this version of the file by: a strong tag, or when it changed; empty if neither is there.

    A weak tag does not promise equal bytes, nor does a change in the very second of the answer. Source: RFC 9110, 8.8 and 13.1.5.
    """
    tag = response.headers.get("etag", "")
    if tag.startswith('"') and tag.isascii():
        return str(tag)
    changed, now = response.headers.get("last-modified", ""), response.headers.get("date", "")
    try:
        return changed if changed.isascii() and parsedate_to_datetime(changed) < parsedate_to_datetime(now) else ""
    except (TypeError, ValueError, OverflowError):  # of what is no date, and of one without its zone beside another
        return ""


def _receive(response: httpx.Response, part: Part) -> None:
    if response.status_code != 206:
        part.start_over()
    rest = int(response.headers.get("content-length", 0))
    part.require_space(rest)
    if version := _version(response):
        part.version_path.write_text(version, newline="\n")
    # As it comes: a block size would hold bytes back that a cut then loses.
    part.add(response.iter_raw(), part.size_bytes() + rest if rest else None)


def _promise(response: httpx.Response) -> Promise:
    """The hub names the sha256 of a large file in the answer that redirects to the file's storage."""
    answers = (*response.history, response)
    tags = (answer.headers.get("x-linked-etag", "").strip('"') for answer in answers)
    commits = (answer.headers.get("x-repo-commit", "") for answer in answers)
    return Promise(
        sha256=next((tag for tag in tags if SHA256.fullmatch(tag)), None),
        commit=next((commit for commit in commits if COMMIT.fullmatch(commit)), None),
    )


def _require_success(response: httpx.Response, where: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    repo = "/".join(where.removeprefix("hf:").split("/")[:2]) if where.startswith("hf:") else ""
    problem = response.headers.get("x-error-code")  # the hub's
    if repo and problem == "GatedRepo":
        hint = f"accept its terms at https://huggingface.co/{repo}, and set HF_TOKEN to a token of yours"
        raise DownloadError(f"`{where}` is gated: its owner gives it to those who accept the terms ({status})", hint=hint)
    if repo and status == 404 and problem == "RepoNotFound":
        raise DownloadError(f"`{where}`: there is no `{repo}` ({status})", hint="check the name; a private one needs HF_TOKEN")
    if status in (401, 403):
        hint = "this server wants a login, which nomoat cannot give"
        if repo:
            hint = f"check the name; if it is gated, accept its terms at https://huggingface.co/{repo} and set HF_TOKEN"
        raise DownloadError(f"`{where}`: the server refused with {status}", hint=hint)
    if status in (404, 410):
        raise NotThereError(f"`{where}`: the server has no such file ({status})", hint="check the name, or use another source")
    raise DownloadError(f"`{where}`: the server answered {status} {response.reason_phrase}".rstrip(), hint="try again later")
