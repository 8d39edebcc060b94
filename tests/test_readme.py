"""What the README prints runs as printed."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile as sf

import run_finetune
import run_pretrain
from feature_extraction import MBTFeatureExtractor
from mbt_speech.__main__ import parse_args
from mbt_speech.command_line import parse_arguments
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification
from tests.support.sounds import SAMPLING_RATE, chirp

README = (Path(run_pretrain.__file__).parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_snippet_embeds_and_classifies_a_sound_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sf.write("speech.wav", chirp(1.3, 150, 0), SAMPLING_RATE)
    labels = {"id2label": {0: "female", 1: "male"}, "label2id": {"female": 0, "male": 1}}
    for folder, model in (
        ("runs/demo/mbt", MBTForPreTraining(MBTConfig())),
        ("runs/demo/gender_frozen", MBTForSequenceClassification(MBTConfig(**labels))),
    ):
        model.save_pretrained(folder)
        MBTFeatureExtractor().save_pretrained(folder)
    names = {}
    exec(blocks("python")[0], names)
    assert names["embedding"].shape == (1, 512)
    assert capsys.readouterr().out.strip() in ("female", "male")


@pytest.mark.parametrize(
    ("script", "arguments_class"),
    [("run_pretrain.py", run_pretrain.PretrainArguments), ("run_finetune.py", run_finetune.FinetuneArguments)],
)
def test_every_command_has_arguments_that_exist(script, arguments_class, monkeypatch):
    monkeypatch.chdir(Path(run_pretrain.__file__).parent)
    commands = re.findall(rf"{script} (.+)", README.replace("\\\n", " ").replace("`", "\n"))
    assert commands
    for command in commands:
        args = parse_arguments(arguments_class, shlex.split(command, comments=True))
        assert args.output_dir


def test_every_use_of_the_command_has_arguments_that_exist():
    commands = re.findall(r"^(?:`|.*? `)?mbt ([a-z]+ .+?)(?:`|$)", README, flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert parse_args(shlex.split(command, comments=True)).main
