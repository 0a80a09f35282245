#!/usr/bin/env python3
"""Tests of release.py; run by .ci/run."""

import unittest

import release

FILES = {
    "Cargo.toml": '[workspace]\nmembers = []\n\n[workspace.package]\nedition = "2024"\nversion = "1.2.3"\n\n[workspace.dependencies]\nx = { version = "9.9.9" }\n',
    "Cargo.lock": 'name = "phalanx-coordinator"\nversion = "1.2.3"\n\nname = "other"\nversion = "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3\n\nText.\n",
}


class TheRuleOfVersions(unittest.TestCase):
    def test_versions_are_written_as_the_index_and_as_cargo_write_them(self):
        self.assertEqual(release.to_cargo("1.2.3"), "1.2.3")
        self.assertEqual(release.to_cargo("1.2.3rc4"), "1.2.3-rc.4")
        self.assertEqual(release.to_cargo("1.2.3.post1"), "1.2.3+post.1")

    def test_what_is_no_version_is_refused(self):
        for text in ["1.2", "1.2.3-rc.1", "01.2.3", "1.2.3rc0", "1.2.3.post", "v1.2.3", "1.2.3rc1\n"]:
            with self.assertRaises(release.Refused, msg=text):
                release.parse(text)

    def test_metadata_in_step_with_the_tag_passes(self):
        self.assertEqual(release.check("v1.2.3", FILES), "1.2.3")

    def test_each_file_out_of_step_is_named(self):
        for name, old in [("Cargo.toml", '"1.2.3"'), ("Cargo.lock", '"1.2.3"'), ("CHANGELOG.md", "1.2.3")]:
            with self.assertRaises(release.Refused) as caught:
                release.check("v1.2.3", {**FILES, name: FILES[name].replace(old, old.replace("3", "4"), 1)})
            self.assertIn(name, str(caught.exception))

    def test_a_consumed_version_goes_forward_and_is_never_reused(self):
        taken = {"1.2.3", "1.2.3rc1", "1.2.3rc2", "1.2.3.post1"}
        self.assertEqual(release.next_free("1.2.3", "rc", taken), "1.2.3rc3")
        self.assertEqual(release.next_free("1.2.3", "post", taken), "1.2.3.post2")
        self.assertEqual(release.next_free("1.2.3rc1", "rc", {"1.2.3rc1"}), "1.2.3rc2")

    def test_an_index_that_knows_nothing_of_the_package_has_consumed_nothing(self):
        self.assertEqual(release.consumed("x", "pypi", lambda url: None), set())
        self.assertEqual(release.consumed("x", "pypi", lambda url: {"releases": {"1.0.0": []}}), {"1.0.0"})

    def test_setting_a_version_touches_ours_and_nothing_else(self):
        after = release.set_version("1.2.4rc1", FILES)
        self.assertEqual(release.workspace_version(after["Cargo.toml"]), "1.2.4-rc.1")
        self.assertIn('x = { version = "9.9.9" }', after["Cargo.toml"])
        self.assertIn('name = "other"\nversion = "1.2.3"', after["Cargo.lock"])
        self.assertEqual(release.check("v1.2.4rc1", {**after, "CHANGELOG.md": "## 1.2.4rc1\n"}), "1.2.4rc1")


if __name__ == "__main__":
    unittest.main()
