"""Distortions of waveforms by other recordings: noise, music or babble, and the answers of real rooms.

Every distortion takes a batch of waveforms (B, S), their sampling rate in Hz and the generator of all its randomness,
and returns (B, S). A folder's recordings are read once, at their first use, and stay in memory.

Axes: B clips, S samples, R rooms.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .draws import uniform
from .sound_sources import files_below
from .speech import to_waveform
from .waveform_augmentation import Bounds, add_at_snr, convolve

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def recorded_noise(
    waveforms: Tensor,
    sampling_rate: int,
    generator: torch.Generator,
    lengths: Tensor | None = None,
    *,
    folder: str,
    snr_db: Bounds = (5, 20),
) -> Tensor:
    """Adds a random piece of a folder's recordings, strung together, at a signal-to-noise ratio in dB."""
    num_clips, num_samples = waveforms.shape
    noise = _noise(folder, sampling_rate, waveforms.device)
    starts = (uniform((0, 1), (num_clips, 1), waveforms, generator).double() * len(noise)).long()
    positions = (starts + torch.arange(num_samples, device=waveforms.device)) % len(noise)
    return add_at_snr(waveforms, noise[positions], snr_db, generator, lengths)


def recorded_room(waveforms: Tensor, sampling_rate: int, generator: torch.Generator, *, folder: str) -> Tensor:
    """Convolves each clip with one of a folder's impulse responses, its loudest sample at time 0, its energy at 1."""
    rooms = _rooms(folder, sampling_rate, waveforms.device)
    drawn = torch.randint(len(rooms), (len(waveforms),), generator=generator, device=generator.device)
    return convolve(waveforms, rooms[drawn.to(rooms.device), : waveforms.shape[1]])


@lru_cache(maxsize=4)
def _noise(folder: str, sampling_rate: int, device: torch.device) -> Tensor:
    """Returns (samples,) of all recordings."""
    return torch.cat([waveform for _, waveform in _recordings(folder, sampling_rate)]).to(device)


@lru_cache(maxsize=4)
def _rooms(folder: str, sampling_rate: int, device: torch.device) -> Tensor:
    """Returns (R, samples)."""
    answers = []
    for path, answer in _recordings(folder, sampling_rate):
        answer = answer[answer.abs().argmax() :]
        if answer[0] == 0:
            raise ValueError(f"{path} is silent, and no impulse response: take it out of the folder.")
        answers.append(answer / answer.norm())
    return torch.nn.utils.rnn.pad_sequence(answers, batch_first=True).to(device)


def _recordings(folder: str, sampling_rate: int) -> Iterator[tuple[Path, Tensor]]:
    """Yields the recordings of a folder and its sub-folders and their waveforms (samples,), in the order of names."""
    paths = sorted(path for path in files_below(Path(folder)) if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"There is no recording ({', '.join(SUFFIXES)}) in {folder!r}: give another `folder`.")
    for path in paths:
        yield path, torch.from_numpy(to_waveform(path, sampling_rate))
