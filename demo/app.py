"""A page to try a checkpoint in the browser: classify a recording, map several, compare two.

    python demo/app.py --encoder runs/demo/mbt0 --classifier runs/demo/gender_frozen

Without arguments, as on a Space, the models are those of MBT_ENCODER and MBT_CLASSIFIER: folders, or names on the Hub.
Without these, in a clone, both are the small model that comes with it.

Axes: N recordings, H features of a representation.
"""

import argparse
import html
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# The packages are installed, lie beside this file, or, in a clone, one folder above.
sys.path.append(str(Path(__file__).resolve().parent.parent))
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from transformers.utils import logging

from feature_extraction import BadAudioError
from mbt_speech.inference.sound_files import Recognizer
from mbt_speech.inference.speech_encoder import SpeechClassifier, SpeechEncoder
from mbt_speech.inference.verification import cosine_scores
from mbt_speech.user_errors import explain_user_errors

# Comes with a clone.
SMALL_MODEL = Path(__file__).resolve().parent.parent / "models" / "mbt-synthetic"
TOP_CLASSES = 5
MIN_MAP_RECORDINGS = 3
MAX_MAP_RECORDINGS = 60
MAX_NAME_LENGTH = 28
# On the page, in pixels.
MAP_HEIGHT = 420
# A recording is somebody's voice: uploads are looked for this often, and deleted at this age.
DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS = 600, 3_600

# Fonts that every system has: the page loads nothing from elsewhere.
THEME = gr.themes.Soft(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Consolas", "monospace"],
)
POINT_COLOR = "#4f46e5"
# Half of what a point takes in the picture.
POINT_PIXELS = 12
CSS = """
.gradio-container { max-width: 960px !important; margin: 0 auto !important; }
.verdict { text-align: center; padding: 1.2rem 1rem 0.6rem; }
.verdict .score { font-size: 2.6rem; font-weight: 600; line-height: 1.2; }
.verdict .words { font-size: 1.1rem; margin: 0.2rem 0 1.4rem; }
.verdict .scale { position: relative; height: 8px; max-width: 520px; margin: 0 auto;
  border-radius: 4px; background: var(--border-color-primary); }
.verdict .dot { position: absolute; top: -5px; width: 18px; height: 18px; margin-left: -9px;
  border-radius: 9px; background: var(--color-accent); }
.verdict .threshold { position: absolute; top: -7px; width: 2px; height: 22px; background: var(--body-text-color); }
.verdict .ends { display: flex; justify-content: space-between; max-width: 520px; margin: 0.6rem auto 0;
  font-size: 0.85rem; color: var(--body-text-color-subdued); }
.footnote { text-align: center; }
.footnote * { font-size: 0.85rem; color: var(--body-text-color-subdued); }
"""


def main(argv: list[str] | None = None) -> None:
    """Opens the models and serves the page."""
    args = parse_args(argv)
    logging.disable_progress_bar()  # of loading the weights
    encoder = Recognizer(SpeechEncoder.from_pretrained(args.encoder, args.device), max_windows=1)
    classifier = None
    if args.classifier:
        classifier = Recognizer(SpeechClassifier.from_pretrained(args.classifier, args.device), max_windows=1)
    names = " · ".join(shown_name(name) for name in (args.encoder, args.classifier) if name)
    build_page(encoder, classifier, names).launch(theme=THEME, css=CSS, footer_links=[])


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line and the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--encoder", default=os.environ.get("MBT_ENCODER"), help="by default MBT_ENCODER")
    parser.add_argument("--classifier", default=os.environ.get("MBT_CLASSIFIER"), help="by default MBT_CLASSIFIER")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to compute")
    args = parser.parse_args(argv)
    if not args.encoder and not args.classifier and SMALL_MODEL.is_dir():
        args.encoder = args.classifier = str(SMALL_MODEL)
    if not args.encoder:
        parser.error("the page takes a model: give --encoder, or set MBT_ENCODER, to a folder or a name on the Hub.")
    return args


def shown_name(model_name_or_path: str) -> str:
    """Name a model without saying where it lies on this machine."""
    return Path(model_name_or_path).resolve().name if Path(model_name_or_path).is_dir() else model_name_or_path


def build_page(encoder: Recognizer, classifier: Recognizer | None, names: str) -> gr.Blocks:
    """Lay out the page; without a classifier it has no tab to classify."""
    with gr.Blocks(title="MBT", delete_cache=(DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS)) as page:
        gr.Markdown(
            "# Speech, without labels\n"
            "MBT is an encoder that has learned from unlabeled recordings, by making two distorted views of the same "
            "sound alike. Try it on yours: the first "
            f"{encoder.window_seconds:g} seconds of each recording count."
        )
        if classifier is not None:
            with gr.Tab("Classify"):
                add_classification(classifier)
        with gr.Tab("Map"):
            add_map(encoder)
        with gr.Tab("Compare"):
            add_comparison(encoder)
        gr.Markdown(html.escape(names), elem_classes="footnote")
    return page


def add_classification(classifier: Recognizer) -> None:
    """Add the tab that classifies one recording."""

    def classify(recording: str | None) -> dict[str, float]:
        if recording is None:
            raise complaint("Record or upload something first.")
        with kind_errors():
            classes = classifier.predict([Path(recording)], TOP_CLASSES)[1][0]
        return {str(one["label"]): one["score"] for one in classes}

    with gr.Row():
        with gr.Column():
            recording = recording_input("Recording")
            button = gr.Button("Classify", variant="primary")
        label = gr.Label(num_top_classes=TOP_CLASSES, label="Classes")
    button.click(classify, recording, label)
    recording.change(lambda: None, outputs=label, api_visibility="private")


def add_map(encoder: Recognizer) -> None:
    """Add the tab that shows where recordings lie relative to one another."""

    def draw_map(files: list[str] | None) -> tuple[np.ndarray, str]:
        count = len(files or [])
        if not MIN_MAP_RECORDINGS <= count <= MAX_MAP_RECORDINGS:
            raise complaint(f"A map takes {MIN_MAP_RECORDINGS} to {MAX_MAP_RECORDINGS} recordings: there are {count}.")
        with kind_errors():
            recordings, embeddings = encoder.embed([Path(file) for file in files or []])
        points, shares = principal_components(embeddings)
        words = f"{count} recordings. Near one another: alike to the encoder. "
        words += f"The two axes hold {shares.sum():.0%} of the variance."
        return draw_points(points, shares, [recording.stem for recording in recordings]), words

    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            files = gr.File(file_count="multiple", file_types=["audio"], label="Recordings", height=MAP_HEIGHT)
            button = gr.Button("Draw the map", variant="primary")
        with gr.Column(scale=3, min_width=320):
            buttons = ["download", "fullscreen"]
            picture = gr.Image(format="png", interactive=False, show_label=False, buttons=buttons, height=MAP_HEIGHT)
            words = gr.Markdown()
    button.click(draw_map, files, [picture, words])
    files.change(lambda: (None, ""), outputs=[picture, words], api_visibility="private")


def add_comparison(encoder: Recognizer) -> None:
    """Add the tab that compares two recordings."""

    def compare(first: str | None, second: str | None) -> str:
        if first is None or second is None:
            raise complaint("Record or upload two recordings first.")
        with kind_errors():
            embeddings = encoder.embed([Path(first), Path(second)])[1]
        score = float(cosine_scores(embeddings[:1], embeddings[1:])[0])
        return verdict(score, encoder.encoder.model.config.verification_threshold)

    with gr.Row():
        first = recording_input("First recording")
        second = recording_input("Second recording")
    button = gr.Button("Compare", variant="primary")
    result = gr.HTML()
    button.click(compare, [first, second], result)
    for recording in (first, second):
        recording.change(lambda: "", outputs=result, api_visibility="private")


def recording_input(label: str) -> gr.Audio:
    """Make a place for a recording, from a file or the microphone."""
    return gr.Audio(sources=["upload", "microphone"], type="filepath", label=label, buttons=[])


@contextmanager
def kind_errors() -> Iterator[None]:
    """Turn what is wrong with a recording into a sentence on the page, without the folder that it was uploaded to."""
    try:
        yield
    except BadAudioError as error:
        raise complaint(f"{Path(error.name).name} {error.reason}") from None


def complaint(sentence: str) -> gr.Error:
    """Make a message of the page; it would read the sentence as HTML."""
    return gr.Error(html.escape(sentence), print_exception=False)


def verdict(score: float, threshold: float | None) -> str:
    """Say in HTML what a cosine means; without a threshold it is left at the number."""
    if threshold is None:
        words = "The closer to 1, the more alike. This model has no threshold to decide by."
    elif score >= threshold:
        words = f"Probably the same voice: the score reaches the threshold of {threshold:.2f}."
    else:
        words = f"Probably two voices: the score is below the threshold of {threshold:.2f}."
    mark = "" if threshold is None else f'<div class="threshold" style="left: {on_scale(threshold):.1f}%"></div>'
    return (
        f'<div class="verdict"><div class="score">{score:.2f}</div><div class="words">{words}</div>'
        f'<div class="scale">{mark}<div class="dot" style="left: {on_scale(score):.1f}%"></div></div>'
        '<div class="ends"><span>-1 opposite</span><span>cosine</span><span>1 the same</span></div></div>'
    )


def on_scale(cosine: float) -> float:
    """Give the place of a cosine on a line from -1 to 1, in percent."""
    return 50 * (1 + min(1.0, max(-1.0, cosine)))


def principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project embeddings (N, H) on their first two principal components.

    Returns:
        The points (N, 2), and the share of the variance along both axes (2,), 0 where all embeddings are the same.
    """
    centered = embeddings - embeddings.mean(axis=0)
    left, singular_values, _ = np.linalg.svd(centered, full_matrices=False)
    variances = singular_values**2
    return left[:, :2] * singular_values[:2], variances[:2] / max(variances.sum(), np.finfo(variances.dtype).tiny)


def draw_points(points: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw points (N, 2) with their names, as an RGBA picture."""
    figure = Figure(figsize=(6.4, 5.2), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(*points.T, s=60, color=POINT_COLOR, edgecolor="white", linewidth=1, zorder=3)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)", color="#475569")
    axes.set_ylabel(f"second component ({shares[1]:.0%})", color="#475569")
    axes.margins(0.16)
    axes.grid(color="#e2e8f0")
    axes.tick_params(length=0, labelleft=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    canvas.draw()
    write_names(axes, points, names)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def write_names(axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Write each name beside its point, where it covers no point or name and stays in the picture."""
    sides = (((0, 8), "center"), ((0, -14), "center"), ((7, -3), "left"), ((-7, -3), "right"))
    taken = [Bbox.from_bounds(x, y, 0, 0).padded(POINT_PIXELS) for x, y in axes.transData.transform(points)]
    for point, name in zip(points, names, strict=True):
        short = name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"
        texts = [
            axes.annotate(short, point, offset, textcoords="offset points", ha=horizontal, fontsize=8.5)
            for offset, horizontal in sides
        ]
        boxes = [text.get_window_extent() for text in texts]
        free = [
            axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and not any(box.overlaps(other) for other in taken)
            for box in boxes
        ]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        for text in texts[:chosen] + texts[chosen + 1 :]:
            text.remove()


if __name__ == "__main__":
    with explain_user_errors():
        main()
