"""The certificate of `make up TLS=1`: made on this machine, for the names of this machine, trusted by whoever is given it."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=397)  # the longest that clients accept
RENEWED_BEFORE = timedelta(days=30)


def certificate_for(directory: Path, names: Collection[str], *, now: datetime | None = None) -> tuple[Path, Path]:
    """The certificate and its key, for these names and addresses; made anew where it does not fit or will end soon."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    moment = now or datetime.now(UTC)
    if not _fits(certificate, key, names, moment):
        _make(certificate, key, names, moment)
    return certificate, key


def _entries(names: Collection[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in sorted(set(names)):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name.strip("[]"))))
        except ValueError:
            if name.isascii() and not name.startswith((".", "*")):
                found.append(x509.DNSName(name))
    return found


def _fits(certificate: Path, key: Path, names: Collection[str], now: datetime) -> bool:
    try:
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
        told = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    lasts = made.not_valid_before_utc <= now and made.not_valid_after_utc > now + RENEWED_BEFORE
    return key.is_file() and lasts and set(_entries(names)) <= set(told)


def _make(certificate: Path, key: Path, names: Collection[str], now: datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hotpatch Portal on this machine")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(_entries(names)), critical=False)
        # Whoever trusts it trusts this one server: it can sign no other certificate.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    made = builder.sign(private, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8
    _write(key, private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), mode=0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).chmod(mode)
    Path(name).replace(path)
