"""The image of a container in a real mesh: Istio's agent beside the golden image, as that image's own page says."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path

from krun_testbed import images, istio_build, tables
from krun_testbed.docker_engine import docker

PAGE = tables.ROOT / "images" / "golden" / "README.md"
# Where images of Istio's have the two.
AGENT, TEMPLATE = "usr/local/bin/pilot-agent", "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
GOLDEN = "krun/golden:dev"
APP = """\
COPY app/app.py /usr/local/bin/app
CMD ["krun", "app"]
"""


def make(*, version: str) -> str:
    """The application's image, built on the golden one and on one that has what is taken from Istio's; its name."""
    name = f"{images.LABEL}/meshed:{images.CHECKOUT}-{version[-12:]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "Dockerfile"
        file.write_text(recipe() + APP, encoding="utf-8")
        istios = _istios(Path(folder), version=version)
        docker(
            *("build", "--network", "none", "--label", f"{images.HOME}={tables.ROOT}"),
            *("--build-arg", f"ISTIO={istios}", "--file", str(file), "--tag", name, str(images.TESTS)),
            timeout=600,
        )
    return name


def recipe() -> str:
    """The page's Dockerfile that has the agent, on the golden image of this checkout."""
    blocks: list[str] = re.findall(r"```dockerfile\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "pilot-agent" in block]
    assert f"FROM {GOLDEN}\n" in found
    return found.replace(GOLDEN, images.tag("golden"))


def _istios(folder: Path, *, version: str) -> str:
    """An image with what is taken from Istio's own, which cannot be pulled here."""
    name = f"{images.LABEL}/istio:{images.CHECKOUT}-{version[-12:]}"
    if docker("image", "inspect", name, check=False).returncode == 0:
        return name
    (agent,) = istio_build.make(istio_build.AGENT, version=version)
    archive = folder / "istio.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(agent, AGENT)
        tar.add(istio_build.file(istio_build.TEMPLATE, version=version), TEMPLATE)
    docker("import", "--change", f"LABEL {images.HOME}={tables.ROOT}", str(archive), name, timeout=300)
    return name
