"""What a sound file promises of its own size, to tell a half-written file from a whole one.

libsndfile opens a cut wav or mp3 without a word and gives the samples that are there. The containers know better: a
wav or aiff names the bytes of its sample chunk (RIFF and AIFF specifications), an mp3 of nearly every encoder carries
a Xing or Info frame with the bytes of the stream, an ogg page the lengths of its packets (RFC 3533, section 6). Each
reader here looks at a few hundred bytes, never at the samples.

A cut mp3 without a Xing frame and an ogg cut exactly between two pages cannot be told from whole ones. A cut flac
shows when its last sample is decoded (`speech.recording_seconds` does so).
"""

import struct
from typing import BinaryIO

# Writers to a pipe cannot know the size: ffmpeg leaves 0xFFFFFFFF, sox 0x7FFFF000.
UNKNOWN_CHUNK_BYTES = 0x7FFFF000
MAX_OGG_PAGE_BYTES = 65_307
# The size in a Xing frame is off by a frame or so in sound files of some encoders.
XING_TOLERANCE = 0.01


def missing_bytes(file: BinaryIO, file_bytes: int) -> int:
    """Return how many bytes of sound the container promises beyond the end of the file.

    Args:
        file: a seekable binary file; its position is moved.
        file_bytes: its size.

    Returns:
        0 for a whole file, for an unknown container and for a size that the writer left open.
    """
    file.seek(0)
    head = file.read(12).ljust(12, b"\0")
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        return _missing_in_chunks(file, file_bytes, "<", b"data")
    if head[:4] == b"RIFX" and head[8:] == b"WAVE":
        return _missing_in_chunks(file, file_bytes, ">", b"data")
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _missing_in_chunks(file, file_bytes, ">", b"SSND")
    if head[:4] == b".snd":  # Sun/NeXT au: where the samples start, and their bytes
        start, sample_bytes = struct.unpack(">II", head[4:])
        return 0 if sample_bytes >= UNKNOWN_CHUNK_BYTES else max(0, start + sample_bytes - file_bytes)
    if head[:4] == b"OggS":
        return _missing_in_last_ogg_page(file, file_bytes)
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return _missing_in_mp3(file, file_bytes, head)
    return 0


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
            return max(0, position + 8 + chunk_bytes - file_bytes)
        position += 8 + chunk_bytes + chunk_bytes % 2
    return 0  # no sample chunk, or a writer that forgot to pad: libsndfile will judge


def _missing_in_last_ogg_page(file: BinaryIO, file_bytes: int) -> int:
    file.seek(max(0, file_bytes - MAX_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return 27 - len(page)
    segments = page[26]
    return max(0, 27 + segments + sum(page[27 : 27 + segments]) - len(page))


def _missing_in_mp3(file: BinaryIO, file_bytes: int, head: bytes) -> int:
    first_frame = 0
    if head[:3] == b"ID3":  # ID3v2: the tag's size in four groups of seven bits
        first_frame = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(first_frame)
    frame = file.read(256)
    marker = max(frame.find(b"Xing"), frame.find(b"Info"))
    if marker < 0 or len(frame) < marker + 16:
        return max(0, first_frame - file_bytes)
    flags, *fields = struct.unpack(">3I", frame[marker + 4 : marker + 16])
    if not flags & 2:
        return 0
    stream_bytes = fields[1] if flags & 1 else fields[0]
    missing = first_frame + stream_bytes - file_bytes
    return missing if missing > XING_TOLERANCE * stream_bytes else 0
