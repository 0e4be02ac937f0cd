"""Content credentials (C2PA) of results, signed with the operator's certificate."""

import json
from dataclasses import dataclass
from pathlib import Path

from kinema.errors import ServeError
from kinema.generation.output.provenance import package_version

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True)
class Signer:
    """Signs video files. `certificates` is a PEM chain, leaf first; `key` is PKCS#8."""

    certificates: str
    key: str

    @classmethod
    def of_files(cls, certificates: Path, key: Path) -> "Signer":
        """The signer of two PEM files. Raises `ServeError` if one is unreadable or c2pa is not installed."""
        try:
            import c2pa  # noqa: F401
        except ImportError as error:
            raise ServeError(
                f"signing needs c2pa-python ({error}): pip install 'kinema[provenance]'"
            ) from error
        try:
            return cls(certificates.read_text(), key.read_text())
        except OSError as error:
            raise ServeError(f"cannot read {error.filename}: {error.strerror}") from None

    def sign(self, video: Path, *, title: str, is_edited: bool) -> None:
        """Add a signed manifest to a complete .mp4 file, in place. Raises `ServeError`."""
        import c2pa

        action = {"action": "c2pa.edited" if is_edited else "c2pa.created", "digitalSourceType": GENERATED}
        manifest = {
            "claim_generator_info": [{"name": "Kinema", "version": package_version()}],
            "title": title,
            "format": "video/mp4",
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        signed = video.with_name(f"signed-{video.name}")
        info = c2pa.C2paSignerInfo(
            alg=c2pa.C2paSigningAlg.ES256,
            sign_cert=self.certificates.encode(),
            private_key=self.key.encode(),
            ta_url=None,
        )
        try:
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
                builder.sign_file(str(video), str(signed), signer)
        except c2pa.C2paError as error:
            signed.unlink(missing_ok=True)
            raise ServeError(f"the certificate cannot sign: {error}") from None
        signed.replace(video)
