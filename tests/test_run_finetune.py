"""Fine-tuning and frozen encoders from the command line's words to results, classifier and card."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import run_finetune
from feature_extraction.speech import to_waveform
from mbt_speech.training.head_first import WeightPath
from mbt_speech.training.run_log import read_log
from modeling_mbt import MBTConfig, MBTForPreTraining
from tests.support.runs import finetune, results, run_snippet


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--freeze_encoder"], ["--max_steps", "30", "--learning_rate", "0.01"]])
def test_fine_tuning_learns_sub_folder_names_and_leaves_a_classifier(speech_folder, pretrained, tmp_path, words):
    run = finetune(tmp_path, pretrained, "--train_dir", speech_folder, *words)
    (result,) = results(run)
    assert result["accuracy"] == 1.0
    assert result["chance"] == 0.5
    model = AutoModelForAudioClassification.from_pretrained(run).eval()
    assert model.config.id2label == {0: "high", 1: "low"}
    extractor = AutoFeatureExtractor.from_pretrained(run)
    for label in ("high", "low"):
        waveform = to_waveform(speech_folder / label / "01.flac", 16000)
        with torch.no_grad():
            logits = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits
        assert model.config.id2label[int(logits.argmax())] == label


@pytest.mark.slow
def test_a_sweep_compares_methods_and_does_nothing_twice(speech_folder, pretrained, tmp_path, capsys):
    words = ["--train_dir", speech_folder, "--freeze_encoder", "--label_fraction", "0.5", "1", "--seed", "0", "1"]
    run = finetune(tmp_path, [pretrained, "random", "stats"], *words)
    lines = results(run)
    assert len(lines) == 3 * 2 * 2
    assert len({line["run"] for line in lines}) == len(lines)
    assert sorted({line["num_train"] for line in lines}) == [10, 20]
    finetune(tmp_path, [pretrained, "random", "stats"], *words, "--seed", "0", "1", "2")
    assert results(run)[: len(lines)] == lines
    assert len(results(run)) == 3 * 2 * 3
    assert "| random | frozen | " in capsys.readouterr().out
    for name in ("label_fractions.png", "embeddings.png", "spectra.png"):
        assert (run / name).stat().st_size > 0


@pytest.mark.slow
def test_a_folder_keeps_its_best_model_and_the_card_says_which(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--freeze_encoder"]
    run = finetune(tmp_path, pretrained, *words)
    weights = (run / "model.safetensors").read_bytes()
    finetune(run, [pretrained, "random"], *words, "--label_fraction", "0.5")
    assert (run / "model.safetensors").read_bytes() == weights
    assert f"{pretrained.name}, 100 % of the labels" in (run / "README.md").read_text()
    # Controls have the shape of the first model: of another one, they are others.
    config = MBTConfig.from_pretrained(pretrained)
    for name, sizes in (("same", config.frame_hidden_sizes), ("other", [16])):
        other = MBTForPreTraining(MBTConfig(**{**config.to_dict(), "frame_hidden_sizes": sizes, "objective": "bt"}))
        other.save_pretrained(tmp_path / name)
        AutoFeatureExtractor.from_pretrained(pretrained).save_pretrained(tmp_path / name)
        finetune(run, [tmp_path / name, "random"], *words, "--label_fraction", "0.5")
    assert [line["method"] for line in results(run)].count("random") == 2
    first, *others = results(run)
    assert others
    finetune(run, pretrained, *words, "--overwrite_output_dir")
    assert results(run) == [first]


@pytest.fixture
def keeps_what_it_trained(monkeypatch):
    """Keeps the fine-tuned weights whatever validation says."""

    def choose(path, classify, preferred):
        path.go_to(1.0)
        return 1.0, 0.0

    monkeypatch.setattr(WeightPath, "choose", choose)


@pytest.mark.slow
def test_encoder_and_classifier_learn(speech_folder, pretrained, tmp_path, keeps_what_it_trained):
    run = finetune(tmp_path, pretrained, "--train_dir", speech_folder, "--max_steps", "30", "--learning_rate", "0.01")
    (result,) = results(run)
    assert (result["alpha"], result["accuracy"]) == (1.0, 1.0)
    before, after = load_file(pretrained / "model.safetensors"), load_file(run / "model.safetensors")
    moved = [name for name in after if name in before and (before[name] - after[name]).abs().max() > 1e-4]
    assert any(name.endswith("convolution.weight") for name in moved)


def test_a_share_of_the_labels_is_one_of_the_validation_split_too():
    rows = {"train": np.arange(60), "validation": np.arange(60, 80)}
    task = SimpleNamespace(speech=SimpleNamespace(rows=rows, clips=SimpleNamespace(labels=np.arange(80) % 2)))
    for split, number in (("train", 6), ("validation", 2)):
        given = run_finetune.Task.labeled_rows(task, split, SimpleNamespace(label_fraction=0.1, seed=3))
        assert len(given) == number
        assert set(given) < set(rows[split])


@pytest.mark.slow
def test_full_fine_tuning_resumes_bit_for_bit(speech_folder, pretrained, tmp_path, keeps_what_it_trained):
    words = ["--train_dir", speech_folder, "--max_steps", "6", "--save_steps", "2", "--eval_steps", "3"]
    whole = finetune(tmp_path / "whole", pretrained, *words)
    weights = (whole / "model.safetensors").read_bytes()
    assert any("eval_accuracy" in line for line in read_log(whole))
    for name in ("results.jsonl", "model.safetensors"):
        (whole / name).unlink()
    finetune(whole, pretrained, *words, "--resume_from_checkpoint", whole / "checkpoint-2")
    assert (whole / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_labels_come_from_a_metadata_file_and_parts_from_its_split_column(speech_folder, pretrained, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    rows = ["file_name,pitch,split"]
    for path in sorted(speech_folder.rglob("*.*")):
        name = f"{path.parent.name}_{path.name}"
        (folder / name).write_bytes(path.read_bytes())
        part = "test" if path.stem in ("00", "01") else "dev" if path.stem in ("02", "03") else "train"
        rows.append(f"{name},{300 if path.parent.name == 'high' else 100},{part}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    run = finetune(
        tmp_path / "run", pretrained, "--train_dir", folder, "--label_column_name", "pitch", "--freeze_encoder"
    )
    (result,) = results(run)
    assert (result["num_train"], result["num_test"]) == (16, 4)
    assert AutoModelForAudioClassification.from_pretrained(run).config.label2id == {"100": 0, "300": 1}
    # Labels that were corrected make results that have not been there yet.
    rows[-1] = rows[-1].replace(",100,", ",300,") if ",100," in rows[-1] else rows[-1].replace(",300,", ",100,")
    (folder / "metadata.csv").write_text("\n".join(rows))
    for _ in range(2):
        finetune(run, pretrained, "--train_dir", folder, "--label_column_name", "pitch", "--freeze_encoder")
    assert len(results(run)) == 2


@pytest.mark.slow
def test_tasks_on_the_same_recordings_share_their_representations(speech_folder, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = ["file_name,pitch,number,by_number,by_pitch"]
    for count, path in enumerate(sorted(speech_folder.rglob("*.*"))):
        name = f"{count}.{path.suffix[1:]}"
        (folder / name).write_bytes(path.read_bytes())
        parts = (("train", "dev", "test")[count // number % 3] for number in (1, 3))
        rows.append(f"{name},{path.parent.name},{count % 2},{','.join(parts)}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    for label, split in (("pitch", "by_number"), ("number", "by_pitch")):
        words = ["--freeze_encoder", "--label_column_name", label, "--split_column_name", split]
        finetune(tmp_path / label, pretrained, "--train_dir", folder, *words)
    assert len(list((tmp_path / "cache" / "mbt_embeddings").iterdir())) == 1


def test_fine_tuning_does_not_resume_in_another_folder(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--max_steps", "2", "--save_steps", "1"]
    first = finetune(tmp_path / "first", pretrained, *words)
    with pytest.raises(ValueError, match=r"checkpoint-1 is of no network that this run trains below"):
        finetune(tmp_path / "second", pretrained, *words, "--resume_from_checkpoint", first / "checkpoint-1")


@pytest.mark.slow
def test_fine_tuning_does_not_go_on_from_a_training_with_other_labels_seed_or_arguments(
    speech_folder, pretrained, tmp_path
):
    words = ["--train_dir", speech_folder, "--max_steps", "4", "--save_steps", "2"]
    run = finetune(tmp_path, pretrained, *words)
    done = results(run)
    for others in (["--seed", "1"], ["--label_fraction", "0.5"], ["--learning_rate", "1e-4"]):
        with pytest.raises(ValueError, match=r"of another training, with .* start anew in another --output_dir"):
            finetune(run, pretrained, *words, *others, "--resume_from_checkpoint", "auto")
    assert results(run) == done
    (run / "results.jsonl").unlink()
    finetune(run, pretrained, *words, "--logging_steps", "1", "--resume_from_checkpoint", "auto")
    assert [line["accuracy"] for line in results(run)] == [line["accuracy"] for line in done]


@pytest.mark.slow
def test_the_model_is_fitted_again_where_other_settings_have_replaced_it(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--freeze_encoder"]
    run = finetune(tmp_path, pretrained, *words)
    weights = (run / "model.safetensors").read_bytes()
    finetune(run, pretrained, *words, "--max_length_seconds", "0.3")
    assert (run / "model.safetensors").read_bytes() != weights
    finetune(run, pretrained, *words)
    assert (run / "model.safetensors").read_bytes() == weights
    assert len(results(run)) == 3


def test_a_model_without_the_encoder_is_refused(speech_folder, pretrained, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (broken / name).write_bytes((pretrained / name).read_bytes())
    save_file({"other.weight": torch.zeros(2)}, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds no MBT encoder"):
        finetune(tmp_path / "run", broken, "--train_dir", speech_folder, "--freeze_encoder")


@pytest.mark.slow
def test_the_card_of_a_classifier_holds_its_results_and_its_code_runs(
    speech_folder, pretrained, tmp_path, monkeypatch, capsys
):
    words = ["--train_dir", speech_folder, "--freeze_encoder", "--seed", "0", "1", "--hub_license", "cc-by-4.0"]
    run = finetune(tmp_path / "run", [pretrained, "stats"], *words)
    card, _ = run_snippet(run, monkeypatch)
    assert "'label': 'low'" in capsys.readouterr().out
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.license == "cc-by-4.0"
    assert "one of its 2 classes" in card.content.split("## Limits")[1]
    (evaluation,) = card.data.eval_results
    accuracies = [line["accuracy"] for line in results(run) if line["method"] == str(pretrained)]
    assert evaluation.metric_value == pytest.approx(np.mean(accuracies))
    assert f"| {pretrained.name} | frozen | 100 % | {100 * np.mean(accuracies):.1f} ± " in card.content
    assert str(speech_folder.parent) not in card.content


def test_fine_tuning_of_controls_alone_ends_with_the_report(speech_folder, tmp_path, capsys):
    run = finetune(tmp_path / "runs" / "controls", "stats", "--train_dir", speech_folder, "--freeze_encoder")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"The results are in {run}. Next: mbt report --runs_dir {run.parent}"


@pytest.mark.slow
def test_weights_of_half_the_precision_are_learned_from_like_others(speech_folder, pretrained, tmp_path):
    model = MBTForPreTraining.from_pretrained(pretrained)
    model.bfloat16().save_pretrained(tmp_path / "half")
    AutoFeatureExtractor.from_pretrained(pretrained).save_pretrained(tmp_path / "half")
    for folder, words in (("frozen", ["--freeze_encoder"]), ("trained", ["--max_steps", "2"])):
        run = finetune(tmp_path / folder, tmp_path / "half", "--train_dir", speech_folder, *words)
        assert AutoModelForAudioClassification.from_pretrained(run).dtype == torch.float32


@pytest.mark.slow
def test_a_sweep_that_is_to_start_over_loses_nothing_to_a_mistake(speech_folder, pretrained, tmp_path):
    words = ["--train_dir", speech_folder, "--freeze_encoder"]
    run = finetune(tmp_path, pretrained, *words)
    before = (run / "results.jsonl").read_bytes()
    for method, other in (("runs/typo", []), (pretrained, ["--label_column_name", "typo"])):
        with pytest.raises(ValueError, match="typo"):
            finetune(run, method, *words, *other, "--overwrite_output_dir")
        assert (run / "results.jsonl").read_bytes() == before
    finetune(run, pretrained, *words, "--overwrite_output_dir", "--seed", "1")
    assert [line["seed"] for line in results(run)] == [1]
    finetune(run, "stats", *words, "--overwrite_output_dir")
    assert not {"model.safetensors", "config.json", "README.md"} & {path.name for path in run.iterdir()}, "of the old"


def test_distortions_that_are_given_replace_the_default_ones_also_if_there_are_none(monkeypatch):
    chosen = []
    monkeypatch.setattr(run_finetune, "FullTraining", lambda *args, **_: chosen.append(args[6].augmentation.to_dict()))
    task = SimpleNamespace(methods=SimpleNamespace(extractors={"x": None}, is_mbt=lambda method: True))
    run = SimpleNamespace(method="x", name="x", seed=0)
    for name in ("accelerator", "speech", "settings"):
        setattr(task, name, None)
    own = {"waveform": [], "features": [{"name": "fader"}]}
    for given in (None, "{}"):
        run_finetune.Task.training(task, run, None, None, None, SimpleNamespace(augmentation=given), 1e-3, own)
    assert chosen == [own, {"waveform": [], "features": []}]
