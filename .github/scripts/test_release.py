#!/usr/bin/env python3
"""Tests of release.py; run by .ci/run."""

import contextlib
import io
import json
import pathlib
import tempfile
import unittest
import urllib.error

import release

LOCK = "".join(f'name = "{crate}"\nversion = "1.2.3"\n\n' for crate in release.CRATES) + 'name = "other"\nversion = "1.2.3"\n'
FILES = {
    "Cargo.toml": '[workspace]\nmembers = []\n\n[workspace.package]\nedition = "2024"\nversion = "1.2.3"\n\n[workspace.dependencies]\nx = { version = "9.9.9" }\n',
    "Cargo.lock": LOCK,
    release.PYPROJECT: '[build-system]\nrequires = ["x"]\n\n[project]\nname = "phalanx-e2e"\nversion = "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3\n\nText.\n",
}


def index(testpypi=(), pypi=()):
    """A fetch from indexes that have consumed these versions."""
    known = {release.INDEXES["testpypi"]: testpypi, release.INDEXES["pypi"]: pypi}
    return lambda url: next({"releases": {v: [] for v in versions}} if versions else None for base, versions in known.items() if url == f"{base}/{release.PACKAGE}/json")


def refused(test, call, *arguments):
    with test.assertRaises(release.Refused, msg=str(arguments)) as caught:
        call(*arguments)
    return str(caught.exception)


class TheRuleOfVersions(unittest.TestCase):
    def test_versions_are_written_as_the_index_and_as_cargo_write_them(self):
        self.assertEqual(release.to_cargo("1.2.3"), "1.2.3")
        self.assertEqual(release.to_cargo("1.2.3rc4"), "1.2.3-rc.4")
        self.assertEqual(release.to_cargo("1.2.3.post1"), "1.2.3+post.1")

    def test_what_is_no_version_is_refused(self):
        for text in ["1.2", "1.2.3-rc.1", "01.2.3", "1.2.3rc0", "1.2.3.post", "v1.2.3", "1.2.3rc1\n"]:
            refused(self, release.parse, text)

    def test_metadata_in_step_with_the_tag_passes(self):
        self.assertEqual(release.check("v1.2.3", FILES), "1.2.3")

    def test_a_tag_starts_with_v(self):
        self.assertIn("start with v", refused(self, release.check, "1.2.3", FILES))

    def test_each_file_out_of_step_is_named(self):
        cases = [("Cargo.toml", '"1.2.3"', "Cargo.toml"), (release.PYPROJECT, '"1.2.3"', release.PYPROJECT), ("CHANGELOG.md", "1.2.3", "CHANGELOG.md")]
        cases += [("Cargo.lock", f'"{crate}"\nversion = "1.2.3"', crate) for crate in release.CRATES]
        for name, old, named in cases:
            said = refused(self, release.check, "v1.2.3", {**FILES, name: FILES[name].replace(old, old.replace("1.2.3", "1.2.4"), 1)})
            self.assertIn(named, said)

    def test_a_section_of_a_later_fix_is_not_this_versions(self):
        self.assertIn("no section", refused(self, release.check, "v1.2.3", {**FILES, "CHANGELOG.md": "## 1.2.3.post1\n"}))

    def test_a_consumed_version_goes_forward_and_is_never_reused(self):
        taken = {"1.2.3", "1.2.3rc1", "1.2.3rc2", "1.2.3.post1"}
        self.assertEqual(release.next_free("1.2.3", "rc", taken), "1.2.3rc3")
        self.assertEqual(release.next_free("1.2.3", "post", taken), "1.2.3.post2")
        self.assertEqual(release.next_free("1.2.3rc1", "rc", {"1.2.3rc1"}), "1.2.3rc2")

    def test_a_version_that_either_index_consumed_is_refused_there_with_a_name_that_is_free_on_both(self):
        fetch = index(testpypi=["1.2.3", "1.2.3rc1", "1.2.3rc2"], pypi=["1.2.3.post1"])
        self.assertIn("go forward to 1.2.3.post2", refused(self, release.free, "1.2.3", "testpypi", fetch))
        self.assertIn("go forward to 1.2.3rc3", refused(self, release.free, "1.2.3rc1", "testpypi", fetch))
        self.assertIsNone(release.free("1.2.3", "pypi", fetch))

    def test_an_index_that_knows_nothing_of_the_package_has_consumed_nothing(self):
        self.assertEqual(release.consumed("x", "pypi", lambda url: None), set())
        self.assertEqual(release.consumed("x", "pypi", lambda url: {"releases": {"1.0.0": []}}), {"1.0.0"})

    def test_an_index_that_does_not_answer_has_not_said_that_a_version_is_free(self):
        def answers(code):
            def urlopen(url, timeout):
                raise urllib.error.HTTPError(url, code, "", None, None)
            return urlopen
        self.assertIsNone(release.fetch("http://x/json", answers(404)))
        self.assertIn("isn't known", refused(self, release.fetch, "http://x/json", answers(503)))
        self.assertEqual(release.fetch("http://x/json", lambda url, timeout: io.StringIO(json.dumps({"releases": {}}))), {"releases": {}})

    def test_setting_a_version_touches_ours_and_nothing_else(self):
        for version, cargo in [("1.2.4rc1", "1.2.4-rc.1"), ("1.2.3.post1", "1.2.3+post.1")]:
            after = release.set_version(version, FILES)
            self.assertEqual(release.workspace_version(after["Cargo.toml"]), cargo)
            self.assertEqual(release.wheel_version(after[release.PYPROJECT]), version)
            self.assertIn('x = { version = "9.9.9" }', after["Cargo.toml"])
            self.assertIn('name = "other"\nversion = "1.2.3"', after["Cargo.lock"])
            self.assertEqual(release.check(f"v{version}", {**after, "CHANGELOG.md": f"## {version}\n"}), version)

    def test_the_command_reads_and_writes_the_files_of_a_checkout(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "client").mkdir()
            for name, text in FILES.items():
                (root / name).write_text(text)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                self.assertEqual(release.main(["check", "v1.2.3"], root), 0)
                self.assertEqual(release.main(["next", "1.2.3", "pypi", "rc"], root, index(pypi=["1.2.3rc1"])), 0)
                self.assertEqual(release.main(["set", "1.2.3rc2"], root), 0)
                self.assertEqual(release.main(["free", "1.2.3rc2", "pypi"], root, index(pypi=["1.2.3rc1"])), 0)
            self.assertEqual(said.getvalue(), "1.2.3\n1.2.3rc2\n")
            self.assertIn("1.2.3rc2", refused(self, release.main, ["check", "v1.2.3"], root))
            refused(self, release.main, ["free", "1.2.3", "pypi"], root, index(pypi=["1.2.3"]))
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(release.main(["free", "1.2.3", "elsewhere"]), 2)

    def test_this_checkout_is_in_step(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        files = {name: (root / name).read_text() for name in release.FILES}
        version = release.wheel_version(files[release.PYPROJECT])
        self.assertEqual(release.check(f"v{version}", {**files, "CHANGELOG.md": f"## {version}\n"}), version)


if __name__ == "__main__":
    unittest.main()
