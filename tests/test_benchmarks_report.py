"""Tables, plots and documents are those of the committed results, and one bad file does not keep others from it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.report import DOCUMENTS, REPORTS, markdown, quote
from benchmarks.results import digest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def test_a_file_that_cannot_be_drawn_does_not_keep_the_others_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_bytes((RESULTS / "distributed-map.json").read_bytes())
    (tmp_path / "c.json").write_text('{"schema": 1, "benchmark": "tea"}')
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert (tmp_path / "b.md").exists()
    said = capsys.readouterr().err
    assert "a.json cannot be drawn" in said
    assert "c.json cannot be drawn: the results are of 'tea', which has no report; there are batch, break-even" in said
    assert main(["report", "--results", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_tables_and_plots_are_those_of_the_committed_results(path: Path) -> None:
    content = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == markdown(content), "run `python -m benchmarks report`"
    for name in REPORTS[content["benchmark"]].FIGURES:
        plot = path.with_name(f"{path.stem}-{name}.svg").read_text()
        assert f"results {digest(content)}" in plot, "run `python -m benchmarks report`"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if (ROOT / path).exists()], ids=str)
def test_documents_quote_the_committed_results(document: Path) -> None:
    text = (ROOT / document).read_text()
    assert quote(text, ROOT / document, RESULTS) == text, "run `python -m benchmarks report`"


def test_a_document_that_quotes_what_is_not_there_does_not_keep_the_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [tmp_path / "a.md", tmp_path / "b.md"]
    for document, section in zip(documents, ("tea", "facts"), strict=True):
        document.write_text(f"<!-- benchmarks:distributed-map:{section} -->\n<!-- benchmarks:end -->\n")
    (tmp_path / "distributed-map.json").write_bytes((RESULTS / "distributed-map.json").read_bytes())
    monkeypatch.setattr("benchmarks.__main__.COMMITTED", tmp_path)
    monkeypatch.setattr("benchmarks.report.DOCUMENTS", documents)
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert "a.md cannot be drawn: distributed-map has no section 'tea'; it has " in capsys.readouterr().err
    assert "100,000 lines" in documents[1].read_text()
