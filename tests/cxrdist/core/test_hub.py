"""Encoders from the hub, from a server on this machine; and by a user's own names."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cxrdist.core import hub, named_inits
from cxrdist.core.initialisation import describe
from cxrdist.errors import InputError
from cxrdist.finetune import identity
from cxrdist.inference import network as networks
from cxrdist.pretrain.config import PretrainConfig
from jobs import cli
from jobs._options import parse_options
from tests.cxrdist.conftest import ROOT, TINY
from tests.cxrdist.finetuning import trial

COMMIT = "5" * 40
REPOSITORY = "clinic/encoder"


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """A server that answers for one repository as the hub does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            repository, _, name = self.path.lstrip("/").partition("/resolve/main/")
            data = files.get(name) if repository == REPOSITORY else None
            self.send_response(200 if data is not None else 404)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if repository == REPOSITORY else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if self.command == "GET" and data:
                self.wfile.write(data)

        do_GET = do_HEAD

        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASK = """
import sys
from cxrdist.core.hub import fetched
for init in sys.argv[1:]:
    try:
        print(fetched(init))
    except Exception as error:
        print(type(error).__name__, error.exit_code, error)
assert "torch" not in sys.modules
"""


def asked(home: Path, endpoint: str, *inits: str, offline: bool = False) -> list[str]:
    """What `fetched` says to each address, a line each, in a process of its own."""
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", ASK, *inits]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_encoder_is_fetched_once_with_its_settings_and_then_needs_no_network(tmp_path):
    files = {"model.safetensors": b"weights", "config.json": b"{}", "old/weights.safetensors": b"others"}
    with serving(files) as endpoint:
        whole, part, missing, foreign = asked(
            tmp_path, endpoint, f"hf://{REPOSITORY}", f"hf://{REPOSITORY}/old/weights.safetensors@main",
            f"hf://{REPOSITORY}/nothing.bin", "hf://nobody/nothing",
        )  # fmt: skip
    assert Path(whole).read_bytes() == b"weights" and (Path(whole).parent / "config.json").read_bytes() == b"{}"
    assert Path(part).read_bytes() == b"others"
    assert hub.display_name(Path(whole)) == REPOSITORY
    assert missing.startswith("InputError 2") and "has no nothing.bin; name its file" in missing
    assert foreign.startswith("InputError 2") and "no such repository, or it is not open to you" in foreign
    again, absent = asked(tmp_path, endpoint, f"hf://{REPOSITORY}", "hf://clinic/other@v2", offline=True)
    assert again == whole
    assert absent.startswith("FailedError 1 init hf://clinic/other@v2: ") and "the hub cannot be reached" in absent
    assert "hf download clinic/other --revision v2" in absent and "models--clinic--other" in absent
    assert "--init FOLDER/pytorch_model.bin" in absent


@pytest.mark.parametrize("init", ["hf://one", "hf://a/b/../c", "hf://a/b@", "hf:///b", "hf://a/b c"])
def test_what_is_no_address_of_the_hub_is_refused(init):
    with pytest.raises(InputError, match="must be hf://owner/name"):
        hub.fetched(init)


def plain_weights(path: Path) -> Path:
    """A state dict of timm's test network that says nothing of itself."""
    from cxrdist.core.backbones import build_backbone

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    safetensors.torch.save_file(build_backbone(TINY, 32, stem="standard").state_dict(), path)
    return path


@pytest.fixture
def inits(tmp_path, monkeypatch) -> Path:
    plain_weights(tmp_path / "weights" / "w.safetensors")
    text = (
        f'[ours]\ninit = "weights/w.safetensors"\narch = "{TINY}"\nimage_size = 32\ninit_mean = 0.3\ninit_std = 0.2\n'
    )
    (tmp_path / "inits.toml").write_text(text)
    monkeypatch.setenv(named_inits.ENVIRONMENT, str(tmp_path / "inits.toml"))
    return tmp_path / "inits.toml"


def test_a_name_of_the_list_stands_for_its_file_architecture_and_pixels(inits, tmp_path, blobs):
    config, run = trial(tmp_path / "run", blobs, init="ours", arch=None, image_size=None, mode="linear")
    assert config.init == str(tmp_path / "weights" / "w.safetensors")
    assert (config.arch, config.image_size, config.init_mean, config.init_std) == (TINY, 32, 0.3, 0.2)
    assert run.read_info()["init"]["name"] == describe("ours").name == "ours"
    network = networks.load("ours", "cpu")
    assert (network.name, network.mean, network.std) == (TINY, 0.3, 0.2)
    spelled, _ = trial(
        tmp_path / "other",
        blobs,
        init=config.init,
        arch=TINY,
        image_size=32,
        init_mean=0.3,
        init_std=0.2,
        mode="linear",
    )
    assert identity.trial_signature(spelled) == identity.trial_signature(config), "the name does not count"
    own, _ = trial(tmp_path / "own", blobs, init="ours", arch=None, image_size=48, mode="linear")
    assert own.image_size == 48, "what the command says wins"


def test_a_pretraining_starts_from_a_name_of_the_list(inits, tmp_path, make_run):
    run = make_run(init="ours")
    assert run.read_config()["init"] == str(tmp_path / "weights" / "w.safetensors")
    assert run.read_config()["init_mean"] == 0.3


@pytest.mark.parametrize("words", [["--image_size", "224"], ["--config", "spec.toml"]])
def test_a_value_that_is_asked_for_is_not_replaced_by_the_names_because_it_is_the_default(
    inits, tmp_path, blobs, monkeypatch, capsys, words
):
    """Only a pretraining has defaults of its own for what a name stands for: arch and image_size."""
    monkeypatch.chdir(tmp_path)
    Path("spec.toml").write_text("image_size = 224\n")
    asked = ["pretrain", "--shards", str(blobs), "--out", "run", "--init", "ours"]
    assert cli.main([*asked, *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"image_size is given as 224, but init ours stands for image_size = 32 ({inits})" in said
    assert not Path("run").exists()


def test_settings_that_agree_with_a_name_or_differ_from_the_default_stay_as_they_are(inits):
    asked = ["--shards", "s", "--out", "o", "--init", "ours"]
    for words, size in (([], 32), (["--image_size", "32"], 32), (["--image_size", "48"], 48)):
        config = parse_options("cxrdist pretrain", PretrainConfig, (), "", [*asked, *words])
        assert (named_inits.expanded(config).image_size, named_inits.expanded(config).arch) == (size, TINY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[ours]\nint = 'x'", r"\[ours\]: unknown key int; did you mean init"),
        ("[ours]\narch = 'x'", r"\[ours\]: init is missing"),
        ("[scratch]\ninit = 'x'", r"\[scratch\] must be a table"),
        ("ours = 3", r"\[ours\] must be a table"),
        ("[", "is no list of encoders"),
        ("[ours]\ninit = 'x'\ninit_std = 0", "init_std = 0.* must be"),
    ],
)
def test_a_list_that_cannot_be_is_one_line(inits, text, says):
    inits.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        describe("ours")
    assert "\n" not in str(caught.value) and str(inits) in str(caught.value)


def test_an_unknown_name_is_refused_with_the_known_ones(inits, monkeypatch):
    with pytest.raises(InputError, match="init ourz: no such file or run; also known: .*ours"):
        describe("ourz")
    monkeypatch.setenv(named_inits.ENVIRONMENT, str(inits.with_name("absent.toml")))
    with pytest.raises(InputError, match="CXRDIST_INITS names .*absent.toml, which does not exist"):
        describe("ours")


def test_the_example_list_can_be_read(monkeypatch):
    monkeypatch.setenv(named_inits.ENVIRONMENT, str(ROOT / "examples" / "inits.toml"))
    assert all(json.dumps(entry.init) for entry in named_inits.listed().values()) and named_inits.entry("rad-dino")
