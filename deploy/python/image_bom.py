"""List what an image contains, as a CycloneDX document on standard output.

``python image_bom.py NAME VERSION`` asks the image NAME:VERSION itself: for the packages of its system and for those of
Python, in whichever folder they are. It needs a Docker engine, and nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from urllib.parse import quote

# Runs in the image. A base may bring packages of Python in other folders than that of the service, such as its pip.
ASK = """
import json, os, platform
from importlib.metadata import distributions
folders = set()
for folder, below, files in os.walk("/"):
    if folder == "/":
        below[:] = set(below) - {"dev", "proc", "sys"}
    if any(name.endswith((".dist-info", ".egg-info")) for name in below + files):
        folders.add(folder)
system = platform.freedesktop_os_release()
print(json.dumps({
    "system": (system["ID"], system["VERSION_ID"]),
    "python": platform.python_version(),
    "packages": sorted({(each.name, each.version) for each in distributions(path=sorted(folders))}),
}))
"""
# Advisories name source packages.
DEBIAN_FIELDS = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${db:Status-Status}\n"


def main() -> None:
    """Print the document of the image that the command line names."""
    parser = argparse.ArgumentParser(description="List what an image contains.")
    parser.add_argument("name", help="the name of the image")
    parser.add_argument("version", help="the version of the image, which is its tag")
    flags = parser.parse_args()
    image = f"{flags.name}:{flags.version}"
    found = json.loads(_run(image, "python", "-c", ASK))
    system, release = found["system"]
    components = [
        {"type": "operating-system", "bom-ref": "system", "name": system, "version": release},
        # The official base builds Python from source, so that its system lists no package of that name.
        _library("python", found["python"], "generic"),
        *(_library(name, version, "pypi") for name, version in found["packages"]),
    ]
    for line in sorted(set(_run(image, "dpkg-query", "--show", "--showformat", DEBIAN_FIELDS).splitlines())):
        name, version, architecture, source, status = line.split("\t")
        if status == "installed":
            qualifiers = {"arch": architecture, "distro": f"{system}-{release}", "upstream": source}
            components.append(_library(name, version, f"deb/{system}", **qualifiers))
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": "image", "name": flags.name, "version": flags.version}
        },
        "components": components,
    }
    json.dump(document, sys.stdout, indent=2)


def _library(name: str, version: str, kind: str, **qualifiers: str) -> dict[str, str]:
    # The names of PyPI's packages are compared without regard to case and to the kind of dash.
    identity = name.lower().replace("_", "-") if kind == "pypi" else name
    purl = f"pkg:{kind}/{quote(identity, safe='.-_~')}@{quote(version, safe='.-_~:')}"
    if qualifiers:
        purl += "?" + "&".join(f"{key}={quote(value, safe='.-_~:')}" for key, value in qualifiers.items())
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _run(image: str, program: str, *arguments: str) -> str:
    # As root, because its packages may be in folders that no other user may read.
    options = ("--rm", "--user", "0", "--network", "none", "--read-only", "--entrypoint", program)
    command = ["docker", "run", *options, image, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
