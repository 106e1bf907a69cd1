"""Writes docs/licences.md, the licence of every pinned package: `python docs/list_licences.py`.

It reads the packages' own metadata: of the environment it runs in, and of those beside it that
`make setup-beam`, `setup-tpu` and `setup-cuda` made. Nothing is looked up elsewhere.
"""

import re
import sys
from collections import defaultdict
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/licences.md"

LOCKS = {
    "core": "what a run needs (`make setup`)",
    "huggingface": "added by the `huggingface` extra",
    "harness": "added by the `harness` extra",
    "beam": "the `beam` extra, an environment of its own",
    "tpu": "added by the `tpu` extra",
    "cuda": "added by the `cuda` extra",
    "dev": "added for tests and checks",
}
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^ ;\n]+)")
_RESTRICTED = re.compile(r"GPL|MPL|EUPL|CDDL|EPL|Proprietary|Terms of Service", re.IGNORECASE)

# What metadata writes in words, as SPDX does.
_SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "isc license": "ISC",
    "mit license": "MIT",
    "the mit license (mit)": "MIT",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}
# Where metadata says nothing, or not enough.
_KNOWN = {
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "uvloop": "Apache-2.0 OR MIT",
}
# Every package that asks for more than its notice to be kept, and what that means here.
REMARKS = {
    "certifi": "the list of certificate authorities, which we do not change",
    "chardet": "used as a library by the evaluation harness alone, and can be replaced",
    "hypothesis": "for tests alone",
    "libtpu": "Google's compiler and runtime for TPUs, under its terms; only for TPUs",
    "tqdm": "progress bars of other packages, which we do not change",
}
_NVIDIA = "NVIDIA's libraries, under its terms (redistribution is limited); only for its GPUs"

_INTRO = """# Licences of what isoflop installs

isoflop is under the [Apache License 2.0](../LICENSE). Below is every package of the lock files in
requirements/, with the licence that the package itself states. Written by
`python docs/list_licences.py`; a test compares the names and versions with the lock files.

Extras without a lock file: `tensorflow` (Apache-2.0), `datasets` (Apache-2.0, pinned in
harness.txt).

## What asks for more than a notice

Only these. None of it is copied into isoflop, and no copyleft licence reaches code of ours:
packages are installed beside it and imported.

"""
_BUNDLED = """
The wheels of numpy, scipy and scikit-learn carry the Fortran or OpenMP runtime of GCC
(GPL-3.0-or-later WITH GCC-exception-3.1, which lets programs use it under any licence).
"""


def pinned() -> dict[str, dict[str, list[str]]]:
    """Lock file -> package -> its versions, more than one where they differ by Python."""
    locks: dict[str, dict[str, list[str]]] = {}
    for lock in LOCKS:
        found = defaultdict(list)
        for line in (ROOT / f"requirements/{lock}.txt").read_text().splitlines():
            if match := _PIN.match(line):
                found[match[1]].append(match[2])
        locks[lock] = dict(found)
    return locks


def installed() -> dict[str, Distribution]:
    """Package -> what is installed of it, this environment's before those beside it."""
    beside = sorted(map(str, ROOT.glob(".venv-*/lib/python3.*/site-packages")))
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=[*sys.path, *beside]):
        found.setdefault(_normal(distribution.metadata["Name"] or ""), distribution)
    return found


def licence_of(distribution: Distribution) -> str:
    """The licence that a package states, as SPDX writes it where that is plain; "" if none."""
    metadata = distribution.metadata
    name = _normal(metadata["Name"])
    if name in _KNOWN:
        return _KNOWN[name]
    if expressions := metadata.get_all("License-Expression"):
        return expressions[0]
    text = (metadata.get_all("License") or [""])[0].strip()
    classifiers = [
        classifier.rpartition(" :: ")[2].partition(" (")[0]
        for classifier in metadata.get_all("Classifier") or ()
        if classifier.startswith("License ::") and classifier != "License :: OSI Approved"
    ]
    is_name = 0 < len(text) < 50 and "\n" not in text
    stated: list[str] = [text] if is_name else classifiers or text.splitlines()[:1]
    return " OR ".join(dict.fromkeys(_SPDX.get(one.strip().lower(), one.strip()) for one in stated))


def remark_of(name: str) -> str:
    """What a restricted licence means here. Raises SystemExit where nobody has looked yet."""
    if name.startswith("nvidia-"):
        return _NVIDIA
    if name not in REMARKS:
        raise SystemExit(f"{name}: asks for more than a notice: look, and write a remark")
    return REMARKS[name]


def is_restricted(licence: str) -> bool:
    """Whether it is copyleft, weak or strong, or proprietary."""
    return _RESTRICTED.search(licence) is not None


def page() -> str:
    """The text of docs/licences.md.

    Raises:
      SystemExit: a package is not installed, states no licence, or one that nobody has looked at.
    """
    have, sections = installed(), []
    # Licence and remark -> the packages it is said of.
    restricted: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for lock, packages in pinned().items():
        rows = [
            f"\n## {lock}.txt\n\n{LOCKS[lock].capitalize()}.\n",
            "| package | version | licence |",
        ]
        rows.append("|---|---|---|")
        for name, versions in packages.items():
            if _normal(name) not in have:
                raise SystemExit(f"{name} ({lock}.txt): not installed here: make setup-dev, …")
            licence = licence_of(have[_normal(name)])
            if not licence:
                raise SystemExit(f"{name}: states no licence: look, and write it into _KNOWN")
            rows.append(f"| {name} | {', '.join(versions)} | {licence} |")
            if is_restricted(licence):
                restricted[licence, remark_of(name)][f"{name} ({lock})"] = None
        sections.append("\n".join(rows) + "\n")
    lines = [f"| {', '.join(names)} | {' | '.join(said)} |" for said, names in restricted.items()]
    table = "\n".join(["| packages | licence | here |", "|---|---|---|", *lines])
    return f"{_INTRO}{table}\n{_BUNDLED}{''.join(sections)}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
