"""MBT for X-ARES, the eXtensive Audio Representation and Evaluation Suite (arXiv 2505.16369).

In a file of its own, `mine.py`, a class without arguments, for `python -m xares.run mine.py src/tasks/*.py`:

    from mbt_speech.inference.xares_encoder import XaresEncoder

    class MineEncoder(XaresEncoder):
        def __init__(self):
            super().__init__("runs/mine")

X-ARES reads sound with torchaudio, whose releases do not load beside torch 2.13: its tasks take an older torch. Its
own check of encoders needs none.

Axes: B clips, S samples, T' output frames, H hidden size.
"""

from pathlib import Path

from torch import Tensor, nn

from .speech_encoder import SpeechEncoder

MILLISECONDS = 1000


class XaresEncoder(nn.Module):
    """An encoder whose frames X-ARES keeps and learns heads on.

    Args:
        model_name_or_path: Folder of the checkpoint, or its name on the Hub.

    Attributes:
        sampling_rate: In Hz, what waveforms must have.
        output_dim: H.
        hop_size_in_ms: Distance between frames, in milliseconds.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The checkpoint is not one of an MBT model.
    """

    def __init__(self, model_name_or_path: str | Path):
        super().__init__()
        self.encoder = SpeechEncoder.from_pretrained(model_name_or_path)
        self.sampling_rate = self.encoder.sampling_rate
        self.output_dim = self.encoder.model.config.hidden_size
        self.hop_size_in_ms = MILLISECONDS * self.encoder.samples_per_frame / self.sampling_rate

    def forward(self, audio: Tensor) -> Tensor:
        """Returns the frames (B, T', H) of waveforms (B, S), or of one (S,), which X-ARES pads to one length.

        Raises:
            ValueError: A clip is shorter than a window, not of floats, or holds NaN or infinity.
        """
        return self.encoder(audio if audio.ndim == 2 else audio[None]).last_hidden_state
