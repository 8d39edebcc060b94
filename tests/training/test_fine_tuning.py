"""What one network of a sweep learns from."""

import re

import run_finetune
from mbt_speech.training.run_log import read_log


def test_a_seed_cuts_long_clips_alike_alone_and_in_a_sweep(speech_folder, tmp_path, capsys):
    def losses_of_seed_1(*seeds):
        words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--seed", *seeds]
        words += ["--output_dir", str(tmp_path / "-".join(seeds)), "--preset", "tiny", "--max_length_seconds", "0.3"]
        run_finetune.main([*words, "--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "8"])
        return re.findall(r"seed 1, (.*: step \d).*? loss ([\d.]+)", capsys.readouterr().err)

    alone = losses_of_seed_1("1")
    assert len(alone) > 2
    assert losses_of_seed_1("0", "1") == alone


def test_accuracy_is_measured_on_the_way_only_on_clips_that_are_not_learned_from(speech_folder, tmp_path):
    words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--output_dir", str(tmp_path)]
    run_finetune.main([*words, "--preset", "tiny", "--max_steps", "2", "--eval_steps", "1"])
    measured = {
        path.parent.name: any("eval_accuracy" in line for line in read_log(path.parent))
        for path in tmp_path.rglob("train_log.jsonl")
    }
    assert measured == {"learning_rate_0.001": True, "learning_rate_0.003": True, "all_labels": False}
