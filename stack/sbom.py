"""Prints a CycloneDX 1.6 bill of materials of what is installed here: Python's packages and Debian's.

Needs nothing but Python: `make sbom` hands it to the Python of each image on standard input.
"""

import importlib.metadata
import json
import subprocess
import sys
from platform import freedesktop_os_release
from urllib.parse import quote

DEBIAN_FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def python_packages():
    """Yield a component for each installed Python package; of two with a name the one that is imported."""
    seen = set()
    for package in importlib.metadata.distributions():
        name, version = package.metadata["Name"], package.version
        if name is None or name.lower() in seen:
            continue
        seen.add(name.lower())
        normal = name.lower().replace("_", "-").replace(".", "-")
        yield component(name, version, f"pkg:pypi/{normal}@{quote(version, safe='')}")


def debian_packages(release):
    """Yield a component for each installed Debian package of a release, as /etc/os-release describes it."""
    listed = subprocess.check_output(["dpkg-query", "--show", "-f", DEBIAN_FIELDS], text=True)
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        origin = f"?arch={architecture}&distro={release['ID']}-{release['VERSION_ID']}"
        yield component(name, version, f"pkg:deb/{release['ID']}/{name}@{quote(version, safe='')}{origin}")


def component(name, version, purl):
    """Return a library's entry; databases of faults know it by its purl (package-url/purl-spec)."""
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def main(subject, system):
    """Print the bill of `subject`, an image or environment; `system` 'debian' takes in Debian's packages."""
    components = [*python_packages()]
    if system == "debian":
        components += debian_packages(freedesktop_os_release())
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": subject, "bom-ref": subject}},
        "components": sorted(components, key=lambda each: each["purl"]),
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


main(*sys.argv[1:])
