"""The command `mbt` and both scripts: help pages, and mistakes answered by one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from mbt_speech.__main__ import COMMANDS, main
from mbt_speech.corpora.prepare import SETS
from mbt_speech.corpora.public_sets import READERS

ROOT = Path(__file__).parents[1]


def test_the_help_page_lists_every_command_and_imports_none():
    code = """import sys
from mbt_speech.__main__ import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({"numpy", "torch", "transformers", "datasets", "matplotlib"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    for name, command in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, command.help] for line in lines)


@pytest.mark.parametrize("words", [*([name] for name in COMMANDS), *(["prepare", name] for name in SETS)])
def test_every_command_has_a_help_page(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: mbt {' '.join(words)} ")
    assert "Axes:" not in page


def test_every_public_set_is_a_command():
    assert set(READERS) == set(SETS) - {"debian_speech", "synthetic"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ablation", "{tmp_path}/none.yaml"], "{tmp_path}/none.yaml cannot be read: No such file or directory."),
        (["verify", "x", "a.wav"], "`mbt verify` compares two sound files, or takes --trials."),
        (["embed", "{tmp_path}", "{tmp_path}", "--output", "x.npz"], "There are no sound files in {tmp_path}."),
        (["demo"], "`mbt demo`, `mbt real` and `mbt ablation` run the recipes"),
        (["real"], "`mbt demo`, `mbt real` and `mbt ablation` run the recipes"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.format(tmp_path=tmp_path) for word in words]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message.format(tmp_path=tmp_path) in capsys.readouterr().err
    with pytest.raises((ValueError, OSError)):
        main([*words, "--debug"])


def test_a_command_without_its_extra_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("views", "style"):
        monkeypatch.delitem(sys.modules, f"mbt_speech.reports.{name}", raising=False)
    with pytest.raises(SystemExit):
        main(["show", "x.wav"])
    sentence = '`mbt show` needs matplotlib, which is not installed: pip install "mbt-speech[train]".\n'
    assert capsys.readouterr().err == sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "debug"),
    [("run_pretrain.py", [], False), ("run_finetune.py", ["--model_name_or_path", "supervised", "--debug"], True)],
)
def test_a_mistake_in_a_script_is_one_sentence_without_debug(script, words, debug, tmp_path):
    words = [sys.executable, script, "--train_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path), *words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (1 if debug else 2)
    assert str(tmp_path / "none") in done.stderr
    assert ("Traceback" in done.stderr) == debug
