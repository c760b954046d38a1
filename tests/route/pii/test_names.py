"""Names that a policy lists, and words that they are a part of."""

from __future__ import annotations

import json
import unicodedata
from urllib.parse import quote

import pytest
from private_kinds import kinds

from nomoat.route.pii.names import holds_name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("김철수", "김철수는 왔다"),
        ("김철수", "우리김철수"),
        ("김 철수", "김철수"),
        ("김철수", unicodedata.normalize("NFD", "김철수가")),
        ("김철수", "김\ufe0f철수"),
        ("김철수", "김\u3164철\u3164수"),
        ("ガクト", unicodedata.normalize("NFD", "ガクトは")),
        ("ジョブズ", unicodedata.normalize("NFD", "ジョブズ氏")),
        (unicodedata.normalize("NFD", "ガクト"), "ｶﾞｸﾄ"),
        ("أحمد", unicodedata.normalize("NFD", "أحمد")),
        ("Jane Roe", "JANE  ROE called"),
        ("Jane Roe", "jane roe가 전화했다"),
        ("Project X", "the project\nx plan"),
        ("C++ (secret)", "uses c++ (secret)!"),
        ("O'Brien", "O’Brien"),
        ("O'Brien", "call o‘brien"),
        ("O’Brien", "O'BRIEN"),
        ("O'Brien", "Oʼbrien"),
        ("O'Brien", "O′Brien"),
        ("O'Brien", "O´Brien"),
        ("O'Brien", "O`Brien"),
        ("O'Brien", "O＇Brien"),
        ("김철수", "김 철수"),
        ("김철수", "김　철수는"),
        ("김철수", "성명: 김 철 수"),
        ("김철수", "어제 온 김철\n수는"),
        ("김철수", "우리 김  철수"),
        ("김구", "김 구 선생"),
        ("이지원", "담당: 이 지원"),
        ("이지원", "담당:이 지원"),
        ("이지원", "기관이지원"),
        ("LG전자", "LG 전자가"),
        ("佐藤", "担当は佐 藤です"),
        ("山田太郎", "山田 太郎"),
        ("ジョブズ", "ジョブ ズ"),
        ("Strauß", "STRAUSS"),
        ("Strauß", "Strauss"),
        ("Strauß", "STRAUẞ"),
        ("Strauss", "strauß"),
        ("İpek", "IPEK"),
        ("Παύλος", "ΠΑΎΛΟΣ"),
        ("Project Moat", "project-moat/readme"),
        ("Project Moat", "project_moat"),
        ("Project Moat", "project.moat"),
        ("Project Moat", "Project **Moat**"),
        ("Project Moat", "Project%20Moat"),
        ("Project Moat", "q=Project+Moat"),
        ("Project Moat", json.dumps("first line\nProject Moat")),
        ("Project 🏰", json.dumps("the project 🏰")),
        ("김철수", "김**철수**"),
        ("김철수", "`김`철수"),
        ("김철수", "김, 철수"),
        ("김철수", "김·철수"),
        ("김철수", "> 어제 온 김철\n> 수는"),
        ("김철수", json.dumps({"name": "김철수"})),
        ("김철수", json.dumps(json.dumps({"name": "김철수"}))),
        ("김철수", quote("김철수")),
        ("김철수", quote(quote("김철수"))),
        ("김철수", "&#44608;&#xCCA0;&#49688;"),
        ("김철수", "&amp;#44608;철수"),
        ("김철수", "김&nbsp;철수"),
        ("MRN", "MRN12345"),
        ("Moat", "moat2026"),
        ("Project-Sun", "project sun"),
        ("Project-Sun", "ProjectSun"),
        ("Project-Sun", "project_sun"),
        ("St. Mary", "ST MARY"),
        ("J. Smith", "j.smith"),
        ("J. Smith", "JSmith"),
        ("김·철수", "김철수"),
        ("김 철수", "김·철수"),
        ("X-Ray7", "xray7"),
        ("C++", "c++"),
        ("ACME, Inc.", "ACME Inc"),
        ("ACME, Inc.", "ACME, Inc"),
        ("ACME, Inc.", "Acme Inc."),
        ("ACME, Inc.", "acme inc"),
        ("ACME, Inc.", "acme,inc.가"),
        ("ACME Inc", "ACME, Inc."),
        ("Smith, John", "smith john"),
        ("Roe Jr.", "Roe Jr"),
        ("김영희", "PID|1||00123456^^^SNUH^PI||김^영희||19850412"),
        ("김영희", "김^영희"),
        ("Kim Young-Hee", "Kim^YoungHee^^^"),
        ("Kırmızı", "KIRMIZI"),
        ("KIRMIZI", "kırmızı"),
    ],
)
def test_listed_name_is_seen(name: str, text: str) -> None:
    assert kinds(text, names=[name]) == {"name"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Roe", "heroes"),
        ("Roe", "Roebuck"),
        ("Roe", "hRoe"),
        ("Roe", "R oe"),
        ("Иван", "и ванна"),
        ("김철수", "김철호"),
        ("김철수", "김치 철수"),
        ("이수", "사람이 수영한다"),
        ("이지원", "기관이 지원한다"),
        ("이수정", "문장이 수정되었다"),
        ("Strauß", "Straussen"),
        (" ", "a b"),
        ("Roe", "R-oe"),
        ("Project Moat", "project. A moat"),
        ("김철수", "김, 그리고 철수"),
        ("이수정", "문장이, 수정"),
        ("Kim", "Kims"),
        ("Kim", "2kim"),
        ("Project 7", "project 71"),
        ("C++", "c d"),
        ("3.5", "35"),
        ("ACME, Inc.", "acme income"),
        ("A.", "a moat"),
    ],
)
def test_part_of_another_word_is_not_a_listed_name(name: str, text: str) -> None:
    assert kinds(text, names=[name]) == set()


def test_names_whose_letters_are_not_there_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all patients of a hospital: each pattern took a millisecond to make, and as long for each text."""
    patients = [f"moat{at}" for at in range(20_000)]
    assert holds_name("a castle, and MOAT19999", patients)
    monkeypatch.setattr("re.compile", None)
    assert not holds_name("a castle", patients)
    assert holds_name("a castle, and moat19999", patients)  # its pattern is kept
