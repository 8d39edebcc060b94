"""What a sound file says of its own size, to tell a half-written file from a whole one.

libsndfile opens a cut wav or mp3 without a word and gives the samples that are there. The containers know better: a
wav or aiff names the bytes of its sample chunk (RIFF and AIFF specifications), an mp3 of nearly every encoder carries
a Xing or Info frame with the bytes of the stream, an ogg page the lengths of its packets (RFC 3533, section 6). Each
reader here looks at a few hundred bytes, or the first or last 64 kB, and never at the samples.

A cut mp3 of constant bit rate without a Xing frame, and an ogg cut exactly between two pages, cannot be told from
whole ones. A cut flac shows when its last sample is decoded (`speech.recording_seconds` does so).
"""

import struct
from typing import BinaryIO

# Writers to a pipe cannot know the size: ffmpeg leaves 0xFFFFFFFF, sox 0x7FFFF000.
UNKNOWN_CHUNK_BYTES = 0x7FFFF000
MAX_OGG_PAGE_BYTES = 65_307
# The size in a Xing frame is off by a frame or so in sound files of some encoders.
XING_TOLERANCE = 0.01
MP3_PROBE_BYTES = 65_536
# Of MPEG audio layer III (ISO/IEC 11172-3, 13818-3), by the version bits: 2.5, reserved, 2, 1.
MP3_RATES = ((11_025, 12_000, 8_000), (), (22_050, 24_000, 16_000), (44_100, 48_000, 32_000))
MP3_KBITS = (
    *((0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),) * 3,
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def container_fault(file: BinaryIO, file_bytes: int) -> str | None:
    """Return why a file's length is not what its container says, as the rest of a sentence, or None.

    Args:
        file: a seekable binary file; its position is moved.
        file_bytes: its size.

    Returns:
        None also for containers not known here, and for sizes that a writer left open.
    """
    file.seek(0)
    head = file.read(12).ljust(12, b"\0")
    if head[:3] == b"ID3" or (head[0] == 0xFF and head[1] >= 0xE0):
        return _mp3_fault(file, file_bytes, head)
    missing = 0
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        missing = _missing_in_chunks(file, file_bytes, "<", b"data")
    elif head[:4] == b"RIFX" and head[8:] == b"WAVE":
        missing = _missing_in_chunks(file, file_bytes, ">", b"data")
    elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        missing = _missing_in_chunks(file, file_bytes, ">", b"SSND")
    elif head[:4] == b".snd":  # Sun/NeXT au: where the samples start, and their bytes
        start, sample_bytes = struct.unpack(">II", head[4:])
        missing = 0 if sample_bytes >= UNKNOWN_CHUNK_BYTES else start + sample_bytes - file_bytes
    elif head[:4] == b"OggS":
        missing = _missing_in_last_ogg_page(file, file_bytes)
    return _truncated(missing) if missing > 0 else None


def _truncated(missing_bytes: int) -> str:
    return f"is truncated: {missing_bytes} of its bytes are missing."


def _missing_in_chunks(file: BinaryIO, file_bytes: int, endian: str, sample_chunk: bytes) -> int:
    position = 12
    large_chunk_bytes = None
    while position + 8 <= file_bytes:
        file.seek(position)
        chunk, chunk_bytes = struct.unpack(f"{endian}4sI", file.read(8))
        if chunk == b"ds64":  # RF64 (EBU Tech 3306): the 64-bit size of the sample chunk stands here
            large_chunk_bytes = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        if chunk == sample_chunk:
            if chunk_bytes == 0xFFFFFFFF and large_chunk_bytes is not None:
                chunk_bytes = large_chunk_bytes
            elif chunk_bytes >= UNKNOWN_CHUNK_BYTES:
                return 0
            return position + 8 + chunk_bytes - file_bytes
        position += 8 + chunk_bytes + chunk_bytes % 2
    return 0  # no sample chunk, or a writer that forgot to pad: libsndfile will judge


def _missing_in_last_ogg_page(file: BinaryIO, file_bytes: int) -> int:
    file.seek(max(0, file_bytes - MAX_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return 27 - len(page)
    segments = page[26]
    return 27 + segments + sum(page[27 : 27 + segments]) - len(page)


def _mp3_fault(file: BinaryIO, file_bytes: int, head: bytes) -> str | None:
    start = 0
    if head[:3] == b"ID3":  # ID3v2: the tag's size in four groups of seven bits
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if start >= file_bytes:
        return _truncated(start + 1 - file_bytes)
    file.seek(start)
    frames = file.read(MP3_PROBE_BYTES)
    marker = max(frames.find(b"Xing", 0, 256), frames.find(b"Info", 0, 256))
    if marker < 0:
        if frames.find(b"VBRI", 0, 256) < 0 and len(_mp3_bit_rates(frames)) > 1:
            return "is an mp3 of variable bit rate without a Xing header, so its length is unknown: encode it anew."
        return None
    flags, first_field, second_field = struct.unpack(">3I", frames[marker + 4 : marker + 16].ljust(12, b"\0"))
    stream_bytes = second_field if flags & 1 else first_field
    missing = start + stream_bytes - file_bytes
    return _truncated(missing) if flags & 2 and missing > XING_TOLERANCE * stream_bytes else None


def _mp3_bit_rates(frames: bytes) -> set[int]:
    """Return the bit rates, in kbit/s, of the layer III frames that follow one another from the start."""
    rates, position = set(), 0
    while position + 4 <= len(frames):
        sync, version_and_layer, rate_bits = frames[position : position + 3]
        version = version_and_layer >> 3 & 3
        kbits_index, rate_index = rate_bits >> 4, rate_bits >> 2 & 3
        is_layer_3 = sync == 0xFF and version_and_layer & 0xE6 == 0xE2 and version != 1
        if not is_layer_3 or kbits_index in (0, 15) or rate_index == 3:
            break
        kbits = MP3_KBITS[version][kbits_index]
        rates.add(kbits)
        padding = rate_bits >> 1 & 1
        position += (144 if version == 3 else 72) * kbits * 1_000 // MP3_RATES[version][rate_index] + padding
    return rates
