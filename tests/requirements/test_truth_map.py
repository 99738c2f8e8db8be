"""docs/TRUTH_MAP.md says what is so: each row against the file that is its truth, and nothing without a row."""

import re
from pathlib import Path

import pytest
from truths import READERS, ROOT, Truth, problems, tables_of

MAP = tables_of((ROOT / "docs" / "TRUTH_MAP.md").read_text())
LATER = {"dashboard/Dockerfile"}
"""Files that the dashboard's own release brings; gone from here once they are there."""


@pytest.mark.parametrize("heading", READERS)
def test_map_and_files_say_the_same(heading: str) -> None:
    assert problems(heading, MAP.get(heading, []), READERS[heading]()) == []


def test_every_file_that_the_map_names_is_there() -> None:
    cells = {cell for rows in MAP.values() for row in rows for cell in row.values()}
    files = {cell for cell in cells if re.fullmatch(r"[\w./-]*\w/[\w.-]+|[\w-]+\.(?:yml|py|toml)", cell)}
    files = {file for file in files if "/" not in file or (ROOT / file.split("/")[0]).is_dir() or file in LATER}
    assert {file for file in files if not (ROOT / file).is_file()} <= LATER
    assert not any((ROOT / file).exists() for file in LATER)
    assert len(files) > 10


def test_every_variable_of_the_settings_is_in_the_reference() -> None:
    read = {name for name in READERS["Variables"]() if name.startswith("FULCRUM_")}
    said = set(re.findall(r"FULCRUM_[A-Z0-9_]*[A-Z0-9]", (ROOT / "docs/reference/configuration.md").read_text()))
    inner = {"FULCRUM_WORKER", "FULCRUM_DB_PASSWORD"}  # of processes among themselves, of the deployment's files
    assert {name.removesuffix("_FILE") for name in said} - read == set()
    assert read - said - inner == set()


def test_every_secret_is_in_the_page_of_credentials() -> None:
    secrets = {row["variable"] for row in MAP["Variables"] if row["what it is"].startswith("secret")}
    page = (ROOT / "docs" / "CREDENTIALS.md").read_text()
    inner = {"FULCRUM_DB_PASSWORD", "FULCRUM_API_KEY"}  # POSTGRES_PASSWORD by another name; any caller's key
    assert {name for name in secrets - inner if f"`{name}`" not in page} == set()
    assert len(secrets) > 10


TRUTHS = {"one": Truth({"a.yml", "b.yml"}, {"port": "1"}), "two": Truth({"a.yml"}, {"port": "2"})}
GOOD = [{"name": "one", "port": "1", "truth": "b.yml"}, {"name": "two", "port": "2", "truth": "a.yml"}]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (GOOD[:1], "H: two has no row"),
        ([*GOOD, {"name": "three", "port": "3", "truth": "a.yml"}], "H: three is nowhere"),
        ([*GOOD, GOOD[0]], "H: one stands twice"),
        ([GOOD[0], {**GOOD[1], "truth": "b.yml"}], "H: two does not stand in b.yml, but in a.yml"),
        ([GOOD[0], {**GOOD[1], "port": "22"}], "H: two: port is 2, not 22"),
    ],
)
def test_planted_fault_in_the_map_is_found(rows: list[dict[str, str]], problem: str) -> None:
    assert problems("H", GOOD, TRUTHS) == []
    found = problems("H", rows, TRUTHS)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_reader_that_reads_nothing_is_found() -> None:
    assert problems("H", [], {}) == ["H: nothing was read"]


def test_page_is_read_table_by_table() -> None:
    page = "# A\n\n| x | y |\n|---|---|\n| `1` | a \\| b |\n\ntext\n\n## B\n\n| z |\n|---|\n| `2` |\n"
    assert tables_of(page) == {"A": [{"x": "1", "y": "a \\| b"}], "B": [{"z": "2"}]}


def test_links_of_the_deployment_pages_lead_somewhere() -> None:
    pages = ["docs/TRUTH_MAP.md", "docs/DEPLOYMENT_GUIDE.md", "docs/CREDENTIALS.md", "docs/reference/metrics.md"]
    for page in [*pages, "infra/railway/README.md"]:
        path = ROOT / page
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).resolve().exists(), f"{page}: {target}"
    for named in re.findall(r"`(infra/[\w./-]+)`", "".join((ROOT / page).read_text() for page in pages)):
        assert Path(ROOT / named).exists(), named
