"""What a sound file says of its own size, to tell a half-written file from a whole one, and how much it can hold.

libsndfile opens a cut wav or mp3 without a word and gives the samples that are there. The containers know better: a
wav, aiff, w64 or caf names the bytes of its sample chunk, an mp3 of nearly every encoder carries
a Xing or Info frame with the bytes of the stream, an ogg page the lengths of its packets (RFC 3533, section 6). Each
reader here looks at a few hundred bytes, or the first or last 64 kB, and never at the samples; `mp3_length` alone
walks from frame to frame.

A cut mp3 of constant bit rate without a Xing frame, and an ogg cut exactly between two pages, cannot be told from
whole ones. A cut flac shows when its last sample is decoded (`speech.recording_seconds` does so).
"""

import functools
import re
import struct
from typing import BinaryIO, NamedTuple

# Writers to a pipe cannot know the size: ffmpeg leaves 0xFFFFFFFF, sox 0x7FFFF000.
UNKNOWN_CHUNK_BYTES = 0x7FFFF000
MAX_OGG_PAGE_BYTES = 65_307
MAX_CHUNKS = 10_000  # a file of more was made to waste time
# The size in a Xing frame is off by a frame or so in sound files of some encoders.
XING_TOLERANCE = 0.01
MP3_PROBE_BYTES = 65_536
# Of MPEG audio layer III (ISO/IEC 11172-3, 13818-3), by the version bits: 2.5, reserved, 2, 1.
MP3_RATES = ((11_025, 12_000, 8_000), (), (22_050, 24_000, 16_000), (44_100, 48_000, 32_000))
# Sync, version and layer III; a bit rate that is neither free nor forbidden.
MP3_FRAME_HEAD = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")
MP3_KBITS = (
    *((0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),) * 3,
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


class _Chunks(NamedTuple):
    """How a container numbers its chunks."""

    start: int
    """Bytes before the first one."""
    head: str
    """`struct` format of a chunk's name and size."""
    samples: bytes
    """Name of the one that holds the samples."""
    alignment: int = 2
    """Chunks start at multiples of so many bytes."""
    counts_head: bool = False
    """Whether the size includes the head."""


RIFF, RIFX = _Chunks(12, "<4sI", b"data"), _Chunks(12, ">4sI", b"data")
AIFF = _Chunks(12, ">4sI", b"SSND")
CAF = _Chunks(8, ">4sQ", b"data", alignment=1)
# Sony's Wave64: names are GUIDs, that of the sample chunk is "data" and the rest of those of RIFF.
W64_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
W64 = _Chunks(40, "<16sQ", b"data" + W64_GUID, alignment=8, counts_head=True)


def max_samples_per_byte(file_format: str) -> int:
    """Returns a bound of what a byte of a file can hold, by libsndfile's name of its container.

    The least bit rate of an mp3 is 8 kbit/s, at 24 kHz; elsewhere a packet of two bytes may be 8192 samples.
    """
    return 24 if file_format == "MP3" else 8_192


def container_fault(file: BinaryIO, file_bytes: int) -> str | None:
    """Returns why a file's length is not what its container says, as the rest of a sentence, or None.

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
    chunks = _chunks_of(head)
    if chunks is not None:
        missing = _missing_in_chunks(file, file_bytes, chunks)
    elif head[:4] == b".snd":  # Sun/NeXT au: where the samples start, and their bytes
        start, sample_bytes = struct.unpack(">II", head[4:])
        missing = 0 if sample_bytes >= UNKNOWN_CHUNK_BYTES else start + sample_bytes - file_bytes
    elif head[:4] == b"OggS":
        missing = _missing_in_last_ogg_page(file, file_bytes)
    return _truncated(missing) if missing > 0 else None


def _truncated(missing_bytes: int) -> str:
    return f"is truncated: {missing_bytes} of its bytes are missing."


def _chunks_of(head: bytes) -> _Chunks | None:
    if head[8:] == b"WAVE":
        return {b"RIFF": RIFF, b"RF64": RIFF, b"RIFX": RIFX}.get(head[:4])
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return AIFF
    return {b"caff": CAF, b"riff": W64}.get(head[:4])


def _missing_in_chunks(file: BinaryIO, file_bytes: int, chunks: _Chunks) -> int:
    position, head_bytes = chunks.start, struct.calcsize(chunks.head)
    large_chunk_bytes = None
    for _ in range(MAX_CHUNKS):
        if position + head_bytes > file_bytes:
            break
        file.seek(position)
        name, size = struct.unpack(chunks.head, file.read(head_bytes))
        end = position + max(head_bytes, size if chunks.counts_head else head_bytes + size)
        if name == b"ds64":  # RF64 (EBU Tech 3306): the 64-bit size of the sample chunk stands here
            large_chunk_bytes = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        if name == chunks.samples:
            if size == 0xFFFFFFFF and large_chunk_bytes is not None:
                end = position + head_bytes + large_chunk_bytes
            elif size >= (UNKNOWN_CHUNK_BYTES if head_bytes == 8 else 1 << 63):
                return 0
            return end - file_bytes
        position = end + -end % chunks.alignment
    return 0  # no sample chunk, or a writer that forgot to pad: libsndfile will judge


def _missing_in_last_ogg_page(file: BinaryIO, file_bytes: int) -> int:
    file.seek(max(0, file_bytes - MAX_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return 27 - len(page)
    segments = page[26]
    return 27 + segments + sum(page[27 : 27 + segments]) - len(page)


def _mp3_start(head: bytes) -> int:
    """Returns the bytes of the tag in front of the stream, ID3v2: its size in four groups of seven bits."""
    if head[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _mp3_fault(file: BinaryIO, file_bytes: int, head: bytes) -> str | None:
    start = _mp3_start(head)
    if start >= file_bytes:
        return _truncated(start + 1 - file_bytes)
    file.seek(start)
    frames = file.read(MP3_PROBE_BYTES)
    marker = _xing_marker(frames)
    if marker < 0:
        if frames.find(b"VBRI", 0, 256) < 0 and len(_mp3_bit_rates(frames)) > 1:
            return "is an mp3 of variable bit rate without a Xing header, so its length is unknown: encode it anew."
        return None
    flags, first_field, second_field = struct.unpack(">3I", frames[marker + 4 : marker + 16].ljust(12, b"\0"))
    stream_bytes = second_field if flags & 1 else first_field
    missing = start + stream_bytes - file_bytes
    return _truncated(missing) if flags & 2 and missing > XING_TOLERANCE * stream_bytes else None


def _xing_marker(frames: bytes) -> int:
    return max(frames.find(b"Xing", 0, 256), frames.find(b"Info", 0, 256))


class _Mp3Frame(NamedTuple):
    kbits: int
    num_bytes: int
    samples: int


@functools.lru_cache(maxsize=4_096)
def _mp3_frame(head: bytes) -> _Mp3Frame | None:
    """Reads the first three bytes of a layer III frame; None if they are those of none."""
    if not MP3_FRAME_HEAD.match(head):
        return None
    version, kbits_index, rate_index = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if rate_index == 3:
        return None
    kbits, samples = MP3_KBITS[version][kbits_index], 1_152 if version == 3 else 576
    num_bytes = samples // 8 * kbits * 1_000 // MP3_RATES[version][rate_index] + (head[2] >> 1 & 1)
    return _Mp3Frame(kbits, num_bytes, samples)


def _mp3_bit_rates(frames: bytes) -> set[int]:
    """Returns the bit rates, in kbit/s, of the layer III frames that follow one another from the start."""
    rates, position = set(), 0
    while frame := _mp3_frame(frames[position : position + 3]):
        rates.add(frame.kbits)
        position += frame.num_bytes
    return rates


def mp3_length(file: BinaryIO) -> int:
    """Counts the samples of an mp3's frames, whatever its header says; the file's position is kept.

    The decoder may give some hundred samples fewer, the delay of the encoder.
    """
    before = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(before)
    position = _mp3_start(content[:10])
    has_information = _xing_marker(content[position : position + 256]) >= 0
    total = 0
    while frame := _mp3_frame(content[position : position + 3]) or MP3_FRAME_HEAD.search(content, position + 1):
        if isinstance(frame, _Mp3Frame):  # or else where the next one may begin
            total += frame.samples if not has_information else 0
            has_information = False
            position += frame.num_bytes
        else:
            position = frame.start()
    return total
