"""Content credentials, with a certificate chain made for the test."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from kinema.errors import ServeError
from kinema.serve.signing import Signer
from kinema.video import Video

c2pa = pytest.importorskip("c2pa")
x509 = pytest.importorskip("cryptography.x509")


def chain(folder):
    """PEM files of a leaf with its root, and of the leaf's key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def certificate(name, key, issuer, issuer_key, is_root):
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                *("encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
        )
        if not is_root:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("Root", root_key, None, root_key, True)
    leaf = certificate("Leaf", leaf_key, root.subject, root_key, False)
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "chain.pem", folder / "key.pem"


def test_a_signed_video_states_that_it_was_generated_and_plays_as_before(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)
    path = Video(frames, 8).save(tmp_path / "clip.mp4")
    before = Video.read(path).frames
    Signer.of_files(*chain(tmp_path)).sign(path, title="video_1", is_edited=False)
    np.testing.assert_array_equal(Video.read(path).frames, before)

    with c2pa.Reader(str(path)) as reader:
        found = json.loads(reader.json())
    assert found["validation_state"] in ("Valid", "Trusted")
    assert "trainedAlgorithmicMedia" in json.dumps(found)

    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with c2pa.Reader(str(path)) as reader:
        assert json.loads(reader.json())["validation_state"] == "Invalid"


def test_a_missing_certificate_and_a_wrong_key_are_one_line(tmp_path):
    with pytest.raises(ServeError, match="cannot read"):
        Signer.of_files(tmp_path / "no.pem", tmp_path / "no.pem")
    certificates, _ = chain(tmp_path)
    path = Video(np.zeros((2, 64, 64, 3), np.uint8), 8).save(tmp_path / "clip.mp4")
    with pytest.raises(ServeError, match="cannot sign"):
        Signer(certificates.read_text(), "no key").sign(path, title="x", is_edited=False)
