"""`uem-t5x report`, from run folders to a page."""

import csv
import html.parser
import re
import shutil

import fake_runs
import pytest

from uem_t5x import cli
from uem_t5x.commands import report as command
from uem_t5x.report import figures, paper_results

HOSTILE = "<script>alert('x')</script> & \"more\" (1999)"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Reads a page, and fails where a tag is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Runs as a sweep leaves them: of two lengths and as text, two seeds; one is not scored."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed in (0, 1):
        for items, f1 in ((5, 0.17), (50, 0.43)):
            fake_runs.write(
                folder / f"uem/{items}-{seed}",
                f1=f1 + seed / 100,
                HISTORY_LENGTH=items,
                RANDOM_SEED=seed,
                title=HOSTILE,
                answer="The user likes <b>Drama</b>.",
            )
        fake_runs.write(folder / f"text-{seed}", "text", 0.2, HISTORY_LENGTH=5, RANDOM_SEED=seed)
    fake_runs.write(folder / "running", scored=False)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves plots empty: drawing takes most of the time."""
    monkeypatch.setattr(figures, "_image", lambda *_: b"")


@pytest.fixture(scope="module")
def report(sweep, tmp_path_factory):
    """The folder of a report, and its page."""
    output = tmp_path_factory.mktemp("report") / "report"
    assert cli.main(["report", str(sweep), "--output", str(output)]) == 0
    return output, Page((output / "report.html").read_text(encoding="utf-8"))


def test_the_page_stands_alone(report):
    output, _ = report
    text = (output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "default-src 'none'" in text


def test_titles_and_answers_are_text(report):
    _, page = report
    assert page.of("script") == []
    assert any(HOSTILE in text for text in page.texts)
    assert "The user likes <b>Drama</b>." in page.texts


def test_tables_can_be_read_by_all(report):
    _, page = report
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table") > 4
    assert all("scope" in heading for heading in page.of("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in page.of("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_every_plot_is_there_light_dark_and_as_a_png(report):
    output, page = report
    images = page.of("img")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(image["alt"] for image in images)
    light, dark = ([i for i in images if i["class"] == name] for name in ("light", "dark"))
    pngs = sorted(file.name for file in output.glob("*.png"))
    assert len(light) == len(dark) == len(pngs)
    assert pngs == [
        "confusion.png",
        "genres-disliked.png",
        "genres-liked.png",
        "history-inputs.png",
        "history-length.png",
        "language-model.png",
        "training-loss.png",
        "uem-layers.png",
        "validation-f1.png",
    ]
    assert (output / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_page_says(report):
    _, page = report
    for text in (
        "0.435 ± 0.007",  # of the best setting: 0.43 and 0.44
        "0.060",  # counting
        "0.660",  # the rule at 50
        "label rule on the 5 most recent items",
        "4.5 (3\N{EN DASH}5)",  # items read as text
        "0.557",  # the paper's LongT5
        "120 (60.0%)",  # liked as liked, over two seeds
    ):
        assert text in page.texts, text
    said = " ".join(page.texts)
    assert "0.131 and 0.183" in said and "0.252 (base)" in said
    assert said.count("0.131 and 0.183") == 1
    assert "6 runs of 3 settings" in said
    assert "running" in said.partition("Left out, as not scored")[2]


def test_a_row_for_every_run(report):
    with (report[0] / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    best = next(row for row in rows if row["run"].endswith("uem/50-1"))
    assert float(best["f1"]) == 0.44
    assert best["seed"] == "1" and best["HISTORY_LENGTH"] == "50" and best["UEM_LAYERS"] == "1"
    assert float(best["counting_f1"]) == 0.06 and float(best["rule_f1"]) == 0.66
    assert float(best["disliked_recall"]) == pytest.approx(0.39)
    assert "BATCH_SIZE" not in best  # the same in all
    assert "MIXTURE_OR_TASK_NAME" not in best  # a reference; `kind` says it
    assert next(row for row in rows if row["kind"] == "text")["UEM_LAYERS"] == ""


def test_tables_in_markdown(report):
    lines = (report[0] / "tables.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    ours = next(row for row in rows if "0.435 \N{PLUS-MINUS SIGN} 0.007" in row)
    assert ours[:4] == ["embedding", "50", "0.396", "0.381"]
    limit = next(row for row in rows if "label rule on the 50 most recent items" in row)
    assert limit[6] == "0.660"
    assert next(row for row in rows if "counting, whole history" in row)[2] == "0.192"
    told = "\n".join(lines).partition("**")[0]  # before the first table
    assert all(words in told for words in paper_results.INCONSISTENCIES)
    for line in lines:
        if line.startswith("!"):
            assert (report[0] / line.rpartition("(")[2].removesuffix(")")).is_file()


def test_no_text_breaks_a_table_in_markdown(tmp_path, undrawn):
    for name, model in (("one", "a | b *c*"), ("two", "<b>_d_")):
        fake_runs.write(tmp_path / "runs" / name, LANGUAGE_MODEL=model, title="x_y")
    assert cli.main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/tables.md").read_text(encoding="utf-8")
    tables = [part.split("\n") for part in text.split("\n\n") if part.startswith("|")]
    for head, *rest in tables:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in rest if line}
        assert cells == {len(head.split("|"))}
    (row,) = (line for table in tables for line in table if line.startswith(r"| a \|"))
    assert row.startswith(r"| a \| b \*c\* | 50 |")
    assert r"| \<b\>\_d\_ | 50 |" in text


def test_a_run_that_was_trained_on_after_it_was_scored_is_left_out(tmp_path, capsys, undrawn):
    fake_runs.write(tmp_path / "runs/done", checkpoints={40: 0.3})
    scored = {"step": 20, "trained_steps": 20}
    stale = fake_runs.write(tmp_path / "runs/on", asked=scored, checkpoints={20: 0.2, 40: 0.3})
    assert cli.main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 0
    why = "as trained on since they were scored"
    assert capsys.readouterr().err.startswith(f"skipped, {why}: {stale}; score each DIR with")
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert f"Left out, {why}: {stale}" in " ".join(page.texts)
    assert cli.main(["report", str(stale), "--output", str(tmp_path / "out")]) == 2
    told = f"{stale}: no scores since it was trained on; score each DIR with"
    assert told in capsys.readouterr().err


def test_what_is_not_known_of_older_scores_is_said(tmp_path, undrawn):
    folder = fake_runs.write(tmp_path / "run")
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    said = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Older versions" not in said and "Answers: free." in said
    fake_runs.forget(folder, "well_formed")
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    said = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "ANSWERS of 1 run." in said and "Answers: unknown." in said


@pytest.mark.parametrize(
    ("f1", "share", "of_what"),
    [  # counting scores 0.06, the rule 0.66
        (0.042, "none", "of the way: the best setting is 0.018 below counting"),  # once "-3%"
        (0.36, "50%", "of the way, by the best setting"),
        (0.7, "all", "of the way: the best setting is 0.040 above the rule"),
    ],
)
def test_the_way_from_counting_to_the_rule(f1, share, of_what, tmp_path, undrawn):
    folder = fake_runs.write(tmp_path / "run", f1=f1)
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    texts = Page((tmp_path / "out/report.html").read_text(encoding="utf-8")).texts
    told = [text for text in texts[texts.index("from counting to the rule") :] if text]
    assert told[1:3] == [share, of_what]


def test_skipped_runs_are_named_with_what_scores_them(sweep, tmp_path, capsys, undrawn):
    assert cli.main(["report", str(sweep), "--output", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"{sweep}/running; score each DIR with `uem-t5x evaluate --model-dir DIR" in captured.err
    assert captured.out == f"6 runs: {tmp_path}/out/report.html\n"


def test_runs_on_other_users_have_a_part_of_their_own(tmp_path, undrawn):
    folders = [fake_runs.write(tmp_path / name, inputs=name) for name in ("one", "two")]
    arguments = ["report", *map(str, folders), "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "out/data-1-confusion.png").exists()
    assert (tmp_path / "out/data-2-confusion.png").exists()
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert "2 different sets of users" in " ".join(page.texts)


def test_a_lone_run_without_events(tmp_path, undrawn):
    folder = fake_runs.write(tmp_path / "run", "text", curve=(), losses=())
    (folder / "inference_eval/task-metrics.jsonl").unlink()
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "These runs left no scores or losses of their training." in page.texts


def test_a_run_that_is_named_twice_is_one(sweep):
    found = command.find_runs([str(sweep), str(sweep / "uem"), str(sweep / "uem/../text-0")])
    assert len(found) == 7


class TestRefused:
    @pytest.fixture
    def refused(self, capsys):
        def refused(*arguments):
            assert cli.main(["report", *map(str, arguments)]) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            return error

        return refused

    def test_no_runs(self, refused, tmp_path):
        error = refused(tmp_path, "--output", tmp_path / "out")
        assert "no trained model here, nor one or two folders below; give the MODEL_DIR" in error

    def test_no_scored_runs(self, refused, sweep, tmp_path):
        error = refused(sweep / "running", "--output", tmp_path / "out")
        assert "no scores yet; score each DIR with `uem-t5x evaluate" in error

    @pytest.mark.parametrize("name", ["notes.txt", "report.html"])
    def test_an_output_that_is_no_report(self, name, refused, sweep, tmp_path):
        (tmp_path / name).write_text("mine")
        error = refused(sweep / "text-0", "--output", tmp_path)
        assert "exists and is not just a report; give --output" in error
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("name", ["notes.md", "scores.csv", "photo.png", "run", "tables.md"])
    def test_a_report_that_something_was_put_into(self, name, refused, report, sweep, tmp_path):
        folder = shutil.copytree(report[0], tmp_path / "copy")
        if name == "run":
            fake_runs.write(folder / name)
        else:
            (folder / name).write_text("mine")  # of a report's own file, a change
        before = sorted(file.relative_to(folder) for file in folder.rglob("*"))
        error = refused(sweep / "text-0", "--output", folder)
        assert f"{folder / name}: was put there, or changed" in error and "another name" in error
        assert sorted(file.relative_to(folder) for file in folder.rglob("*")) == before

    def test_a_report_of_before_there_was_a_list(self, refused, report, sweep, tmp_path):
        folder = shutil.copytree(report[0], tmp_path / "copy")
        (folder / "files.json").unlink()
        error = refused(sweep / "text-0", "--output", folder)
        assert "is not a report that lists its files" in error and "delete the folder" in error
        assert (folder / "report.html").is_file()

    def test_a_run_and_its_copy(self, refused, sweep, tmp_path):
        copy = shutil.copytree(sweep / "text-0", tmp_path / "copy")
        error = refused(sweep / "text-0", copy, "--output", tmp_path / "out")
        assert f"{sweep / 'text-0'} and {copy}: the same settings and the same seed" in error
        assert not (tmp_path / "out").exists()


def test_an_older_report_is_replaced(sweep, tmp_path, undrawn):
    arguments = ["report", str(sweep / "text-0"), "--output", str(tmp_path / "out")]
    for _ in range(2):
        assert cli.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_plot_drawn_twice_is_the_same_to_the_byte():
    plot = figures.Plot("name", "title", "alt", lambda figure, _: figure.text(0, 0, "a $b$ $c"))
    assert figures.draw(plot) == figures.draw(plot)


def test_text_can_be_told_from_its_background():
    """WCAG's contrast: 4.5 for text, 3 for lines."""

    def luminance(color):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for theme in (figures.LIGHT, figures.DARK):
        assert min(contrast(ink, theme.surface) for ink in (theme.ink, theme.muted)) >= 4.5
        assert min(contrast(line, theme.surface) for line in theme.series) >= 3
