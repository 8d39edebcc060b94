"""The report of runs, sweeps and ablations on one page."""

import base64
import hashlib
import html
import html.parser
import io
import json
import re
import shutil

import markdown
import pytest
from PIL import Image

import run_finetune
import run_pretrain
from mbt_speech.__main__ import main
from mbt_speech.reports import report
from mbt_speech.reports.plain_text import plain
from mbt_speech.reports.report_page import to_html
from mbt_speech.reports.tables import markdown_table


class Page(html.parser.HTMLParser):
    """Collects what a page holds, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.links, self.attributes, self.text = [], [], [], [], ""
        self.scripts = 0
        self.feed(text)
        assert self.scripts == 1  # ours

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.attributes += [f"{name}={value}" for name, value in attrs]
        self.scripts += tag == "script"
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(attributes["src"])
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def runs(speech_folder, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    shared = ["--train_dir", str(speech_folder), "--preset", "tiny", "--per_device_train_batch_size", "8"]
    for objective in ("bt", "mbt"):
        words = ["--objective", objective, "--max_steps", "3", "--logging_steps", "1"]
        run_pretrain.main([*shared, *words, "--output_dir", str(runs / objective)])
    words = ["--model_name_or_path", str(runs / "bt"), str(runs / "mbt"), "stats", "--freeze_encoder"]
    words += ["--label_fraction", "0.5", "1", "--seed", "0", "1", "2"]
    run_finetune.main([*shared, *words, "--output_dir", str(runs / "sweep")])
    ablation = runs / "ablations" / "which"
    (ablation / "encoders").mkdir(parents=True)
    shutil.copytree(runs / "bt", ablation / "encoders" / "bt")
    result = {"task": "x", "curve": "a", "position": None, "label_fraction": 1, "accuracy": 0.731}
    record = {"title": "Accuracy by <something>", "data": "tones", "axis": "density"}
    record["results"] = [result | {"chance": 0.5, "cell": "a", "pretraining_seed": None}]
    (ablation / "ablation.json").write_text(json.dumps(record))
    shutil.copy(runs / "bt" / "loss.png", ablation / "accuracy.png")
    return runs


@pytest.mark.slow
def test_a_report_gathers_all_runs_on_a_page_that_needs_no_other_file(runs, tmp_path):
    main(["report", "--runs_dir", str(runs), "--output_dir", str(tmp_path / "report")])
    markdown = (tmp_path / "report" / "report.md").read_text()
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert page.open == []
    assert "2 pre-trained encoders, 1 sweep, 1 ablation." in markdown
    overview = next(line for line in markdown.splitlines() if line.startswith("| bt, frozen | "))
    results = (runs / "sweep" / "results.md").read_text()
    assert overview.split(" | ")[1] in results
    assert "paired by seed" in page.text
    assert "73.1" in page.text
    assert "Accuracy by <something>" in page.text
    assert "objective: mbt" in page.text  # its recipe
    shown = 4 + 2 - 1 + 1  # of the sweep without losses; losses and correlations; the ablation
    assert len(page.pictures) == markdown.count("](pictures/") == shown
    assert page.text.count("Figure ") == shown
    for source in page.pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.width > 300
    assert all(link.startswith("#") for link in page.links)


@pytest.mark.slow
def test_a_second_report_replaces_the_first_and_does_not_report_itself(runs):
    main(["report", "--runs_dir", str(runs)])
    others = [runs / "report" / "pictures" / name for name in ("holiday.jpg", "2024-holiday.png")]
    for path in others:
        path.write_bytes(b"")
    main(["report", "--runs_dir", str(runs)])
    assert all(path.exists() for path in others)
    pictures = [path for path in (runs / "report" / "pictures").iterdir() if path not in others]
    assert len(pictures) == (runs / "report" / "report.md").read_text().count("](pictures/")


def test_sweeps_of_one_task_and_data_set_share_columns_unless_they_share_a_method():
    def sweep(method, encoder, accuracy, data="tones"):
        row = {"task": "keyword", "method": method, "encoder": encoder, "label_fraction": 1.0, "accuracy": accuracy}
        return {"data": data, "results": [row]}

    sweeps = {"a": sweep("bt", "frozen", 0.1), "b": sweep("bt", "trained", 0.2), "c": sweep("bt", "frozen", 0.3),
              "d": sweep("bt", "trained", 0.4, "chirps")}  # fmt: skip
    others = {"e": sweep("real/bt", "frozen", 0.5), "f": sweep("demo/bt", "frozen", 0.6, "chirps")}
    assert report.overview(others).splitlines()[4:] == [
        "| real/bt, frozen | 50.0 | |",
        "| demo/bt, frozen | | 60.0 |",
    ], "two encoders share a row"
    assert report.overview(sweeps).splitlines()[2:] == [
        "| | tones: keyword, 100 % | tones: keyword (c), 100 % | chirps: keyword, 100 % |",
        "|---|---|---|---|",
        "| bt, frozen | 10.0 | 30.0 | |",
        "| bt, trained | 20.0 | | 40.0 |",
    ]


def test_a_page_is_dark_where_the_screen_is_fetches_nothing_and_runs_its_own_script_alone(tmp_path):
    page = to_html(f"# Title\n\n{markdown_table(['', 'x'], [['a', 1]])}\n", tmp_path)
    assert "@media (prefers-color-scheme: dark)" in page
    assert not re.search(r"https?://|url\(|@import|src=\"(?!data:)", page)
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_a_folder_without_runs_is_refused_with_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["report", "--runs_dir", str(tmp_path)])
    assert "nothing to report" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text('{"data": ')
    with pytest.raises(SystemExit):
        main(["report", "--runs_dir", str(tmp_path), "--output_dir", str(tmp_path)])
    assert f"{tmp_path / 'sweep.json'} is damaged" in capsys.readouterr().err


HOSTILE = ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "[x](javascript:alert(1))", "a|b", "`c`",
           "![x](../../secret.png)", "<https://evil.example>", "a\n# b", "$x^$"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_markdown_and_in_html(name, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    table = markdown_table(["", "task"], [[name, name]])
    page = to_html(f"# {plain(name)}\n\n## {plain(name)}\n\n{table}\n\n{plain(name)}\n", tmp_path / "report")
    read = Page(page)
    assert not read.pictures
    assert not [link for link in read.links if not link.startswith("#")]
    assert "alert(1)" not in page.partition("<script>")[2]
    assert "onerror" not in page or "&lt;img" in page
    assert read.text.count(" ".join(name.split())) >= 3


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_of_a_hostile_run_holds_nothing_of_its_making(text, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    read = Page(to_html(f"# Title\n\n{text}\n\n## {text}\n", tmp_path / "report"))
    assert not read.pictures
    assert not [link for link in read.links if not link.startswith("#")]
    assert "alert(1)" not in "".join(read.attributes)


@pytest.mark.parametrize("name", ["_silence_", "__init__", "my*run*x", "**", "a_b_c", "2_000"])
def test_a_name_is_never_emphasized(name):
    assert html.unescape(re.sub(r"</?p>", "", markdown.markdown(plain(name)))) == name


def test_only_pictures_of_the_last_report_are_deleted(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("01-setup.png", "02-losses.png"):
        (tmp_path / "pictures" / name).write_bytes(b"")
    (tmp_path / "report.md").write_text("![losses](pictures/02-losses.png)")
    report.Gallery(tmp_path)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["01-setup.png"]
