"""Building the built-in corpus: helper processes over a private espeak-ng data folder, their results into datasets."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value
from tqdm.auto import tqdm

import mbt_speech

from .degradation import SAMPLING_RATE
from .plan import CorpusSize, Session, plan_crowd, plan_labelled, plan_unlabelled
from .synthesis import SynthesisJob, SynthesisReport
from .voices import GENDERS, STYLES, Speaker, voice_file

# What espeak-ng needs to speak English, relative to its data folder.
ESPEAK_FILES = ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw")
PHONE_FIELDS = ("phone", "start_seconds", "end_seconds")


def build_corpus(size: CorpusSize, library: Path, data: Path, workplace: Path, num_proc: int) -> DatasetDict:
    """Synthesizes a corpus of the given size; its Arrow files lie in `workplace`.

    Args:
        size: how much of everything.
        library: espeak-ng's shared library.
        data: its data folder.
        workplace: an empty folder for everything that is written.
        num_proc: helper processes at once.
    """
    labelled, unlabelled, crowd = plan_labelled(size), plan_unlabelled(size), plan_crowd()
    _copy_english(data, workplace / "espeak-ng-data")
    helpers = _Helpers(library, workplace, num_proc)
    helpers.run(crowd, crowd_file=None, description="Synthesizing the background voices")
    crowd_file = workplace / "crowd.npy"
    voices = [helpers.take_samples(session) for session in crowd]
    np.save(crowd_file, np.stack([voice[: min(map(len, voices))] for voice in voices]))
    reports = helpers.run([*unlabelled, *labelled], crowd_file, description="Synthesizing the corpus")

    def dataset(part: str, sessions: list[Session], features: Features) -> Dataset:
        arrow_file = str(workplace / f"{part}.arrow")
        with pa.OSFile(arrow_file, "wb") as sink, pa.ipc.new_stream(sink, features.arrow_schema) as stream:
            for session in sessions:
                rows = _rows(session, reports[session.speaker.name], helpers.take_samples(session), features)
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=features.arrow_schema))
        return Dataset.from_file(arrow_file)

    return DatasetDict(
        {
            "unlabelled": dataset("unlabelled", unlabelled, _unlabelled_features()),
            "labelled": dataset("labelled", labelled, _labelled_features(size, labelled)),
        }
    )


def _copy_english(data: Path, copy: Path) -> None:
    for name in ESPEAK_FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (data / name).is_dir() else shutil.copy)(data / name, copy / name)


def _add_voices(speaker: Speaker, english: Path, folder: Path) -> None:
    """Adds a data folder of a speaker's own, of hard links and voices: espeak-ng lists at most 350 voices."""
    shutil.copytree(english, folder / "espeak-ng-data", copy_function=os.link)
    variants = folder / "espeak-ng-data" / "voices" / "!v"
    variants.mkdir(parents=True)
    for style in STYLES:
        (variants / f"{speaker.name}-{style}").write_text(voice_file(speaker, style))


@dataclass(frozen=True)
class _Helpers:
    """Runs one fresh helper process per speaker, `num_proc` at once."""

    library: Path
    workplace: Path
    num_proc: int

    def run(self, sessions: list[Session], crowd_file: Path | None, description: str) -> dict[str, SynthesisReport]:
        """Synthesizes sessions; returns the helper's report for each speaker's name."""
        reports = {}
        executor = ThreadPoolExecutor(self.num_proc)
        futures = {executor.submit(self._synthesise, session, crowd_file): session for session in sessions}
        total = sum(len(session.utterances) for session in sessions)
        try:
            with tqdm(total=total, desc=description, unit="utterance") as progress:
                for future in as_completed(futures):
                    session = futures[future]
                    reports[session.speaker.name] = future.result()
                    progress.update(len(session.utterances))
        finally:
            executor.shutdown(cancel_futures=True)
        return reports

    def take_samples(self, session: Session) -> np.ndarray:
        """Returns what a speaker said, all utterances in a row, and removes it from the disk."""
        samples = np.load(self._samples_file(session))
        self._samples_file(session).unlink()
        return samples

    def _samples_file(self, session: Session) -> Path:
        return self.workplace / session.speaker.name / "speech.npy"

    def _synthesise(self, session: Session, crowd_file: Path | None) -> SynthesisReport:
        folder = self.workplace / session.speaker.name
        _add_voices(session.speaker, self.workplace / "espeak-ng-data", folder)
        job = SynthesisJob(
            library=str(self.library),
            folder=str(folder),
            output=str(self._samples_file(session)),
            crowd=None if crowd_file is None else str(crowd_file),
            utterances=session.utterances,
        )
        helper = subprocess.run(
            [sys.executable, "-m", SynthesisJob.__module__],
            input=job.to_json(),
            capture_output=True,
            text=True,
            env={**os.environ, **_helper_environment()},
        )
        if helper.returncode:
            raise RuntimeError(f"The synthesis of speaker {session.speaker.name} failed:\n{helper.stderr}")
        return SynthesisReport.from_json(helper.stdout)


def _helper_environment() -> dict[str, str]:
    packages = os.pathsep.join([str(Path(mbt_speech.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
    # glibc otherwise maps and unmaps every clip's arrays: a fifth of the helper's time.
    keep_memory = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    return {"PYTHONPATH": packages, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **keep_memory}


def _rows(session: Session, report: SynthesisReport, samples: np.ndarray, features: Features) -> list[dict]:
    clips = np.split(samples, np.cumsum(report.num_samples)[:-1])
    return [
        {
            "audio": {"bytes": _wav(clip), "path": f"{name}.wav"},
            "phones": [dict(zip(PHONE_FIELDS, phone, strict=True)) for phone in phones],
            **{
                column: feature.str2int(labels[column]) if isinstance(feature, ClassLabel) else labels[column]
                for column, feature in features.items()
                if column in labels
            },
        }
        for name, labels, phones, clip in zip(session.names, session.labels, report.phones, clips, strict=True)
    ]


def _wav(samples: np.ndarray) -> bytes:
    wav = BytesIO()
    soundfile.write(wav, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def _unlabelled_features() -> Features:
    return Features({"audio": Audio(decode=False), "utterance_id": Value("string")})


def _labelled_features(size: CorpusSize, sessions: list[Session]) -> Features:
    phone = dict(zip(PHONE_FIELDS, (Value("string"), Value("float32"), Value("float32")), strict=True))
    return Features(
        {
            "audio": Audio(decode=False),
            "speaker": ClassLabel(names=[session.speaker.name for session in sessions]),
            "gender": ClassLabel(names=list(GENDERS)),
            "keyword": ClassLabel(names=list(size.keywords)),
            "style": ClassLabel(names=list(STYLES)),
            "phones": List(phone),
            "take": Value("int32"),
            "room": Value("int32"),
            "split": Value("string"),
            "speaker_split": Value("string"),
        }
    )
