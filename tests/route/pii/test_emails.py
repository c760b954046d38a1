"""E-mail addresses, however they are written."""

from __future__ import annotations

import unicodedata

import pytest
from private_kinds import kinds


@pytest.mark.parametrize(
    "text",
    [
        "kim@naver.com으로 보내요",
        "<a.b+c@mail.example.co.kr>",
        "kim@my-example.com",
        "kim@example.com.kr",
        "ｋｉｍ＠ｎａｖｅｒ．ｃｏｍ",
        "메일kim@naver.com",
        "홍길동@naver.com",
        "kim@한국.kr",
        "홍길동@회사.한국으로",
        unicodedata.normalize("NFD", "홍길동@메일.com"),
        "jürgen@bücher.de",
        "кто@пример.рф",
        "山田@例え.テスト",
        "डाटा@डाटामेल.भारत",
        "kim @ naver.com",
        "kim @ naver.com.",
        "kim @ naver.com(회사)",
        "kim@\nnaver.com",
        "kim\n@naver.com",
        "kim@naver.\ncom",
        "kim(at)naver.com",
        "kim[at]naver[dot]co.kr",
        "kim 골뱅이 naver.com으로",
        "kim(골뱅이)naver.com",
        "kim [ 골뱅이 ] naver.com",
        "kim{at}naver.com",
        "kim <at> naver.com",
        "kim(@)naver.com",
        "kim 골뱅이 naver 점 com",
        "kim@naver(닷)com",
        "kim@naver。com",
        "kim%40naver.com",
        "kim&#64;naver.com",
        "kim\\@naver.com",
        "**kim**@**naver**.com",
        "git@naver.com",
        "noreply.kim@naver.com",
        "kim@corp.io.Test it first",
        "ask kim@posteo.de.Example follows",
    ],
)
def test_email_is_seen(text: str) -> None:
    assert kinds(text) == {"email"}


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com", "no-reply@Example.org", "메일kim@mail.example.net으로", "kim(at)example.com", "a@b.example", "a@mx.test",
        "a@b.invalid", "root@db.localhost", "a%40example.com",
        "USER@SERVER.TEST", "KIM@NAVER.EXAMPLE",
    ],
)  # fmt: skip
def test_addresses_of_examples_are_nobodys(text: str) -> None:
    """RFC 2606."""
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text", ["foo@bar.js", "vue@next.js", "pkg@v1.2.io", "libgomp@8.5.0-28.el8_10.alma.1", "icon@2x.png", "a@b.min.css"]
)
def test_files_and_versions_behind_an_at_are_no_email(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "kim@163.com", "kim@3m.com", "kim@v2.io", "a@2x.png@naver.io", "kim@js.org", "kim@163.126.com", "kim@v2.1.kr",
        "kim@10.20.naver.com", "root@10.0.0.5.nip.io",
    ],
)  # fmt: skip
def test_hosts_that_begin_with_digits_or_as_files_end_are_seen(text: str) -> None:
    assert kinds(text) == {"email"}
