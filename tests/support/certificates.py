"""An authority of our own: certificates for one test run."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """Signs for `localhost` and for clients; keeps everything in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.cert_file = folder / "cert.pem"
        self.key_file = folder / "key.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.renew()

    def renew(self) -> None:
        """Give the server another certificate, and another key."""
        issued = self._ca.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(self.key_file)
        self.cert_file.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def client(self, common_name: str | None = None, *names: str) -> ssl.SSLContext:
        """A client that trusts us, and shows a certificate if it has a name."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if common_name is not None:
            issued = self._ca.issue_cert(*(names or (common_name,)), common_name=common_name)
            issued.configure_cert(context)
        return context

    def write_client(self, common_name: str, folder: Path) -> tuple[Path, Path]:
        """The files of a client's certificate and key."""
        issued = self._ca.issue_cert(common_name, common_name=common_name)
        cert, key = folder / f"{common_name}.pem", folder / f"{common_name}.key"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return cert, key
