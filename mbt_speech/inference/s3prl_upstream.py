"""MBT for SUPERB (arXiv 2105.01051): an upstream of s3prl, which itself is not needed here.

In s3prl, `s3prl/upstream/mbt/hubconf.py` names it, and a checkpoint is its `-k`:

    from mbt_speech.inference.s3prl_upstream import UpstreamExpert
    def mbt_local(ckpt, *args, **kwargs): return UpstreamExpert(ckpt, *args, **kwargs)

    python run_downstream.py -m train -u mbt_local -k runs/mine -d speech_commands -n mine

Axes: B clips, T' output frames, H hidden size.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .speech_encoder import SpeechEncoder


class UpstreamExpert(nn.Module):
    """A checkpoint's encoder, frozen or trained along, as s3prl decides.

    Args:
        ckpt: Folder of the checkpoint, or its name on the Hub.
        model_config: Part of s3prl's interface; a checkpoint brings its own.
        **kwargs: Likewise.

    Raises:
        OSError: There is no checkpoint, or no `preprocessor_config.json` beside it.
        ValueError: The checkpoint is not one of an MBT model.
    """

    def __init__(self, ckpt: str, model_config: str | None = None, **kwargs):
        super().__init__()
        self.name = "MBT"
        self.encoder = SpeechEncoder.from_pretrained(ckpt)

    def get_downsample_rates(self, key: str) -> int:
        """Distance between frames in samples, the same for every key."""
        return self.encoder.samples_per_frame

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Represents clips.

        Args:
            wavs: B waveforms (S,) in [-1, 1] at the extractor's rate, of any lengths.

        Returns:
            `hidden_states`, a list of (B, T', H), zero past a clip's end: the encoder's last layers, as many as have
            the representation's width and rate, for the downstream's weighted sum; and the last of them,
            `last_hidden_state`.

        Raises:
            ValueError: A clip is empty, shorter than a window, not of floats, or holds NaN or infinity.
        """
        output = self.encoder(list(wavs), output_hidden_states=True)
        last = output.last_hidden_state
        alike = [hidden for hidden in output.hidden_states[:-1] if hidden.shape == last.shape]
        return {"hidden_states": [*alike, last], "last_hidden_state": last}
