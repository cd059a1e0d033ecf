"""Shards at an address (http, https, s3, any fsspec scheme) are fetched once, checked, and shared by processes."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import InputError, ShardSet
from shards.errors import FailedError
from shards.read import transfer
from shards.read.stage import stage
from tests.shards.conftest import STAGE, same_files
from tests.web import Web


def test_http_is_fetched_once_and_checked(folder: Path, cache: Path, web: Web) -> None:
    shardset = ShardSet(f"{web.url}/set", "train", cache_dir=cache)
    assert same_files(shardset.path, folder)
    assert torch.equal(shardset.images(np.arange(5)), ShardSet(folder, "train").images(np.arange(5)))
    asked = len(web.asked)
    ShardSet(f"{web.url}/set/", "val", cache_dir=cache)
    assert {path.rsplit("/", 1)[1] for path in web.asked[asked:]} == {"dataset.json"}


def test_a_fetched_url_goes_to_the_users_cache_by_default(folder: Path, tmp_path: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setenv("CXRDIST_CACHE", str(tmp_path / "mine"))
    assert stage(f"{web.url}/set").parent == tmp_path / "mine" / "shards"


def test_other_fsspec_addresses_work_too(folder: Path, cache: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe(f"/bucket/set/{path.name}", path.read_bytes())
    try:
        assert same_files(stage("memory://bucket/set", "none", cache), folder)
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_passing_network_error_is_tried_again(cache: Path, folder: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    web.failing = 2
    assert same_files(stage(f"{web.url}/set", "none", cache), folder)


def test_a_lasting_network_error_ends_in_one_line(cache: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    web.failing = 10_000
    with pytest.raises(FailedError, match="dataset.json could not be read in 3 tries") as caught:
        stage(f"{web.url}/set", "none", cache)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_is_not_taken_for_a_missing_set(cache: Path, web: Web, monkeypatch) -> None:
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    web.server_close()
    with pytest.raises(FailedError, match="dataset.json could not be read in 3 tries .*Cannot connect"):
        stage(f"{web.url}/set", "none", cache)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{web}/nothing", "nothing/dataset.json: .*is this the folder of a shard set"),
        ("{folder}/nothing", "nothing/dataset.json: .*is this the folder of a shard set"),
        ("gopher://host/set", "gopher"),
    ],
)
def test_an_address_without_a_shard_set_is_said(
    folder: Path, cache: Path, web: Web, address: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stage(address.format(web=web.url, folder=folder), "disk", cache)


def stage_in_processes(address: str, cache: Path, count: int, **environment: str) -> set[str]:
    """What `count` processes print that stage the address at the same time; all must end well."""
    command = [sys.executable, "-c", STAGE, address, str(cache)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) for _ in range(count)
    ]
    printed = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * count
    return printed


def test_many_processes_share_one_copy_and_fetch_each_file_once(folder: Path, cache: Path, web: Web) -> None:
    (copy,) = stage_in_processes(f"{web.url}/set", cache, 6)
    assert same_files(Path(copy), folder)
    fetched = [path for path in web.asked if not path.endswith("dataset.json")]
    assert sorted(fetched) == sorted(set(fetched))


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder / "cert.pem", folder / "key.pem"


def test_https_is_fetched_where_the_certificate_is_trusted_and_not_elsewhere(
    folder: Path, cache: Path, tmp_path: Path, web: Web
) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    address = f"{web.url.replace('http', 'https')}/set"
    (copy,) = stage_in_processes(address, cache, 1, SSL_CERT_FILE=str(cert))
    assert same_files(Path(copy), folder)
    code = "import shards.read.stage as s; s.time.sleep = lambda seconds: None"
    code += f"; s.stage({address!r}, 'disk', {str(cache)!r})"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "FailedError" in refused.stderr and "CERTIFICATE_VERIFY_FAILED" in refused.stderr


STORE = """
import sys
from pathlib import Path
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
import boto3
store = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
store.create_bucket(Bucket="bucket")
for path in Path(sys.argv[1]).iterdir():
    store.upload_file(str(path), "bucket", f"xrays/set/{path.name}")
print(f"http://{host}:{port}", flush=True)
sys.stdin.read()
server.stop()
"""
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def store(folder: Path) -> Iterator[str]:
    """A real S3 server on this machine that holds the set at s3://bucket/xrays/set; gives its address."""
    command = [sys.executable, "-c", STORE, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | KEYS
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
        assert server.wait(timeout=60) == 0


def test_s3_is_fetched_once_by_many_processes_and_read_like_a_folder(folder: Path, cache: Path, store: str) -> None:
    (copy,) = stage_in_processes("s3://bucket/xrays/set", cache, 3, AWS_ENDPOINT_URL=store, **KEYS)
    assert same_files(Path(copy), folder)
    code = """
import sys
import numpy as np
from shards import ShardSet
train = ShardSet("s3://bucket/xrays/set", "train", stage="disk", cache_dir=sys.argv[1])
np.save(sys.argv[2], train.images(np.arange(len(train))).numpy())
ShardSet("s3://bucket/xrays/nothing", "train")
"""
    environment = os.environ | KEYS | {"AWS_ENDPOINT_URL": store}
    read = cache / "read.npy"
    done = subprocess.run(
        [sys.executable, "-c", code, str(cache), str(read)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    train = ShardSet(folder, "train")
    assert np.array_equal(np.load(read), train.images(np.arange(len(train))).numpy())
    assert "s3://bucket/xrays/nothing/dataset.json" in done.stderr
    assert "is this the folder of a shard set" in done.stderr


def test_s3_without_its_package_says_which_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3:// needs another package.*s3fs.*pip install 'cxrdist\[s3\]'"):
        stage("s3://bucket/set", "none", cache)
