"""Recipes of public sets, from small folders laid out as the sets are to the results of a sweep."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import run_finetune
import run_pretrain
from feature_extraction.speech import to_waveform
from mbt_speech.__main__ import main
from mbt_speech.corpora import public_sets
from mbt_speech.corpora.timit import CORE_TEST_SPEAKERS, FOLDING, VALIDATION_SPEAKERS
from mbt_speech.data.recordings import load_recordings
from tests.support.sounds import SAMPLING_RATE, chirp

RECIPES = Path(run_pretrain.__file__).parent / "recipes"
VOICES = {"F": 290.0, "M": 130.0}
PARTS = ("train", "validation", "test")


def speak(path: Path, hertz: float = 150.0, seconds: float = 0.4, seed: int = 0, **kwargs) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, chirp(seconds, hertz, seed), SAMPLING_RATE, **kwargs)
    return path


def describe(name: str, folder: Path, output_dir: Path, *words: str) -> list[dict]:
    main(["prepare", name, str(folder), "--output_dir", str(output_dir), *words])
    path = next(output_dir.glob("metadata.*"))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def speech_commands(folder: Path) -> Path:
    words = [*public_sets.COMMANDS, "bed", "tree", "zero"]
    for number, word in enumerate(words):
        for speaker in range(10):
            speak(folder / word / f"{speaker:08x}_nohash_0.wav", 120 + 20 * number, seed=speaker)
    for name, speaker in (("validation_list.txt", 8), ("testing_list.txt", 9)):
        (folder / name).write_text("".join(f"{word}/{speaker:08x}_nohash_0.wav\n" for word in words))
    speak(folder / "_background_noise_" / "running_tap.wav", seconds=12.3)
    return folder


def commands_test_set(folder: Path) -> Path:
    for number, word in enumerate([*public_sets.COMMANDS, "_unknown_", "_silence_"]):
        speak(folder / word / "000000ff_nohash_0.wav", 120 + 20 * number)
    return folder


def voxceleb1(folder: Path) -> Path:
    lines = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    names = []
    for number in range(10):
        gender = "mf"[number % 2]
        lines.append(f"id1000{number}\tSomeone\t{gender}\tUK\tdev")
        for clip in range(6):
            names.append(f"{(1, 1, 1, 1, 2, 3)[clip]} id1000{number}/video{clip}/00001.wav")
            path = folder / "wav" / names[-1].split()[1]
            speak(path, VOICES[gender.upper()] + 5 * number, seed=clip)
    (folder / "vox1_meta.csv").write_text("\n".join(lines) + "\n")
    (folder / "iden_split.txt").write_text("\n".join(names) + "\n")
    return folder


def librispeech(folder: Path) -> Path:
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for number, subset in enumerate(["train-clean-100"] * 4 + ["dev-clean"] * 2 + ["test-clean"] * 2):
        sex = "FM"[number % 2]
        lines.append(f"{number + 19:<5}| {sex} | {subset} | 25.2 | Kara | Shallenberg")
        for clip in range(3):
            speak(folder / subset / str(number + 19) / "198" / f"19-198-000{clip}.flac", VOICES[sex], seed=clip)
    (folder / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
    return folder


def five_leaders(folder: Path) -> Path:
    for number, name in enumerate(["Benjamin_Netanyau", "Nelson_Mandela", "other", "_background_noise_"]):
        for clip in range(20):
            speak(folder / name / f"{clip}.wav", 120 + 100 * number, seed=clip)
    return folder


def crema_d(folder: Path) -> Path:
    lines = ["ActorID,Age,Sex,Race,Ethnicity"]
    for actor in range(1001, 1011):
        lines.append(f"{actor},51,{'Male' if actor % 2 else 'Female'},Caucasian,Not Hispanic")
        for number, code in enumerate(public_sets.CREMA_D_EMOTIONS):
            speak(folder / "AudioWAV" / f"{actor}_DFA_{code}_XX.wav", 120 + 40 * number, seed=actor)
    (folder / "VideoDemographics.csv").write_text("\n".join(lines) + "\n")
    return folder


def ravdess(folder: Path) -> Path:
    for actor in range(1, 11):
        for emotion in range(1, 9):
            speak(folder / f"Actor_{actor:02d}" / f"03-01-0{emotion}-01-02-01-{actor:02d}.wav", 100 + 30 * emotion)
        speak(folder / f"Actor_{actor:02d}" / f"03-02-01-01-02-01-{actor:02d}.wav")  # a song
    return folder


def timit(folder: Path) -> Path:
    speakers = {"TRAIN": ["FCJF0", "MDPK0"], "TEST": ["MDAB0", "FAKS0", "MABW0"]}
    for part, names in speakers.items():
        for name in names:
            for sentence in ("SA1", "SX37", "SI1027"):
                path = folder / part / "DR1" / name / f"{sentence}.WAV"
                speak(path, seconds=0.5, format="NIST")
                path.with_suffix(".PHN").write_text("0 1600 h#\n1600 4000 ix\n4000 4800 q\n4800 8000 iy\n")
    return folder


SOURCES = {
    f.__name__: f for f in (speech_commands, voxceleb1, librispeech, five_leaders, crema_d, ravdess, timit)
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "name", "num_classes"),
    [
        ("speech_commands_35", "speech_commands", 13),
        ("voxceleb_1_speakers", "voxceleb1", 10),
        ("voxceleb_1_gender", "voxceleb1", 2),
        ("librispeech_gender", "librispeech", 2),
        ("five_leaders_random", "five_leaders", 2),
        ("five_leaders_blocks", "five_leaders", 2),
        ("crema_d_emotion", "crema_d", 6),
        ("ravdess_emotion", "ravdess", 8),
        ("timit_phones", "timit", 3),
    ],
)
def test_a_recipe_runs_on_a_set_that_is_laid_out_as_it_is_handed_out(recipe, name, num_classes, tmp_path, capsys):
    describe(name, SOURCES[name](tmp_path / "unpacked"), tmp_path / "described")
    run(recipe, tmp_path)
    assert f"{num_classes} classes" in capsys.readouterr().out


def run(recipe: str, tmp_path: Path) -> list[dict]:
    words = ["--train_dir", tmp_path / "described", "--output_dir", tmp_path / "run", "--model_name_or_path", "stats"]
    words += ["--preset", "tiny", "--label_fraction", 1, "--seed", 0]
    run_finetune.main([str(RECIPES / f"{recipe}.yaml"), *map(str, words)])
    return [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_twelve_keyword_classes_hold_unknown_words_and_silence(tmp_path):
    source = speech_commands(tmp_path / "unpacked")
    test_set = commands_test_set(tmp_path / "test_set")
    rows = describe("speech_commands_12", source, tmp_path / "described", "--test_dir", str(test_set))
    number = {
        part: {
            k: sum(r["keyword"] == k and r["split"] == part for r in rows) for k in ("yes", "_unknown_", "_silence_")
        }
        for part in ("train", "validation", "test")
    }
    assert number["train"] == {"yes": 8, "_unknown_": 8, "_silence_": 11}
    assert number["validation"] == {"yes": 1, "_unknown_": 1, "_silence_": 1}
    assert number["test"] == {"yes": 1, "_unknown_": 1, "_silence_": 1}
    assert all("test_set" in row["file_name"] for row in rows if row["split"] == "test")
    result = run("speech_commands_12", tmp_path)[0]
    assert result["num_test"] == 12
    assert result["num_train"] == 99


def test_blocks_keep_neighboring_clips_together(tmp_path):
    rows = describe("five_leaders", five_leaders(tmp_path / "unpacked"), tmp_path / "described")
    assert {row["speaker"] for row in rows} == {"Benjamin_Netanyau", "Nelson_Mandela"}
    clips = [row for row in rows if row["speaker"] == "Nelson_Mandela"]
    assert [Path(row["file_name"]).stem for row in clips] == [str(clip) for clip in range(20)]
    assert [row["block_split"] for row in clips] == ["train"] * 16 + ["validation"] * 2 + ["test"] * 2
    assert sorted(row["random_split"] for row in clips) == sorted(row["block_split"] for row in clips)
    assert [row["random_split"] for row in clips] != [row["block_split"] for row in clips]


def test_folders_without_sounds_are_passed_over_and_those_with_too_few_are_named(tmp_path, capsys):
    folder = five_leaders(tmp_path / "unpacked")
    (folder / "__MACOSX").mkdir()
    (folder / "Nelson_Mandela" / "._0.wav").write_bytes(b"of a Mac")
    assert len(describe("five_leaders", folder, tmp_path / "described")) == 40
    speak(folder / "One_Clip" / "0.wav")
    with pytest.raises(SystemExit):
        main(["prepare", "five_leaders", str(folder), "--output_dir", str(tmp_path / "described")])
    assert "One_Clip holds fewer than three clips" in capsys.readouterr().err


def test_a_sound_that_cannot_be_read_is_answered_in_a_sentence(tmp_path, capsys):
    folder = timit(tmp_path / "unpacked")
    for path in folder.rglob("*.[wW][aA][vV]"):
        path.write_bytes(b"no sound")
    with pytest.raises(SystemExit):
        main(["prepare", "timit", str(folder), "--output_dir", str(tmp_path / "described")])
    assert "is not laid out as docs/datasets.md says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "column"), [("voxceleb1", "speaker_split"), ("librispeech", "split"), ("crema_d", "split"),
                         ("ravdess", "split"), ("timit", "split")]
)  # fmt: skip
def test_no_speaker_is_in_two_parts(name, column, tmp_path):
    rows = describe(name, SOURCES[name](tmp_path / "unpacked"), tmp_path / "described")
    speakers = {
        part: {row["speaker"] for row in rows if row[column] == part} for part in ("train", "validation", "test")
    }
    assert all(speakers.values())
    assert sum(map(len, speakers.values())) == len(set.union(*speakers.values()))


def test_phones_of_timit_are_folded_and_its_nist_files_are_read(tmp_path):
    rows = describe("timit", timit(tmp_path / "unpacked"), tmp_path / "described")
    assert len(rows) == 8  # MABW0 is in neither list, and SA1 is left out
    assert {row["speaker"]: row["split"] for row in rows} == {
        "fcjf0": "train", "mdpk0": "train", "mdab0": "test", "faks0": "validation"
    }  # fmt: skip
    assert rows[0]["phones"] == [
        {"start": 0.0, "end": 0.1, "label": "sil"},
        {"start": 0.1, "end": 0.25, "label": "ih"},
        {"start": 0.3, "end": 0.5, "label": "iy"},
    ]
    waveform = to_waveform(tmp_path / "described" / rows[0]["file_name"], SAMPLING_RATE)
    np.testing.assert_allclose(waveform, chirp(0.5, 150.0, 0), atol=1e-4)
    assert len(set(CORE_TEST_SPEAKERS.split())) == 24
    assert len(set(VALIDATION_SPEAKERS.split())) == 50
    # 61 symbols, without the glottal stop, less those that are folded, and silence that only folding makes.
    assert 61 - 1 - len(FOLDING) + len({"sil"}) == 39


def test_a_folder_of_another_layout_is_refused_with_a_sentence(speech_folder, tmp_path, capsys):
    for name in sorted(set(public_sets.READERS) - {"speech_commands_12"}):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(SystemExit):
            main(["prepare", name, str(tmp_path / "empty"), "--output_dir", str(tmp_path / "described")])
        assert "docs/datasets.md" in capsys.readouterr().err
    assert not (tmp_path / "described").exists()
    with pytest.raises(SystemExit):
        main(["prepare", "speech_commands_12", str(speech_folder), "--output_dir", str(tmp_path)])
    assert "--test_dir" in capsys.readouterr().err


@pytest.mark.slow
def test_librispeech_of_the_hub_is_pre_trained_on_by_its_own_columns(tmp_path):
    parts = load_recordings(str(librispeech(tmp_path / "unpacked")))[0]
    rows = {
        "file": ["x"] * 4,
        "text": ["A"] * 4,
        "speaker_id": [1, 2, 3, 4],
        "chapter_id": [1] * 4,
        "id": list("abcd"),
    }
    dataset = parts["train"].select(range(4)).select_columns("audio")
    for name, values in rows.items():
        dataset = dataset.add_column(name, values)  # pyright: ignore[reportCallIssue]
    type(parts)({"train.100": dataset, "train.360": dataset}).save_to_disk(tmp_path / "librispeech_asr")
    words = ["--dataset_name", tmp_path / "librispeech_asr", "--dataset_config_name", "default"]
    words += ["--preset", "tiny", "--objective", "bt", "--output_dir", tmp_path / "run", "--max_steps", 1]
    words += ["--per_device_train_batch_size", 4]
    run_pretrain.main([str(RECIPES / "librispeech_100.yaml"), *map(str, words)])
    assert (tmp_path / "run" / "model.safetensors").is_file()
