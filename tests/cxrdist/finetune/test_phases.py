"""How many weights a mode trains is printed and recorded."""

from __future__ import annotations

from cxrdist.finetune import classifier
from tests.cxrdist.finetuning import trained


def test_the_share_of_weights_that_train_is_printed_and_recorded(tmp_path, blobs, caplog):
    caplog.set_level("INFO")
    changes = {"epochs": 1, "min_steps": 1}
    run = trained(tmp_path / "run", blobs, mode="last_n", **changes)
    done = run.read_done()
    assert 0.5 < done["trained_share"] < 0.95 and done["n_trained"] < done["n_parameters"]
    assert f"last_n 1 trains {done['n_trained']:,} of {done['n_parameters']:,} weights" in caplog.text
    probed = trained(tmp_path / "probe", blobs, mode="linear", **changes)
    assert probed.read_done()["n_trained"] == 445


def test_layers_are_counted_in_place_of_stages(tmp_path, blobs, caplog):
    with caplog.at_level("INFO", "cxrdist"):
        run = trained(tmp_path / "run", blobs, mode="last_n", last_layers=2, epochs=1, min_steps=2, n_boot=0)
    model, done = classifier.load(run.path), run.read_done()
    hidden_and_last_convolution = 128 * 9 * 444 + 444 + 64 * 128 * 9 + 128 + 2 * 128 + 445
    assert done["n_trained"] == hidden_and_last_convolution == model.trained(2, True)
    assert f"last_layers 2 trains {done['n_trained']:,} of" in caplog.text
