#!/usr/bin/env python3
"""The rule of versions, for publish.yml. A version that an index has consumed is never uploaded again: what fails after an
upload goes forward to the next `.postN` or `rcN`.

    release.py check TAG            the tag is a version, and all metadata says the same: Cargo.toml, Cargo.lock, client/pyproject.toml, CHANGELOG.md
    release.py free VERSION INDEX   no file of that version was ever uploaded to the index (testpypi or pypi)
    release.py next VERSION INDEX rc|post   the first free candidate or fix of that version
    release.py set VERSION          writes it into the first three (of a throw-away checkout)

Versions: X.Y.Z, X.Y.ZrcN, X.Y.Z.postN (as Python's index writes them). Cargo writes the same as X.Y.Z, X.Y.Z-rc.N, X.Y.Z+post.N.
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.request

PACKAGE = "phalanx-e2e"
CRATES = ("phalanx", "phalanx-agent", "phalanx-coordinator", "phalanx-otlp", "phalanx-proto", "phalanx-report", "phalanx-shared")
PYPROJECT = "client/pyproject.toml"
FILES = ("Cargo.toml", "Cargo.lock", PYPROJECT, "CHANGELOG.md")
INDEXES = {"testpypi": "https://test.pypi.org/pypi", "pypi": "https://pypi.org/pypi"}
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:(rc|\.post)([1-9]\d*))?")


class Refused(Exception):
    """The release can't go on; the text says why and what to do."""


def parse(version):
    """`(X.Y.Z, None | 'rc' | 'post', N)` of a version."""
    match = VERSION.fullmatch(version)
    if not match:
        raise Refused(f"{version!r} is not X.Y.Z, X.Y.ZrcN or X.Y.Z.postN")
    kind = match[4].lstrip(".") if match[4] else None
    return ".".join(match.group(1, 2, 3)), kind, int(match[5] or 0)


def to_cargo(version):
    """The same version as Cargo writes it."""
    base, kind, number = parse(version)
    return {None: base, "rc": f"{base}-rc.{number}", "post": f"{base}+post.{number}"}[kind]


def consumed(package, index, fetch):
    """All versions that the index ever took, yanked and deleted-but-reserved ones as far as it tells."""
    answer = fetch(f"{INDEXES[index]}/{package}/json")
    return set() if answer is None else set(answer["releases"])


def next_free(version, kind, taken):
    """The first `rcN` or `.postN` of the version's X.Y.Z that is not taken."""
    base, _, _ = parse(version)
    number = 1
    while (candidate := f"{base}rc{number}" if kind == "rc" else f"{base}.post{number}") in taken:
        number += 1
    return candidate


def check(tag, files):
    """The version of a tag, if all metadata is in step with it."""
    if not tag.startswith("v"):
        raise Refused(f"the tag {tag!r} doesn't start with v")
    version = tag[1:]
    cargo = to_cargo(version)
    found = [("Cargo.toml", workspace_version(files["Cargo.toml"]), cargo), (PYPROJECT, wheel_version(files[PYPROJECT]), version)]
    found += [(f"Cargo.lock for {crate}", locked_version(files["Cargo.lock"], crate), cargo) for crate in CRATES]
    wrong = [f"{name} says {value}" for name, value, wanted in found if value != wanted]
    if not re.search(rf"^## {re.escape(version)}(?=\s|$)", files["CHANGELOG.md"], re.M):
        wrong.append(f"CHANGELOG.md has no section '## {version}'")
    if wrong:
        raise Refused(f"the tag says {version} ({cargo} for Cargo), but " + "; ".join(wrong))
    return version


WORKSPACE = re.compile(r'(^\[workspace\.package\]\n(?:(?!\[).*\n)*?version = ")([^"]+)', re.M)
PROJECT = re.compile(r'(^\[project\]\n(?:(?!\[).*\n)*?version = ")([^"]+)', re.M)


def locked(crate):
    return re.compile(rf'(^name = "{crate}"\nversion = ")([^"]+)', re.M)


def stated(pattern, text):
    match = pattern.search(text)
    return match[2] if match else None


def workspace_version(text):
    return stated(WORKSPACE, text)


def wheel_version(text):
    return stated(PROJECT, text)


def locked_version(text, crate):
    return stated(locked(crate), text)


def set_version(version, files):
    """The files with the version written in."""
    cargo, lock = to_cargo(version), files["Cargo.lock"]
    for crate in CRATES:
        lock = locked(crate).sub(rf"\g<1>{cargo}", lock)
    return {
        "Cargo.toml": WORKSPACE.sub(rf"\g<1>{cargo}", files["Cargo.toml"]),
        "Cargo.lock": lock,
        PYPROJECT: PROJECT.sub(rf"\g<1>{version}", files[PYPROJECT]),
    }


def free(version, index, fetch):
    """Refuses a version that the index has consumed, and says where to go forward to: a name that no index has consumed."""
    _, kind, _ = parse(version)
    if version in consumed(PACKAGE, index, fetch):
        taken = set().union(*(consumed(PACKAGE, one, fetch) for one in INDEXES))
        raise Refused(f"{index} has consumed {version}; go forward to {next_free(version, 'rc' if kind == 'rc' else 'post', taken)}")


def fetch(url, urlopen=urllib.request.urlopen):
    """The JSON at an index's address, None where it knows nothing; any other error is no answer."""
    try:
        with urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Refused(f"{url} answers {error.code}: whether the version is free isn't known") from error


def main(arguments, root=pathlib.Path("."), fetch=fetch):
    read = lambda: {name: (root / name).read_text() for name in FILES}  # noqa: E731
    match arguments:
        case ["check", tag]:
            print(check(tag, read()))
        case ["free", version, index] if index in INDEXES:
            free(version, index, fetch)
        case ["next", version, index, ("rc" | "post") as kind] if index in INDEXES:
            print(next_free(version, kind, consumed(PACKAGE, index, fetch)))
        case ["set", version]:
            for name, text in set_version(version, read()).items():
                (root / name).write_text(text)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as refused:
        print(f"release: {refused}", file=sys.stderr)
        sys.exit(1)
