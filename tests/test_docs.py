"""The documentation is under test: its links lead somewhere, its two languages show the same, and part of it is run.

What is run: the README's session (its models pulled before, its two minutes of tuning shortened) and its Python, and of the other
pages the replay of the Vicuna blog in `docs/duel.md`. All other commands of the pages are only read. `docs/cli.md` is compared with
what the commands say.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest
import shell
from markdown_it import MarkdownIt
from markdown_it.token import Token
from patience import PATIENCE_SECONDS

from nomoat import config
from nomoat.catalog import prices
from nomoat.tables import read_table

ROOT = Path(__file__).parents[1]
DEPENDS_ON_THE_DATA = ("`", "note:", "whenever", "repeated:")  # of the README's session: the verdict, what is said of some data
# What a tuning of one second says besides: in a log, of a first start, of a busy machine, and of so little time.
OF_A_SHORT_RUN = ("reading the weights:", "measuring", "tuning:", "compiling", "10%", "warning:", "chance", "right answers", "too few")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> list[str]:
    """What a reader would type: the lines after a `$` of the page's console blocks."""
    lines = [line for text in blocks(page, "console") for line in text.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.fixture
def reader(tmp_path: Path, empty_home: Path, kernels: None, smollm2_gguf: Path) -> Path:
    """A reader's folder: the two tables of the README, and a home where the model is pulled already."""
    target = empty_home / "models" / "smollm2-135m" / smollm2_gguf.name
    target.parent.mkdir(parents=True)
    target.symlink_to(smollm2_gguf)
    folder = tmp_path / "reader"
    folder.mkdir()
    texts = {"negative": "It broke after a day, number", "positive": "I love it, it works, number"}
    for name, count in (("reviews.csv", 30), ("test.csv", 12)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows((f"{texts[label]} {n}.", label) for n in range(count // 2) for label in texts)
    return folder


def run(command: str, folder: Path) -> shell.Done:
    shortened = command.replace("--minutes 2", "--minutes 0.02").removeprefix("nomoat ")
    with contextlib.chdir(folder):
        return shell.nomoat(*shlex.split(shortened, comments=True))


@pytest.mark.data
@pytest.mark.slow
def test_the_session_of_the_readme_prints_what_it_shows_and_its_python_runs_after_it(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is pulled before, and two minutes of tuning are shortened to one second: the numbers differ, the lines do not.

    Lines are compared by their first words; what the duel says besides is not, as its sentences are wrapped anywhere.
    """
    session = "".join(blocks(ROOT / "README.md", "console"))
    steps = [step.splitlines() for step in session.split("$ ")[1:]]
    assert [step[0].split()[1] for step in steps] == ["pull", "run", "tune", "duel"]
    for command, *shown in steps:
        done = run(command, reader)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith(("nomoat tune", "nomoat duel")):
            said = set((done.stdout + done.stderr).split())
            for line in (line for line in shown if line and not line.startswith(DEPENDS_ON_THE_DATA)):
                assert line.split()[0] in said, f"{command} does not print `{line}`"
        if command.startswith("nomoat tune"):
            first = tuple(line.split()[0] for line in shown if line)
            printed = (done.stdout + done.stderr).splitlines()
            assert [line for line in printed if line and not line.lstrip().startswith(first + OF_A_SHORT_RUN)] == []
    assert (reader / "report.html").exists()
    (code,) = blocks(ROOT / "README.md", "python")
    code = code.replace("replace=True)\nverdict", "replace=True, minutes=0.02)\nverdict")
    assert "minutes=0.02" in code
    monkeypatch.chdir(reader)
    exec(code, {})
    assert "smollm2-135m+reviews" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run.md", "serve.md", "suites.md", "duel.md", "python.md"])
def test_the_python_of_a_page_runs_on_the_engine_of_tests(name: str, empty_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Models are `fake:`, which has no adapter and no price; what asks a server with `openai` is left out."""
    suites = empty_home / "suites"
    suites.mkdir(parents=True)
    examples = [{"id": str(n), "input": f"is this {n}", "target": f"{n} this is"} for n in range(8)]
    (suites / "reviews.jsonl").write_text("\n".join(map(json.dumps, examples)), encoding="utf-8")
    (suites / "reviews.toml").write_text('name = "reviews"\nmetric = "exact"\n', encoding="utf-8")
    code = [text for text in blocks(ROOT / "docs" / name, "python") if "client" not in text.replace("as_client", "")]
    assert code
    exec(re.sub(r'"(smollm2-135m|openai:)[^"]*"', '"fake:"', "\n".join(code)), {})
    told = {"run.md": "moat? a is What\n", "duel.md": "8 items"}.get(name, "")
    assert told in capsys.readouterr().out


def test_the_table_that_a_page_makes_two_of_leaves_a_test_without_personal_data(tmp_path: Path) -> None:
    (code,) = [text for text in blocks(ROOT / "docs" / "tune.md", "python") if "all.csv" in text]
    rows = [{"text": f"{n}\nmine is {'010-1234-5678' if n % 2 else 'blue'}", "label": "ab"[n % 2]} for n in range(400)]
    with (tmp_path / "all.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with contextlib.chdir(tmp_path):
        exec(code, {})
    test, learned = (read_table(tmp_path / name) for name in ("test.csv", "reviews.csv"))
    assert len(learned) == 100 and {row["label"] for row in test} == {"a"}
    assert all(row in rows for row in test + learned) and not any(row in learned for row in test)


@pytest.mark.data
def test_the_replayed_blog_prints_what_the_page_shows(vicuna_folder: Path) -> None:
    (command,) = [line for line in commands(ROOT / "docs" / "duel.md") if "stored:vicuna80" in line]
    done = run(command, ROOT)
    shown = next(text for text in blocks(ROOT / "docs" / "duel.md", "console") if command in text)
    table = [line.rstrip() for line in done.stdout.splitlines()]
    for line in shown.splitlines()[1:]:
        assert line.rstrip() in table


def test_the_command_line_reference_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "docs" / "make_cli_reference.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == maker.render(), "run `make docs`"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_shell_is_to_run_can_be_copied_with_its_comments(page: Path) -> None:
    shown = blocks(page, "sh") if page.name != "cli.md" else re.findall(r"^    ((?:[A-Z_]+=\S+ )?nomoat .*)$", page.read_text(), re.M)
    assert shown or page.name != "cli.md"
    for command in shown:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        for line in command.splitlines():
            if line.startswith("nomoat "):
                assert not re.search(r"\S {2,}[^# ]", line.partition(" #")[0]), f"words of a comment are arguments: {line}"


def test_no_block_of_commands_is_without_its_language() -> None:
    for page in PAGES:
        for token in tokens_of(page):
            assert token.type != "fence" or token.info or not token.content.startswith("nomoat "), f"{page.name}: {token.content}"


def tokens_of(page: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text(encoding="utf-8"))


def links_of(page: Path) -> list[str]:
    """Where its links and pictures lead, but for those to other sites."""
    inner = [token for block in tokens_of(page) for token in block.children or ()]
    targets = [str(token.attrs.get("href") or token.attrs.get("src")) for token in inner if token.type in ("link_open", "image")]
    return [urllib.parse.unquote(target) for target in targets if not urllib.parse.urlsplit(target).scheme]


def anchors_of(page: Path) -> list[str]:
    """The names of its headings, as GitHub makes them: letters and digits of all languages, `-` and `_`, spaces as `-`."""
    anchors: list[str] = []
    for heading, inline in itertools.pairwise(tokens_of(page)):
        if heading.type == "heading_open":
            text = "".join(one.content for one in inline.children or () if one.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            again = anchors.count(slug)
            anchors.append(f"{slug}-{again}" if again else slug)
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(to), f"{page.name} links to {target}, and there are {anchors_of(to)}"


def test_links_and_headings_are_found_as_github_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `--max-cost`: what it costs?\n## 같은 일을 Python으로\n## 한계, 그리고 (더)\n## Limits\n## Limits\n"
        "```sh\n# no heading\n```\n"
        "[a](a.md#x_y) `[code](no.md)` [b](#limits-1) [c](https://example.com/#z) ![d](d.svg)\n\n| t |\n|---|\n| [e](e.md) |\n",
        encoding="utf-8",
    )
    assert anchors_of(page) == ["--max-cost-what-it-costs", "같은-일을-python으로", "한계-그리고-더", "limits", "limits-1"]
    assert links_of(page) == ["a.md#x_y", "#limits-1", "d.svg", "e.md"]


def test_the_korean_readme_has_the_same_code_links_and_numbers_in_tables_in_the_same_order() -> None:
    english, korean = ROOT / "README.md", ROOT / "README.ko.md"
    for language in ("sh", "console", "python"):
        assert [strip_comments(text) for text in blocks(english, language)] == [
            strip_comments(text) for text in blocks(korean, language)
        ]
    ours, theirs = (page.read_text(encoding="utf-8") for page in (english, korean))
    assert re.findall(r"^#+ ", ours, re.MULTILINE) == re.findall(r"^#+ ", theirs, re.MULTILINE)
    links = re.compile(r"\]\(((?!README)[^)]+)\)")
    assert links.findall(ours) == links.findall(theirs)
    numbers = re.compile(r"\d+[.,]?\d*")
    table_rows = [[row for row in text.splitlines() if row.startswith("|")] for text in (ours, theirs)]
    assert [numbers.findall(row) for row in table_rows[0]] == [numbers.findall(row) for row in table_rows[1]]


def strip_comments(code: str) -> str:
    return re.sub(r" *# .*", "", code)


def test_extras_are_installed_from_the_checkout_as_nomoat_is() -> None:
    for page in PAGES:
        assert "pip install 'nomoat[" not in page.read_text(encoding="utf-8"), page


def test_the_page_of_settings_has_each_that_the_code_knows() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "config.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "`" in line
    ]
    settings = {row[2].strip("`"): row[1].strip("`") for row in rows if len(row) == 5 and row[2] not in ("-", "key in `config.toml`")}
    assert settings == {name: config.variable(name) for name in config.FROM_FILE}
    assert {name for row in rows if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])} == config.SECRETS


def test_the_table_of_the_home_has_all_that_is_kept_there() -> None:
    kept = {name for path in (ROOT / "src").rglob("*.py") for name in re.findall(r'home\(\) / "([\w.]+)"', path.read_text("utf-8"))}
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("\n## The home\n")[2].partition("\n\n###")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([\w.]+)`", row)} == kept


def test_the_prices_that_a_page_shows_are_read(empty_home: Path) -> None:
    (shown,) = blocks(ROOT / "docs" / "duel.md", "toml")
    empty_home.mkdir()
    prices.own_path().write_text(shown, encoding="utf-8")
    found = [prices.price(api) for api in ("openai:gpt-4o-mini", "http://gpu1:8000/v1#qwen3-32b", "google:gemini-2.5-pro")]
    assert [(price.input_usd_per_million, price.source) for price in found if price] == [
        (0.12, "our contract"), (0.05, "what the machine costs us"), (1.25, "the provider's page"),
    ]  # fmt: skip
    assert found[2] is not None and found[2].long_prompts is not None


def test_what_is_said_names_no_page_that_an_installation_does_not_have() -> None:
    """Pages are in the repository, not in what is installed: neither help, nor errors and their hints send anybody there."""
    assert "docs/" not in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")}
    for path, source in sources.items():
        tree = ast.parse(source) if "docs" in source else ast.Module()
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        said = [node.value for call in calls for node in ast.walk(call) if isinstance(node, ast.Constant)]
        assert not [text for text in said if isinstance(text, str) and re.search(r"docs/\w+\.md", text)], path


def test_every_function_that_a_page_names_with_its_module_is_there() -> None:
    for page in PAGES:
        for module, name in re.findall(r"`(nomoat\.[a-z_.]+)\.(\w+)\(", page.read_text(encoding="utf-8")):
            assert hasattr(importlib.import_module(module), name), f"{page.name} names {module}.{name}"


@pytest.mark.parametrize("proxy", blocks(ROOT / "docs" / "serve.md", "nginx"))
def test_a_proxy_before_the_server_says_whose_request_it_is(proxy: str) -> None:
    """Else all that come by it take turns as one, or as whoever they say."""
    assert "\n    proxy_set_header X-Forwarded-For $remote_addr;" in proxy


def test_no_page_names_a_path_of_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(root|work|home/\w+)/", page.read_text(encoding="utf-8")), page


def test_the_first_install_line_of_the_readme_is_what_the_project_offers() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in blocks(ROOT / "README.md", "sh")[0].splitlines():
        target = line.split("#")[0].split()
        assert target[0] == "make" and f"\n{target[1]}:" in makefile
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and "make test" in (ROOT / ".ci" / "run").read_text()
