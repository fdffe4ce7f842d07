"""`ingress.tls_client_ca`: without a certificate of that authority nobody gets as far as a key."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest

from engine import Config
from engine.assembly.service import Service

KEY = "key-of-the-producer"
LEA = {"email": "lea@example.com"}


class Authority:
    """Signs certificates, with the openssl command."""

    def __init__(self, folder: Path, name: str) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("needs the openssl command")
        self._openssl, self._folder, self.cert = openssl, folder, folder / f"{name}.cert"
        self._key = folder / f"{name}.key"
        self._run("req", "-x509", *self._fresh(name, self._key), "-days", "2", "-out", self.cert)

    def sign(self, name: str, usage: str) -> tuple[Path, Path]:
        """(certificate, key). `usage`: serverAuth or clientAuth."""
        cert, key, request, extra = (self._folder / f"{name}.{it}" for it in ("cert", "key", "csr", "ext"))
        extra.write_text(f"extendedKeyUsage={usage}\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        self._run("req", "-new", *self._fresh(name, key), "-out", request)
        signed_by = ("-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        self._run("x509", "-req", "-in", request, *signed_by, "-extfile", extra, "-out", cert)
        return cert, key

    def _fresh(self, name: str, key: Path) -> tuple[object, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*curve, "-subj", f"/CN={name}", "-keyout", key)

    def _run(self, *arguments: object) -> None:
        subprocess.run([self._openssl, *map(str, arguments)], capture_output=True, check=True)


def trusting(authority: Authority, *certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if certificate:
        context.load_cert_chain(*certificate)
    return context


async def post(url: str, context: ssl.SSLContext, key: str = KEY) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/profiles", json=LEA, headers=headers, ssl=context) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("front", ["aiohttp", "fast"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
async def test_only_a_certificate_of_the_authority_gets_in_and_still_needs_a_key(
    tmp_path: Path, newest: ssl.TLSVersion, front: str
) -> None:
    ours, strangers = Authority(tmp_path, "ours"), Authority(tmp_path, "strangers")
    cert, key = ours.sign("engine", "serverAuth")
    tables = {
        "journal": {"kind": "memory"},
        "ingress": {
            "port": 0,
            "front": front,
            **{"tls_cert": str(cert), "tls_key": str(key), "tls_client_ca": str(ours.cert)},
            "keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}],
        },
    }
    async with Service(Config.from_dict(tables, base=tmp_path)) as service:
        url = service.urls["ingress"]
        assert url.startswith("https://")
        good = trusting(ours, *ours.sign("producer", "clientAuth"))
        refused = {
            "none": trusting(ours),
            "of another authority": trusting(ours, *strangers.sign("mallory", "clientAuth")),
            "for servers": trusting(ours, *ours.sign("server", "serverAuth")),
        }
        for context in (good, *refused.values()):
            context.maximum_version = newest
        assert await post(url, good) == 202
        assert await post(url, good, key="unknown") == 401
        for context in refused.values():
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await post(url, context)
        assert service.engine.metrics.events_accepted == 1
        assert await post(url, good) == 202
