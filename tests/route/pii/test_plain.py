"""Texts in their plainest characters: what marks, escapes and control characters must not hide."""

from __future__ import annotations

import json
import unicodedata
from urllib.parse import quote

import pytest
from private_kinds import RESIDENT, kinds

from nomoat.route import pii


def test_a_text_is_read_in_its_plainest_characters() -> None:
    assert kinds("\u200b전화 ０１０－１２３４\u200b－５６７８!") == {"phone"}
    for name in ("STRAUẞ", "straußen", "김　철\u200b수"):
        assert kinds(f"Straße 1, Herr {name}", names=["strauss", "straußen", "김철수"]) == {"name"}
    assert kinds("Straße 1, ß Straußß", names=["strauss", "김철수"]) == set()
    text = unicodedata.normalize("NFD", "メールはガクト\ufe0fへ 4111\u3164 1111\n1111 1111")
    assert kinds(text, names=["ガクト"]) == {"name", "card"}


@pytest.mark.parametrize("written", [quote("김철수"), "김&#38;#52384;수", "&#44608;&nbsp;" + json.dumps("철수")[1:-1]])
def test_a_name_in_escapes_and_in_escapes_of_escapes_is_seen(written: str) -> None:
    assert kinds(f"from {written}, 3 of 40!", names=["김철수"]) == {"name"}


CONTROLS = [
    "\0",
    "\b",
    "\x1f",
    "\x7f",
    "\x80",
    "\x1b[01;31m\x1b[K",
    "\x1b[38;2;255;128;0m",
    "\x9b1m",
    "\x1b(B\x1b[m",
    "\u2065",
    "\U000e0080",
    "\ufff0",
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("phone", "<td>010</td><td>1234</td>\n<td>5678</td>"),
        ("phone", "010-<b>1234</b>-5678"),
        ("phone", '010-<span class="n">1234</span>-5678'),
        ("phone", "010-<del>1234</del>-<!-- mobile -->5678<o:p></o:p>"),
        ("phone", json.dumps("<td>010</td><td>1234</td><td>5678</td>")),
        ("phone", "&lt;td&gt;010&lt;/td&gt;&lt;td&gt;1234&lt;/td&gt;&lt;td&gt;5678&lt;/td&gt;"),
        ("name", "<p>김<em>철수</em></p>"),
        ("name", "OBX|1|ST|||김^철수\rOBX|2|ST|||x"),
        ("name", json.dumps("PID|1||1^^^H^PI||김^철수\rPV1|1|O")),
        ("name", "김^철수"),
        ("api_key", "<tr><th>id</th><th>password</th></tr>\n<tr><td>kim</td><td>Blue42sky!</td></tr>"),
        ("resident_number", "<tr><td>주민번호</td><td>900101</td><td>1234568</td></tr>"),
    ],
)
def test_tags_and_the_signs_between_a_records_fields_hide_nothing(kind: pii.Kind, text: str) -> None:
    assert kinds(text, names=["김철수"]) == {kind}


@pytest.mark.parametrize(("name", "text"), [("이준", "이^준"), ("남궁민", "남궁^민||M"), ("Kim J", "Kim^J")])
def test_a_short_name_of_a_record_is_seen_alone(name: str, text: str) -> None:
    assert kinds(text, names=[name]) == {"name"}


@pytest.mark.parametrize("rows", [("4111", "1111", "1111", "1111"), ("4111</td><td>1111", "1111</td><td>1111")])
def test_rows_of_a_table_are_lines(rows: tuple[str, ...]) -> None:
    assert kinds("".join(f"<tr><td>{row}</td></tr>" for row in rows)) == set()


@pytest.mark.parametrize("text", ["010^2 + 1234^5", "x^2 + 10^6", "if 010 < b and 1234 > 5678", "ends </think> here", "[^ab]|^cd"])
def test_powers_and_comparisons_are_read_as_they_are(text: str) -> None:
    assert pii.readings(text) == (text,)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("resident_number", RESIDENT), ("phone", "010-1234-5678"), ("bank_account", "계좌 110-123-456789"), ("email", "kim@naver.com"),
        ("card", "4111-1111-1111-1111"), ("name", "김철수"), ("address", "마포구 월드컵북로 12"),
    ],
)  # fmt: skip
def test_what_a_screen_does_not_show_hides_nothing(kind: pii.Kind, text: str, control: str) -> None:
    """At each place, at all of them (as UTF-16 has NULs that is read as ASCII), and in the escapes of JSON. What is read apart there,
    too, may look like more."""
    for at in range(1, len(text)):
        assert kinds(text[:at] + control + text[at:], names=["김철수"]) >= {kind}, at
    assert kinds(control.join(text), names=["김철수"]) == {kind}
    assert kinds(json.dumps(control.join(text)), names=["김철수"]) == {kind}


@pytest.mark.parametrize(
    "text", ["\x1b[9G010-1234-5678\x1b[30G42", "3\x00010-1234-5678\x007", "1%00010-1234-5678", "\x1b[010-1234-5678m"]
)
def test_what_a_control_character_parts_is_seen_alone(text: str) -> None:
    assert kinds(text) == {"phone"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bank_account", "계좌 110{}123{}456789"), ("card", "카드 4111{0}1111{0}1111{0}1111"),
        ("resident_number", "9{0}0{0}0{0}1{0}0{0}1{0}-{0}1{0}2{0}3{0}4{0}5{0}6{0}8"), ("bank_account", "입금{0}{0}{0}110123456789"),
        ("email", "kim{}@naver.com"), ("email", "kim{}@ naver.com"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\v", "\f", "\x85", "\u2028", "\u2029"])
def test_what_may_end_a_line_may_be_white_space_within_one(kind: pii.Kind, text: str, end: str) -> None:
    assert kinds(text.format(end, end)) == {kind}
