#!/usr/bin/env python3
"""The rule of versions, for publish.yml. A version that an index has consumed is never uploaded again: what fails after an
upload goes forward to the next `.postN` or `rcN`.

    release.py check TAG            the tag is a version, and Cargo.toml, Cargo.lock and CHANGELOG.md say the same
    release.py free VERSION INDEX   no file of that version was ever uploaded to the index (testpypi or pypi)
    release.py next VERSION INDEX rc|post   the first free candidate or fix of that version
    release.py set VERSION          writes it into Cargo.toml and Cargo.lock (of a throw-away checkout)

Versions: X.Y.Z, X.Y.ZrcN, X.Y.Z.postN (as Python's index writes them). Cargo writes the same as X.Y.Z, X.Y.Z-rc.N, X.Y.Z+post.N.
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.request

PACKAGE = "phalanx-e2e"
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
    found = {
        "Cargo.toml": workspace_version(files["Cargo.toml"]),
        "Cargo.lock": locked_version(files["Cargo.lock"]),
    }
    wrong = [f"{name} says {value}" for name, value in found.items() if value != cargo]
    if not re.search(rf"^## {re.escape(version)}\b", files["CHANGELOG.md"], re.M):
        wrong.append(f"CHANGELOG.md has no section '## {version}'")
    if wrong:
        raise Refused(f"the tag says {version} ({cargo} for Cargo), but " + "; ".join(wrong))
    return version


def workspace_version(text):
    match = re.search(r'^\[workspace\.package\]\n(?:(?!\[).*\n)*?version = "([^"]+)"', text, re.M)
    return match[1] if match else None


def locked_version(text):
    match = re.search(r'^name = "phalanx-coordinator"\nversion = "([^"]+)"', text, re.M)
    return match[1] if match else None


def set_version(version, files):
    """The files with the version written in."""
    cargo = to_cargo(version)
    toml = re.sub(r'(^\[workspace\.package\]\n(?:(?!\[).*\n)*?version = ")[^"]+', rf"\g<1>{cargo}", files["Cargo.toml"], flags=re.M)
    lock = re.sub(r'(^name = "phalanx-(?:agent|coordinator|proto|shared)"\nversion = ")[^"]+', rf"\g<1>{cargo}", files["Cargo.lock"], flags=re.M)
    return {"Cargo.toml": toml, "Cargo.lock": lock}


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Refused(f"{url} answers {error.code}: whether the version is free isn't known") from error


def main(arguments):
    read = lambda: {name: pathlib.Path(name).read_text() for name in ("Cargo.toml", "Cargo.lock", "CHANGELOG.md")}  # noqa: E731
    match arguments:
        case ["check", tag]:
            print(check(tag, read()))
        case ["free", version, index] if index in INDEXES:
            parse(version)
            if version in consumed(PACKAGE, index, fetch):
                raise Refused(f"{index} has consumed {version}; go forward to {next_free(version, 'post', consumed(PACKAGE, index, fetch))}")
        case ["next", version, index, ("rc" | "post") as kind] if index in INDEXES:
            print(next_free(version, kind, consumed(PACKAGE, index, fetch)))
        case ["set", version]:
            for name, text in set_version(version, read()).items():
                pathlib.Path(name).write_text(text)
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
