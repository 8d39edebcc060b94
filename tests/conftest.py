"""Shared sounds and processes for the tests."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import soundfile as sf

from tests.support.hub_server import Hub
from tests.support.sounds import SAMPLING_RATE, chirp


@pytest.fixture
def fresh_accelerator():
    """A test's own accelerator, perhaps of another precision: otherwise a process keeps its first one."""
    from accelerate.state import AcceleratorState  # seconds, which most tests need not wait

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Two classes of recordings in sub-folders, of mixed formats, rates, channels and lengths."""
    folder = tmp_path_factory.mktemp("speech")
    for label, hertz in (("low", 120.0), ("high", 310.0)):
        (folder / label).mkdir()
        for number in range(12):
            waveform = chirp(0.6 + 0.1 * (number % 5), hertz + 3 * number, number)
            extension = ("wav", "flac", "mp3", "ogg")[number % 4]
            if number % 3 == 0:
                waveform = np.stack([waveform, waveform], axis=1)
            sf.write(folder / label / f"{number:02d}.{extension}", waveform, SAMPLING_RATE)
    return folder


@pytest.fixture(scope="session")
def pretrained(speech_folder, tmp_path_factory):
    """What a pre-training of four steps leaves."""
    from tests.support.runs import pretrain  # seconds, which most tests need not wait

    return pretrain(tmp_path_factory.mktemp("pretrained"), "--train_dir", speech_folder, "--objective", "mbt")


@pytest.fixture(scope="session")
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def hub_environment(hub, tmp_path_factory):
    """Variables of a process whose Hub is the test's, without a token."""
    keep_out = ("HF_TOKEN", "PYTHONPATH")
    return {
        **{name: value for name, value in os.environ.items() if name not in keep_out},
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path_factory.mktemp("hf_home")),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # or else uploads look for a xet server
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",  # sums in one order everywhere
    }


@pytest.fixture(scope="session")
def in_hub_process(hub_environment):
    """Calls functions in another process, the same for all tests, that imported the Hub's client for our Hub."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name in {*os.environ, *hub_environment}:
            if name in hub_environment:
                patch.setenv(name, hub_environment[name])
            else:
                patch.delenv(name)
        pool.submit(os.getpid)  # starts the process
        patch.undo()
        yield lambda function, *args: pool.submit(function, *args).result(timeout=600)
