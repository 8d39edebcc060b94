"""The page to try a checkpoint, in a headless browser that reaches nothing but the page."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from packaging.requirements import Requirement
from sklearn.decomposition import PCA

from mbt_speech.inference.sound_files import Recognizer
from mbt_speech.inference.speech_encoder import SpeechClassifier, SpeechEncoder
from mbt_speech.inference.verification import cosine_scores
from mbt_speech.presets import PRESETS
from modeling_mbt import MBTForPreTraining, MBTForSequenceClassification
from tests.support.pages import BROWSER, Visitor, in_a_browser, serve
from tests.support.sounds import SAMPLING_RATE, chirp

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An encoder with a threshold, one without, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    labels = {"id2label": {0: "low", 1: "high", 2: "none"}, "label2id": {"low": 0, "high": 1, "none": 2}}
    for name, model_class, arguments in (
        ("decided", MBTForPreTraining, {"verification_threshold": 0.999}),
        ("undecided", MBTForPreTraining, {}),
        ("classes", MBTForSequenceClassification, labels),
    ):
        torch.manual_seed(0)
        model_class(PRESETS["tiny"].config(**arguments)).save_pretrained(folder / name)
        PRESETS["tiny"].extractor().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Good recordings, one of a few samples, and a file that is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for seed, (name, hertz) in enumerate((("anna", 210), ("ben", 110), ("carla", 260), ("dora", 330))):
        sf.write(folder / f"{name}.wav", chirp(1.2, hertz, seed), SAMPLING_RATE)
    sf.write(folder / "hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(SAMPLING_RATE), SAMPLING_RATE)
    sf.write(folder / "click.wav", chirp(0.005, 200, 0), SAMPLING_RATE)
    (folder / "letter.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def served(models, sounds, tmp_path_factory):
    """The page of a clone, from the command line."""
    words = [DEMO / "app.py", "--encoder", models / "decided", "--classifier", models / "classes"]
    yield from serve(words, {}, tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def served_space(models, tmp_path_factory):
    """The page of a Space that takes the packages along and has no classifier."""
    space = tmp_path_factory.mktemp("space")
    shutil.copytree(DEMO, space, dirs_exist_ok=True)
    for package in ("modeling_mbt", "feature_extraction", "mbt_speech"):
        shutil.copytree(ROOT / package, space / package)
    yield from serve(["app.py"], {"MBT_ENCODER": str(models / "undecided")}, space)


@pytest.fixture(scope="module")
def driver(sounds):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1100,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sounds / 'anna.wav'}",
    ):
        options.add_argument(switch)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    chrome = webdriver.Chrome(options=options, service=service)
    yield chrome
    chrome.quit()


@pytest.fixture
def visitor(driver, served):
    address, log = served
    yield Visitor(driver, address)
    assert "Traceback" not in log.read_text()


@in_a_browser
def test_an_upload_is_given_the_classes_of_the_model(visitor, models, sounds):
    assert visitor.tabs() == ["Classify", "Map", "Compare"]
    visitor.uploads(sounds / "anna.wav")
    visitor.clicks("button.primary", "Classify")
    classifier = Recognizer(SpeechClassifier.from_pretrained(models / "classes"))
    expected = classifier.predict([sounds / "anna.wav"])[1][0]
    visitor.reads(r"\n".join([expected[0]["label"], *(f"{one['label']}\n{one['score']:.0%}" for one in expected)]))


@in_a_browser
def test_a_recording_by_microphone_is_classified(visitor):
    visitor.clicks("button[aria-label='Record audio']")
    visitor.clicks("button", "Record")
    time.sleep(1.5)
    visitor.clicks("button", "Stop")
    visitor.reads(r"0:0[1-9]")
    visitor.clicks("button.primary", "Classify")
    visitor.reads(r"(low|high|none)\n\d+%")


@in_a_browser
def test_the_map_holds_the_variance_of_two_principal_components(visitor, models, sounds):
    files = [sounds / f"{name}.wav" for name in ("anna", "ben", "carla", "dora", "hiss")]
    visitor.opens("Map")
    visitor.uploads(*files)
    visitor.clicks("button.primary", "Draw the map")
    embeddings = Recognizer(SpeechEncoder.from_pretrained(models / "decided")).embed(files)[1]
    share = PCA(2).fit(embeddings).explained_variance_ratio_.sum()
    visitor.reads(rf"5 recordings\..*hold\s+{share:.0%} of the variance")
    assert visitor.wait(lambda _: visitor.shown("img[src*='.png']"))[0].size["width"] > 300


@in_a_browser
def test_two_recordings_are_compared_at_the_models_threshold(visitor, models, sounds):
    visitor.opens("Compare")
    visitor.uploads(sounds / "anna.wav")
    visitor.uploads(sounds / "hiss.wav")
    visitor.clicks("button.primary", "Compare")
    embeddings = Recognizer(SpeechEncoder.from_pretrained(models / "decided")).embed(
        [sounds / "anna.wav", sounds / "hiss.wav"]
    )[1]
    score = float(cosine_scores(embeddings[:1], embeddings[1:])[0])
    assert score < 0.999
    visitor.reads(rf"{score:.2f}\s+Probably two voices: the score is below the threshold of 1\.00")


@in_a_browser
def test_the_same_recording_twice_is_one_voice(visitor, sounds):
    visitor.opens("Compare")
    visitor.uploads(sounds / "ben.wav")
    visitor.uploads(sounds / "ben.wav")
    visitor.clicks("button.primary", "Compare")
    visitor.reads(r"1\.00\s+Probably the same voice")


@in_a_browser
@pytest.mark.parametrize(("name", "sentence"), [("click", r"is too short: 0\.005 s"), ("letter", r"[a-z].+")])
def test_a_bad_file_is_answered_by_its_name_and_a_sentence(visitor, sounds, name, sentence):
    visitor.opens("Map")
    visitor.uploads(sounds / f"{name}.wav", sounds / "anna.wav", sounds / "ben.wav")
    visitor.clicks("button.primary", "Draw the map")
    visitor.reads(rf"\n{name}\.wav {sentence}")
    assert "uploads" not in visitor.text()


@in_a_browser
def test_nothing_given_is_answered_by_what_to_do(visitor):
    for tab, button, sentence in (
        ("Classify", "Classify", "Record or upload something first"),
        ("Map", "Draw the map", "A map takes 3 to 60 recordings: there are 0"),
        ("Compare", "Compare", "Record or upload two recordings first"),
    ):
        visitor.opens(tab)
        visitor.clicks("button.primary", button)
        visitor.reads(sentence)


@in_a_browser
def test_a_space_shows_no_classes_or_decision_that_its_models_do_not_give(driver, served_space, sounds):
    address, log = served_space
    visitor = Visitor(driver, address)
    assert visitor.tabs() == ["Map", "Compare"]
    visitor.opens("Compare")
    visitor.uploads(sounds / "anna.wav")
    visitor.uploads(sounds / "ben.wav")
    visitor.clicks("button.primary", "Compare")
    visitor.reads(r"\d\.\d\d\s+The closer to 1, the more alike\. This model has no threshold")
    assert "Traceback" not in log.read_text()


@in_a_browser
def test_the_page_loads_nothing_from_elsewhere(visitor):
    loaded = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded
    assert [address for address in loaded if not address.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


@in_a_browser
def test_a_page_without_a_model_says_how_to_name_one(tmp_path):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MBT_")}
    variables["PYTHONPATH"] = str(DEMO.parent)
    (tmp_path / "demo").mkdir()  # a Space has no model of its own
    words = [sys.executable, shutil.copy(DEMO / "app.py", tmp_path / "demo")]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give --encoder, or set MBT_ENCODER" in done.stderr


def test_the_space_installs_what_the_package_takes():
    lines = (DEMO / "requirements.txt").read_text(encoding="utf-8").splitlines()
    installed = {one.name: one for one in (Requirement(line) for line in lines if not line.startswith("#"))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert installed[requirement.name] == requirement
    front = yaml.safe_load((DEMO / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert installed["gradio"].specifier.contains(front["sdk_version"])
    assert (DEMO / front["app_file"]).is_file()
    assert front["license"] == project["license"].lower()
    assert f">={front['python_version']}" == project["requires-python"]
