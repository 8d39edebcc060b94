"""TIMIT as it is unpacked: its phones, folded to 39, and the splits that the field uses."""

from pathlib import Path
from typing import Any

import soundfile as sf

from feature_extraction.sound_sources import files_below

# 61 symbols to 39 classes: Lee and Hon, IEEE Transactions on ASSP 37(11), 1989, table II.
FOLDING = {
    symbol: phone
    for phone, symbols in {
        "aa": "ao", "ah": "ax ax-h", "er": "axr", "hh": "hv", "ih": "ix", "l": "el", "m": "em", "n": "en nx",
        "ng": "eng", "sh": "zh", "uw": "ux", "sil": "pcl tcl kcl bcl dcl gcl h# pau epi",
    }.items()
    for symbol in symbols.split()
}  # fmt: skip
GLOTTAL_STOP = "q"
CORE_TEST_SPEAKERS = """
mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0
fdhc0 mjln0 mpam0 fmld0"""
VALIDATION_SPEAKERS = """
faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 mrtk0 mtaa0
mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0
mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1"""


def read_timit(folder: Path) -> list[dict[str, Any]]:
    """Returns a row for each utterance of TIMIT: `file_name`, `speaker`, `phones` and `split`.

    The glottal stop has no label, and the two sentences that everyone reads (SA) are left out. The test split is the
    core test set of 24 speakers, validation is 50 other speakers of the test folder (Halberstadt, MIT 1998).

    Args:
        folder: The one that holds `TRAIN` and `TEST`.
    """
    rows = []
    for path in sorted(path for path in files_below(folder) if path.suffix.lower() == ".wav"):
        part = _part(path.relative_to(folder).parts)
        transcript = path.with_suffix(".PHN" if path.suffix == ".WAV" else ".phn")
        if part is not None and not path.stem.lower().startswith("sa"):
            phones = _read_phones(transcript, sf.info(str(path)).samplerate)
            rows.append({"file_name": path, "speaker": path.parent.name.lower(), "phones": phones, "split": part})
    return rows


def _part(parts: tuple[str, ...]) -> str | None:
    folder, speaker = parts[0].lower(), parts[-2].lower()
    if folder == "train":
        return "train"
    if speaker in CORE_TEST_SPEAKERS.split():
        return "test"
    return "validation" if speaker in VALIDATION_SPEAKERS.split() else None


def _read_phones(transcript: Path, sampling_rate: int) -> list[dict[str, Any]]:
    """Reads lines of `first sample, sample after the last, symbol` as segments in seconds."""
    segments = [line.split() for line in transcript.read_text(encoding="utf-8").splitlines()]
    return [
        {"start": int(start) / sampling_rate, "end": int(end) / sampling_rate, "label": FOLDING.get(symbol, symbol)}
        for start, end, symbol in segments
        if symbol != GLOTTAL_STOP
    ]
