"""What README and docs print runs as printed."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile as sf

import run_finetune
import run_pretrain
from feature_extraction import MBTFeatureExtractor
from mbt_speech.__main__ import COMMANDS, main, parse_args
from mbt_speech.command_line import parse_arguments
from mbt_speech.corpora.prepare import SETS
from modeling_mbt import MBTConfig, MBTForPreTraining
from tests.support.sounds import SAMPLING_RATE, chirp

ROOT = Path(run_pretrain.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_OTHERS = {"--cpu", "--num_cpu_threads_per_process", "--num_processes", "--model"}  # accelerate's, and HEAR's
SCRIPTS = {"run_pretrain.py": run_pretrain.PretrainArguments, "run_finetune.py": run_finetune.FinetuneArguments}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def code_of(page: Path) -> Iterator[str]:
    """Yields the lines of code that a page shows, those in its sentences too, each as it would be typed."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        yield " ".join(span.split())


CODE = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in code_of(page)]
USES_OF_SCRIPTS = [
    (page, script, found[1])
    for page, line in CODE
    for script in SCRIPTS
    if (found := re.match(rf"(?:python|accelerate launch(?: --num_\w+ \d+)?) {script} (?!--help)(.+)", line))
]
USES_OF_MBT = [(page, found[1]) for page, line in CODE if (found := re.match(r"mbt ([a-z]+.*)", line))]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A folder with an encoder of the demo."""
    monkeypatch.chdir(tmp_path)
    MBTForPreTraining(MBTConfig()).save_pretrained("runs/demo/mbt0")
    MBTFeatureExtractor().save_pretrained("runs/demo/mbt0")


def test_the_first_snippet_embeds_and_classifies_a_sound_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    sf.write("speech.wav", chirp(1.3, 150, 0), SAMPLING_RATE)
    (width,) = re.findall(r"pooler_output  # \(1, (\d+)\)", blocks("README.md", "python")[0])
    names = {}
    exec(blocks("README.md", "python")[0], names)
    assert names["embedding"].shape == (1, int(width))
    assert capsys.readouterr().out.strip() in names["classifier"].config.label2id


def test_the_snippet_of_the_hub_opens_a_model(demo):
    names = {}
    exec(blocks("docs/hub.md", "python")[0].replace("me/mine", "runs/demo/mbt0"), names)
    assert names["encoder"].config.num_mel_bins == names["extractor"].feature_size


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")  # of torch's own exporter
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_the_snippet_of_export_reads_what_export_writes(demo):
    main(["export", "runs/demo/mbt0", "--output", "mine.onnx"])
    names = {"np": np, "onnxruntime": onnxruntime}
    exec(blocks("docs/export.md", "python")[0], names)
    assert names["pooled"].shape == (1, 512)


def test_the_readme_fits_two_screens_and_names_the_tests():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 120
    assert "`make test`" in readme


def test_the_readme_shows_both_scripts():
    assert {script for page, script, _ in USES_OF_SCRIPTS if page == "README.md"} == set(SCRIPTS)


@pytest.mark.parametrize(("page", "script", "words"), USES_OF_SCRIPTS)
def test_every_use_of_a_script_has_arguments_that_exist(page, script, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_arguments(SCRIPTS[script], shlex.split(words, comments=True)).output_dir


@pytest.mark.parametrize(("page", "words"), USES_OF_MBT)
def test_every_use_of_the_command_has_arguments_that_exist(page, words):
    name, *arguments = shlex.split(words, comments=True)
    assert name in COMMANDS
    if name == "prepare" and len(arguments) == 1:  # a sentence that names a set
        assert arguments[0] in SETS
    elif arguments:
        assert parse_args([name, *arguments]).main


def test_pages_show_every_command():
    assert {words.split()[0] for _, words in USES_OF_MBT} == set(COMMANDS)


def test_every_argument_that_a_page_names_exists():
    known = {f"--{name}" for arguments in SCRIPTS.values() for name in arguments.__dataclass_fields__}
    for source in (ROOT / "mbt_speech").rglob("*.py"):
        known |= set(re.findall(r'"(--\w+)"', source.read_text(encoding="utf-8")))
    named = {(page, word) for page, line in CODE for word in re.findall(r"^--\w+", line)}
    assert {use for use in named if use[1] not in known | OF_OTHERS} == set()


@pytest.mark.parametrize(("page", "line"), [one for one in CODE if one[1].startswith("make ")])
def test_every_target_that_a_page_names_exists(page, line):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert line.split()[1] in targets


def test_torch_has_one_answer():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (lowest,) = (line.partition(">=")[2] for line in project["dependencies"] if line.startswith("torch"))
    (tested,) = re.findall(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    for page in ("README.md", "docs/index.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert f"torch {lowest} or newer" in text
        assert f"torch {tested}" in text
        assert not re.findall(r"torch==", text)
    assert f'"torch=={tested}"' in (ROOT / "Makefile").read_text()
    assert f"torch>={lowest}" in (ROOT / "demo" / "requirements.txt").read_text().splitlines()
