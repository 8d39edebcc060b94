"""Debian packages made of tones, laid out as those that hold real speech."""

import io
import tarfile
from pathlib import Path

import av
import numpy as np
import soundfile as sf

from .sounds import SAMPLING_RATE

SOUNDS, STAMPS = "usr/share/asterisk/sounds", "usr/share/tuxpaint/stamps"
CZECH = "usr/share/games/fillets-ng/sound/rocks/cs"
WORDS = [f"animals/word{number:02d}" for number in range(32)]


def asterisk(folder: str, suffix: str, words: list[str]) -> list[str]:
    return [f"{SOUNDS}/{folder}/{word}{suffix}" for word in words]


CONTENTS = {
    "asterisk-core-sounds-en-g722": asterisk(
        "en_US_f_Allison", ".g722", ["digits/1", "digits/2", "letters/a", "phonetic/a_p", "hello", "beep", "silence/1"]
    ),
    "asterisk-core-sounds-es-g722": asterisk("es_MX_f_Allison", ".g722", ["digits/1", "phonetic/a_p"]),
    "asterisk-core-sounds-fr-g722": asterisk("fr_CA_f_June", ".g722", ["digits/1", "letters/a", "phonetic/a_p"]),
    "asterisk-prompt-fr-armelle": asterisk("fr", ".gsm", ["digits/1", "letters/b", "phonetic/a_p", "letters/dash"]),
    "tuxpaint-stamps-default": [
        *(f"{STAMPS}/{word}_desc_{language}.ogg" for word in WORDS for language in ("es", "ru", "fr")),
        *(f"{STAMPS}/symbols/math/{name}.ogg" for name in ("1_en_GB", "1", "1_ko", "operators/plus_en_GB")),
        f"{STAMPS}/symbols/alphabets/english/filled/lowercase/a_filled_en_GB.ogg",
        f"{STAMPS}/animals/barking.ogg",
    ],
    "fillets-ng-data-cs": [f"{CZECH}/{name}.ogg" for name in ("roc-m-hello", "roc-v-hello", "roc-x-noise")],
}


def write_sound(path: Path, waveform: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ogg":
        sf.write(path, waveform, SAMPLING_RATE, format="OGG", subtype="VORBIS")
    elif path.suffix == ".g722":
        write_g722(path, waveform)
    else:  # the frames of a gsm file without the header that a wav file gives them
        sf.write(path, waveform[::2], 8000, format="WAV", subtype="GSM610")
        path.write_bytes(bare_gsm(path.read_bytes()))


def write_g722(path: Path, waveform: np.ndarray) -> None:
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=SAMPLING_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.round(waveform * 32_767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = SAMPLING_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def bare_gsm(wav: bytes) -> bytes:
    """Frames of 33 bytes from pairs of 65, that Microsoft packs without the marks at their beginnings."""
    data = wav[wav.index(b"data") + 8 :]
    frames = b""
    for start in range(0, len(data) - 64, 65):
        bits = int.from_bytes(data[start : start + 65], "little")
        for shift in (0, 260):
            frames += repack(bits >> shift)
    return frames


def repack(bits: int) -> bytes:
    """Converts a frame's 76 parameters from little-endian order, as in wav, to big-endian behind the mark 1101."""
    widths = [6, 6, 5, 5, 4, 4, 3, 3, *([7, 2, 2, 6, *[3] * 13] * 4)]
    value = 0b1101
    for width in widths:
        value = value << width | bits & (1 << width) - 1
        bits >>= width
    return value.to_bytes(33, "big")


def build_package(name: str, tree: Path, folder: Path) -> Path:
    """Returns a Debian package of a folder: an ar archive of its version, its description and its files."""
    path = folder / f"{name}_1.0_all.deb"
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: tones\n".encode()
    members = {"debian-binary": b"2.0\n", "control.tar": archive({"control": control})}
    members["data.tar"] = archive(bytes_of(tree))
    lines = [b"!<arch>\n"]
    for member, data in members.items():
        lines.append(f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
        lines.append(data + b"\n" * (len(data) % 2))
    path.write_bytes(b"".join(lines))
    return path


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def bytes_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
