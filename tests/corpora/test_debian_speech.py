"""The set of real speech, from packages that the tests build out of tones."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mbt_speech.__main__ import main
from mbt_speech.corpora import debian_packages, debian_speech
from mbt_speech.corpora.debian_recordings import PACKAGES, SAMPLING_RATE, list_recordings, read_clip, trim
from mbt_speech.corpora.debian_tasks import GENDER_VOICES, SPLITS
from mbt_speech.data.recording_folder import scan_folder
from tests.support.debian_packages import CONTENTS, STAMPS, WORDS, build_package, bytes_of, write_sound
from tests.support.sounds import chirp


@pytest.fixture(scope="module")
def packages_dir(tmp_path_factory):
    folder, trees = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("trees")
    seed = 0
    for name, paths in CONTENTS.items():
        for path in paths:
            seed += 1
            write_sound(trees / name / path, chirp(0.5, 110 + 3 * seed, seed))
    stamps = trees / "tuxpaint-stamps-default" / STAMPS
    shutil.copyfile(stamps / f"{WORDS[0]}_desc_es.ogg", stamps / "animals" / "again_desc_es.ogg")
    (stamps / "animals" / "broken_desc_es.ogg").write_bytes(b"OggS, but no more")
    for name in CONTENTS:
        build_package(name, trees / name, folder)
    return folder


@pytest.fixture(scope="module")
def prepared(packages_dir, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("prepared") / "set"
    main(["prepare", "debian_speech", "--output_dir", str(output_dir), "--packages_dir", str(packages_dir)])
    return output_dir


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_package_of_the_tests_is_one_to_dpkg(packages_dir):
    shown = subprocess.run(
        ["dpkg-deb", "--field", packages_dir / f"{PACKAGES[0]}_1.0_all.deb", "Package"], capture_output=True, text=True
    )
    assert shown.stdout.strip() == PACKAGES[0]


def test_every_folder_is_one_that_training_takes(prepared):
    for name in debian_speech.FOLDERS:
        rows, folder = rows_of(prepared / name), prepared / name
        assert tuple(rows[0]) == debian_speech.COLUMNS
        assert {row["file_name"] for row in rows} == {path.name for path in folder.glob("*.wav")}
        assert len(scan_folder(folder)["train"]) == len(rows)
        for row in rows:
            assert row["split"] in SPLITS
            information = sf.info(folder / row["file_name"])
            assert (information.samplerate, information.channels, information.subtype) == (16_000, 1, "PCM_16")


def test_no_clip_of_a_test_split_is_in_the_pool_by_name_or_by_sound(prepared):
    pool = {(prepared / "pool" / row["file_name"]).read_bytes() for row in rows_of(prepared / "pool")}
    names = {row["file_name"] for row in rows_of(prepared / "pool")}
    tested = 0
    for task in debian_speech.FOLDERS[1:]:
        sounds: dict[str, set[bytes]] = {split: set() for split in SPLITS}
        for row in rows_of(prepared / task):
            sounds[row["split"]].add((prepared / task / row["file_name"]).read_bytes())
            tested += row["split"] == "test"
            assert (row["file_name"] in names) == (row["split"] != "test" and not is_tested(prepared, row))
        assert not sounds["test"] & (pool | sounds["train"] | sounds["validation"])
    assert tested > 20


def is_tested(prepared: Path, row: dict[str, str]) -> bool:
    rows = [other for task in debian_speech.FOLDERS[1:] for other in rows_of(prepared / task)]
    return any(other["file_name"] == row["file_name"] and other["split"] == "test" for other in rows)


def test_speakers_are_voices_with_enough_clips_half_to_learn_from(prepared):
    rows = rows_of(prepared / "speaker")
    counts = {(row["label"], row["split"]): 0 for row in rows}
    for row in rows:
        counts[row["label"], row["split"]] += 1
    expected = {"train": 16, "validation": 4, "test": 12}  # of 32; tux_fr is several people, others say too little
    assert counts == {(voice, split): n for voice in ("tux_es", "tux_ru") for split, n in expected.items()}


def test_genders_are_tested_on_voices_that_are_in_no_other_split(prepared):
    splits = {}
    for row in rows_of(prepared / "gender"):
        splits.setdefault(row["speaker"], set()).add((row["split"], row["label"]))
    assert all(len(places) == 1 for places in splits.values())
    assert splits["tux_ru"] == {("train", "male")}
    assert splits["tux_ko_num"] == {("test", "female")}
    assert splits["june"] == {("validation", "female")}
    listed = [voice for of in GENDER_VOICES.values() for voices in of.values() for voice in voices.split()]
    assert len(listed) == len(set(listed))


def test_spelling_words_and_words_are_tested_on_other_voices(prepared):
    nato = {(row["speaker"], row["language"], row["label"], row["split"]) for row in rows_of(prepared / "nato")}
    assert nato == {
        ("allison", "en", "a", "train"),
        ("allison", "es", "a", "train"),
        ("armelle", "fr", "a", "validation"),
        ("june", "fr", "a", "test"),
    }
    words = {(row["label"], row["speaker"], row["split"]) for row in rows_of(prepared / "words")}
    assert words == {
        ("en_digits_1", "allison", "train"),
        ("en_digits_1", "tux_en_num", "validation"),
        ("en_digits_1", "tux_en_GB", "test"),
        ("en_letters_a", "allison", "train"),
        ("en_letters_a", "tux_en_GB", "test"),
        ("fr_digits_1", "june", "train"),
        ("fr_digits_1", "armelle", "test"),
    }


def test_only_speech_is_taken_and_the_same_sound_once(prepared):
    words = {(row["speaker"], row["label"]) for row in rows_of(prepared / "pool")}
    assert ("allison", "hello") in words
    assert not {"beep", "plus", "barking", "roc-x-noise", "broken"} & {word for _, word in words}
    again = [row for name in debian_speech.FOLDERS for row in rows_of(prepared / name) if "again" in row["file_name"]]
    first = [row for name in debian_speech.FOLDERS for row in rows_of(prepared / name) if "word00" in row["file_name"]]
    assert {row["speaker"] for row in again} == {"tux_es"}
    assert "tux_es" not in {row["speaker"] for row in first}


def test_what_was_left_out_is_said_with_its_reason(prepared):
    page = (prepared / debian_speech.CONTENTS_NAME).read_text()
    assert f"- {PACKAGES[4]}/{STAMPS}/animals/broken_desc_es.ogg is truncated: 10 of its bytes are missing." in page
    assert f"{PACKAGES[0]}_1.0_all.deb" in page
    assert "| nato | 2 | 1 | 1 | 1 | 3 |" in page


def test_the_set_is_the_same_to_the_bit_every_time(prepared, packages_dir, tmp_path):
    debian_speech.prepare(tmp_path, packages_dir)
    assert bytes_of(tmp_path) == bytes_of(prepared)


def test_a_second_call_does_nothing(prepared, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    monkeypatch.setattr(debian_speech, "prepare", lambda *_: pytest.fail("prepared again"))
    main(["prepare", "debian_speech", "--output_dir", str(prepared)])
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before
    assert "| pool |" in capsys.readouterr().out


def test_g722_and_gsm_are_decoded_to_the_tone_that_was_written(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(8_000) / SAMPLING_RATE).astype(np.float32)
    for name in (PACKAGES[0], PACKAGES[3]):
        write_sound(tmp_path / name / CONTENTS[name][0], tone)
    recordings = list_recordings(tmp_path)
    assert [recording.path.suffix for recording in recordings] == [".g722", ".gsm"]
    for recording in recordings:
        waveform = read_clip(recording.path)
        assert abs(len(waveform) - 8_000) < 400
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
        assert abs(spectrum.argmax() * SAMPLING_RATE / len(waveform) - 200) < 10
        assert np.abs(waveform).max() == pytest.approx(0.7)


def test_silence_at_both_ends_is_cut_but_for_a_margin():
    tone = np.sin(np.arange(4_800) / 8).astype(np.float32)
    silence = np.full(8_000, 1e-4, np.float32)
    trimmed = trim(np.concatenate([silence, tone, silence]))
    assert len(trimmed) == len(tone) + 2 * 8 * 160
    np.testing.assert_array_equal(trimmed[8 * 160 : -8 * 160], tone)
    assert len(trim(np.zeros(1_600, np.float32))) == 0


def command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def sentence(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["prepare", "debian_speech", *words])
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1].split("\r")[-1]


def test_a_machine_without_apt_get_is_told_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = sentence(capsys, "--output_dir", str(tmp_path / "set"))
    assert message.startswith("The recordings come by apt-get, which is not on this machine: use Debian or Ubuntu, or")
    assert message.endswith("name their folder with --packages_dir.")


def test_a_machine_without_dpkg_deb_is_told_what_to_do(packages_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = sentence(capsys, "--output_dir", str(tmp_path / "set"), "--packages_dir", str(packages_dir))
    assert message == "dpkg-deb unpacks the recordings and is not on this machine: install dpkg."


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            'test "$5" = update || { echo "E: Unable to locate package fillets-ng-data-cs" >&2; exit 100; }',
            "apt-get knows no package fillets-ng-data-cs in this release: take another release, or get the packages",
        ),
        (
            'echo "E: Failed to fetch http://x/y  Could not connect to x" >&2; test "$5" = update',
            "apt-get could not download the recordings (E: Failed to fetch http://x/y  Could not connect to x): check",
        ),
        (
            'test "$5" = update && echo "W: Failed to fetch http://x" >&2 || '
            '{ echo "E: Unable to locate package a" >&2; exit 100; }',
            "apt-get could not download the recordings (E: Unable to locate package a): check the network",
        ),
    ],
    ids=["a package is gone", "no network", "no lists"],
)
def test_what_apt_get_cannot_do_is_one_sentence(script, message, tmp_path, monkeypatch, capsys):
    command(tmp_path / "bin", "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert sentence(capsys, "--output_dir", str(tmp_path / "set")).startswith(message)


def test_packages_are_downloaded_once_and_only_those_that_are_missing(packages_dir, tmp_path, monkeypatch):
    log = tmp_path / "log"
    script = f'echo "$@" >>{log}; for name; do cp {packages_dir}/"$name"_1.0_all.deb . 2>/dev/null; done; true'
    command(tmp_path / "bin", "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "set" / "packages").mkdir(parents=True)
    shutil.copy(packages_dir / f"{PACKAGES[0]}_1.0_all.deb", tmp_path / "set" / "packages")
    debian_speech.get_packages(tmp_path / "set", None)
    found = debian_speech.get_packages(tmp_path / "set", None)
    assert [path.read_bytes() for path in found.values()] == [
        (packages_dir / path.name).read_bytes() for path in found.values()
    ]
    update, download = log.read_text().splitlines()
    assert update.endswith(" update")
    assert download.endswith(f" download {' '.join(PACKAGES[1:])}")
    assert sorted(path.name for path in (tmp_path / "set" / "packages").iterdir()) == sorted(
        f"{name}_1.0_all.deb" for name in PACKAGES
    )


def test_packages_that_a_folder_lacks_are_named(packages_dir, tmp_path, capsys):
    folder = shutil.copytree(packages_dir, tmp_path / "some")
    (folder / f"{PACKAGES[5]}_1.0_all.deb").unlink()
    message = sentence(capsys, "--output_dir", str(tmp_path / "set"), "--packages_dir", str(folder))
    assert message == f"{folder} lacks {PACKAGES[5]}: get the files there with `apt-get download {PACKAGES[5]}`."
    shutil.copy(folder / f"{PACKAGES[0]}_1.0_all.deb", folder / f"{PACKAGES[0]}_2.0_all.deb")
    with pytest.raises(ValueError, match="keep one of them"):
        debian_packages.find_packages(PACKAGES, folder)


def test_a_damaged_package_is_named(packages_dir, tmp_path, capsys):
    folder = shutil.copytree(packages_dir, tmp_path / "some")
    path = folder / f"{PACKAGES[0]}_1.0_all.deb"
    path.write_bytes(path.read_bytes()[:3_000])
    message = sentence(capsys, "--output_dir", str(tmp_path / "set"), "--packages_dir", str(folder))
    assert message.startswith(f"{path} cannot be unpacked (")


def test_a_folder_of_something_else_is_not_written_to(packages_dir, tmp_path, capsys):
    (tmp_path / "gender").mkdir()
    message = sentence(capsys, "--output_dir", str(tmp_path), "--packages_dir", str(packages_dir))
    assert message.startswith(f"{tmp_path / 'gender'} is there, but the set is not complete")
