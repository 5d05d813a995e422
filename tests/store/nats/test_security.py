"""Nodes that want to know who comes, and TLS: with the configuration that the docs have."""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import nkeys
import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from sockservice.errors import CannotStart
from sockservice.store.engine import Batch
from sockservice.store.nats import link
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import parsed
from tests.certificates import Identity
from tests.soak.clustered import read

DOCS = Path(__file__).parents[3] / "docs"


def stored(url: str) -> list[bytes]:
    """Store a line, and give what is there."""
    place = parsed(url)
    engine = JetStream(place)
    engine.open()
    engine.commit([Batch(1, "p", "l", [b"a"])])
    engine.close()
    return read(place)


def refused(url: str) -> str:
    with pytest.raises(CannotStart) as ended:
        JetStream(parsed(url)).open()
    assert "secret" not in str(ended.value)
    assert "\n" not in str(ended.value)
    return str(ended.value).partition("/LINES: ")[2]


@contextmanager
def configured(folder: Path, more: str, count: int = 1) -> Iterator[Cluster]:
    """Start nodes with this in their configuration, too."""
    made = Cluster(folder / "nodes", count)
    for node in made.nodes:
        config = node.folder / "config"
        config.write_text(config.read_text() + more)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def url(cluster: Cluster, login: str = "", more: str = "") -> str:
    found = cluster.url(options="create&max_bytes=1M" + more)
    return found.replace("nats://", f"nats://{login}@") if login else found


def test_the_configuration_of_the_docs(tmp_path: Path) -> None:
    """Three nodes, as they are described there, with other addresses and files."""
    page = (DOCS / "cluster.md").read_text().partition("## Three machines")[2]
    [text] = re.findall(r"((?:^    .*\n)+)", page.partition("and the service")[0], re.MULTILINE)[:1]
    named = re.search(r"'(nats://[^']*)'", page)
    assert named is not None
    authority = Identity(tmp_path, "ca")
    made = Cluster(tmp_path / "nodes")
    routes = [
        re.search(r"cluster \{[^}]*listen: 127.0.0.1:(\d+)", (n.folder / "config").read_text())[1]  # type: ignore[index]
        for n in made.nodes
    ]
    for number, (node, route) in enumerate(zip(made.nodes, routes, strict=True), 1):
        own = Identity(tmp_path, node.name, authority)
        config = text
        for at, port in enumerate(routes, 1):
            config = config.replace(f"10.0.0.{at}:6222", f"127.0.0.1:{port}")
        for what, instead in {
            "server_name: n1": f"server_name: n{number}",
            "0.0.0.0:4222": node.at,
            "10.0.0.1:8222": node.monitor.removeprefix("http://"),
            "0.0.0.0:6222": f"127.0.0.1:{route}",
            "/var/lib/nats": str(node.folder / "data"),
            "/etc/nats/n1.pem": str(own.certKey),
            "/etc/nats/n1.key": str(own.privateKey),
            "/etc/nats/ca.pem": str(authority.certKey),
        }.items():
            assert what in config
            config = config.replace(what, instead)
        (node.folder / "config").write_text(config)
    password = tmp_path / "password"
    password.write_text("...\n")
    place = named[1]
    for what, instead in {
        "n1,n2,n3": ",".join(node.at for node in made.nodes),
        "200G": "1M",
        "/etc/sockservice/nats": str(password),
        "/etc/nats/ca.pem": str(authority.certKey),
        "http://10.0.0.1:8222,http://10.0.0.2:8222,http://10.0.0.3:8222": ",".join(
            node.monitor for node in made.nodes
        ),
    }.items():
        assert what in place
        place = place.replace(what, instead)
    try:
        made.start()
        assert stored(place) == [b"a"]
        password.write_text("another")
        assert "authorization" in refused(place).lower()
        password.unlink()
        assert str(password) in refused(place)
    finally:
        made.stop()


def test_a_user_with_a_password(tmp_path: Path) -> None:
    account = "accounts { A { jetstream: enabled, users: [{user: u, password: 's@ secret'}] } }\n"
    with configured(tmp_path, account) as made:
        assert stored(url(made, "u:s%40%20secret")) == [b"a"]
        for wrong in ("", "u", "u:secret", "other:secret"):
            assert "the nodes do not let us in" in refused(url(made, wrong))
        file = tmp_path / "password"
        file.write_text("s@ secret\n")
        assert stored(url(made, "u", f"&password-file={file}")) == [b"a", b"a"]


def test_an_account_without_jetstream(tmp_path: Path) -> None:
    account = "accounts { A { users: [{user: u, password: secret}] } }\n"
    with configured(tmp_path, account) as made:
        assert refused(url(made, "u:secret")) == "JetStream not enabled for account"


def _token(claims: dict[str, Any], signer: Any) -> str:
    """Sign claims as `nsc` does: a JWT whose algorithm is ed25519-nkey."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims |= {"iss": signer.public_key.decode(), "iat": 1_700_000_000}
    claims["jti"] = base64.b32encode(sha256(json.dumps(claims).encode()).digest()).decode()
    head = json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode()
    text = f"{encoded(head)}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(signer.sign(text.encode()))}"


def _pair(prefix: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def test_credentials_of_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST", 2.0)
    operator, system, account, user = (
        _pair(each)
        for each in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )

    def token(whose: Any, signer: Any, kind: str, **more: Any) -> str:
        claims = {"name": kind, "sub": whose.public_key.decode()}
        return _token(claims | {"nats": {"type": kind, "version": 2, **more}}, signer)

    limits: dict[str, Any] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
    )
    stores = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    ofSystem = token(system, operator, "account", limits=limits | {"wildcards": True})
    ours = token(account, operator, "account", limits=limits | stores | {"wildcards": True})
    users = token(user, account, "user", subs=-1, data=-1, payload=-1)
    creds = tmp_path / "u.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{users}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    preloaded = "\n".join(
        f'{key.public_key.decode()}: "{signed}"'
        for key, signed in ((system, ofSystem), (account, ours))
    )
    trusted = (
        f"operator: {token(operator, operator, 'operator')}\n"
        f"system_account: {system.public_key.decode()}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n{preloaded}\n}}\n"
    )
    with configured(tmp_path, trusted) as made:
        assert stored(url(made, more=f"&creds={creds}")) == [b"a"]
        assert "the nodes do not let us in" in refused(url(made))
        assert str(tmp_path / "none") in refused(url(made, more=f"&creds={tmp_path / 'none'}"))


def test_tls_with_certificates_of_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FIRST", 1.0)
    authority, other = Identity(tmp_path, "ca"), Identity(tmp_path, "other")
    own, client = Identity(tmp_path, "n1", authority), Identity(tmp_path, "client", authority)
    stranger = Identity(tmp_path, "stranger", other)
    tls = (
        f'tls {{ cert_file: "{own.certKey}", key_file: "{own.privateKey}", '
        f'ca_file: "{authority.certKey}", verify: true }}\n'
    )
    with configured(tmp_path, tls) as made:
        ours = f"&ca={authority.certKey}&cert={client.certKey}&key={client.privateKey}"
        assert stored(url(made, more=ours)) == [b"a"]
        assert "certificate" in refused(url(made, more=f"&ca={authority.certKey}")).lower()
        assert refused(
            url(
                made,
                more=f"&ca={authority.certKey}&cert={stranger.certKey}&key={stranger.privateKey}",
            )
        )
        said = refused(url(made, more=ours.replace(str(authority.certKey), str(other.certKey))))
        assert "CERTIFICATE_VERIFY_FAILED" in said
        said = refused(url(made, more=f"&ca={tmp_path / 'none'}"))
        assert said
        # Without a word of TLS they are asked for it all the same, but not signed by who we know.
        assert "CERTIFICATE_VERIFY_FAILED" in refused(url(made))
