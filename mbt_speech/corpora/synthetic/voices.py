"""Who speaks in the built-in corpus, and how: speakers, speaking styles and their espeak-ng voice files.

A speaker is drawn once from a seeded generator. The ranges follow what is known of adult voices: the two genders
differ by about 0.7 octave in pitch and by 15 % in the length of the vocal tract, and overlap in both.
"""

from dataclasses import dataclass

import numpy as np

ACCENTS = (
    "en",
    "en-029",
    "en-GB-scotland",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
    "en-GB-x-rp",
    "en-US",
    "en-US-nyc",
)
GENDERS = ("female", "male")
NUM_FORMANTS = 9


@dataclass(frozen=True)
class Style:
    """A way of speaking, as factors on what the speaker does by habit."""

    rate: float = 1.0
    pitch: float = 1.0
    pitch_range: float = 1.0
    spectral_tilt_db_per_octave: float = 0.0
    consonant_strength: float = 1.0
    breath: int = 0
    effort_db: float = 0.0  # how much louder than plain speech, and so further above the noise


STYLES = {
    "plain": Style(),
    "lively": Style(rate=1.15, pitch=1.15, pitch_range=2.0, spectral_tilt_db_per_octave=0.5, effort_db=2.0),
    "soft": Style(
        rate=0.95,
        pitch=0.95,
        pitch_range=0.7,
        spectral_tilt_db_per_octave=-2.5,
        consonant_strength=0.7,
        breath=12,
        effort_db=-5.0,
    ),
    "loud": Style(pitch=1.3, pitch_range=1.3, spectral_tilt_db_per_octave=2.5, consonant_strength=1.2, effort_db=6.0),
    "drawled": Style(
        rate=0.72, pitch=0.9, pitch_range=0.35, spectral_tilt_db_per_octave=-0.7, consonant_strength=0.85
    ),
}


@dataclass(frozen=True)
class Speaker:
    """One synthetic person: everything that stays the same from utterance to utterance."""

    name: str
    gender: str
    accent: str
    pitch_hz: float
    pitch_range: float
    rate_wpm: float
    formant_scale: tuple[float, ...]
    formant_strength: tuple[float, ...]
    formant_width: tuple[float, ...]
    spectral_tilt_db_per_octave: float
    klatt: int
    roughness: int
    flutter: int
    breath: int
    consonant_strength: float

    def voice_name(self, style: str) -> str:
        """Returns the name under which espeak-ng finds this speaker's voice in one style."""
        return f"gmw/{self.accent}+{self.name}-{style}"


def draw_speaker(name: str, gender: str, rng: np.random.Generator) -> Speaker:
    """Draws one speaker of the given gender."""
    female = gender == "female"
    tract_scale = rng.normal(1.15 if female else 1.0, 0.055)
    individual = rng.normal(1.0, [0.03, 0.05, 0.05, 0.05, 0.06, 0.06, 0.05, 0.05, 0.05])
    return Speaker(
        name=name,
        gender=gender,
        accent=str(rng.choice(ACCENTS)),
        pitch_hz=float((195 if female else 118) * 2 ** rng.normal(0, 0.27)),
        pitch_range=float(rng.uniform(0.15, 0.6)),
        rate_wpm=float(175 * 2 ** rng.normal(0, 0.18)),
        formant_scale=tuple(float(scale) for scale in tract_scale * individual),
        formant_strength=tuple(float(2**octaves) for octaves in rng.normal(0, 0.4, NUM_FORMANTS)),
        formant_width=tuple(float(2**octaves) for octaves in rng.normal(0.2, 0.35, NUM_FORMANTS)),
        spectral_tilt_db_per_octave=float(rng.normal(0, 1.2)),
        klatt=int(rng.choice([0, 1, 2, 3, 4, 5], p=[0.65, 0.07, 0.07, 0.07, 0.07, 0.07])),
        roughness=int(rng.integers(0, 6)),
        flutter=int(rng.integers(1, 16)),
        breath=int(rng.integers(2) * rng.integers(2, 25)),
        consonant_strength=float(2 ** rng.normal(0, 0.3)),
    )


def voice_file(speaker: Speaker, style_name: str) -> str:
    """Writes one speaker in one style as an espeak-ng voice variant (format: docs/voices.md of espeak-ng)."""
    style = STYLES[style_name]
    pitch_hz = speaker.pitch_hz * style.pitch
    top_hz = pitch_hz * (1 + speaker.pitch_range * style.pitch_range)
    tilt = speaker.spectral_tilt_db_per_octave + style.spectral_tilt_db_per_octave
    consonants = round(100 * speaker.consonant_strength * style.consonant_strength)
    breath = speaker.breath + style.breath
    lines = [
        "language variant",
        f"name {speaker.name}-{style_name}",
        f"pitch {round(pitch_hz)} {round(top_hz)}",
        f"roughness {speaker.roughness}",
        f"flutter {speaker.flutter}",
        f"consonants {consonants} {consonants}",
        f"tone {_tone(tilt)}",
        *(
            f"formant {index} {round(100 * scale)} {round(100 * strength)} {round(100 * width)}"
            for index, (scale, strength, width) in enumerate(
                zip(speaker.formant_scale, speaker.formant_strength, speaker.formant_width, strict=True)
            )
        ),
    ]
    if breath:
        lines.append("breath " + " ".join(str(round(breath * share)) for share in (0.3, 1, 1, 1, 1, 0.7, 0.4, 0.3)))
    if speaker.klatt:
        lines.append(f"klatt {speaker.klatt}")
    return "\n".join(lines) + "\n"


def _tone(tilt_db_per_octave: float) -> str:
    """Tilts espeak-ng's default tone curve about 600 Hz."""
    default = {150: 170, 600: 170, 1200: 135, 2000: 110, 4500: 110}
    tilted = {
        frequency_hz: amplitude * 10 ** (tilt_db_per_octave * np.log2(frequency_hz / 600) / 20)
        for frequency_hz, amplitude in default.items()
    }
    scale = min(1.0, 255 / max(tilted.values()))
    return " ".join(f"{frequency_hz} {round(amplitude * scale)}" for frequency_hz, amplitude in tilted.items())
