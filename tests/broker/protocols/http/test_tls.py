"""The API with TLS: the certificate of the node, as it is renewed, and nothing in the clear."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession

from fluffle.broker.base.errors import StartFailed
from tests.support.certificates import Authority
from tests.support.management import Api, management

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def shown(api: Api, trusting: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown."""
    host, port = api.node.addresses["management"]
    _reader, writer = await asyncio.open_connection(
        host, port, ssl=trusting, server_hostname="localhost"
    )
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_it_speaks_https_with_the_certificate_of_the_node(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "node").mkdir()
    trusting = authority.client()
    files = {"tls_cert": authority.cert_file, "tls_key": authority.key_file}
    async with management(tmp_path / "node", management_tls=True, **files) as api:
        _host, port = api.node.addresses["management"]
        async with ClientSession() as session:
            url = f"https://localhost:{port}/api/version"
            async with session.get(url, ssl=trusting) as response:
                assert response.status == 200
            with pytest.raises(ClientConnectionError):
                await session.get(f"http://localhost:{port}/api/version")
        first = await shown(api, trusting)
        authority.renew()
        assert await shown(api, trusting) != first


async def test_it_needs_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with pytest.raises(StartFailed, match="--management-tls needs a certificate"):
        async with management(tmp_path / "node", management_tls=True):
            pass
