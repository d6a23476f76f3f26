"""Certificates that no authority has signed, for servers on this machine."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 (not for `localhost`) followed by its key, in one file in PEM."""
    file = folder / "certificate.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(file))
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    made = subprocess.run(["openssl", "req", "-x509", *curve, *subject], capture_output=True, check=True)
    file.write_bytes(made.stdout + file.read_bytes())
    return file
