#!/usr/bin/env python3
"""Tests of package: an archive that the action installs, and a Debian package that installs into an empty root. Needs PHALANX."""

import gzip
import hashlib
import os
import pathlib
import subprocess
import tarfile
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent
PHALANX = os.environ.get("PHALANX")
MACHINE = os.uname().machine
TARGET = f"{MACHINE}-unknown-linux-musl"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(MACHINE)


def call(*command, **env):
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@unittest.skipUnless(PHALANX, "needs PHALANX, the path of the program")
@unittest.skipUnless(ARCHITECTURE, "needs a machine that there are packages for")
class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.directory = pathlib.Path(cls.temporary.name)
        cls.sums = call(SCRIPTS / "package", PHALANX, TARGET, "1.2.3rc1", str(cls.directory / "dist"))
        cls.deb = cls.directory / f"dist/phalanx_1.2.3~rc1_{ARCHITECTURE}.deb"

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_the_sums_are_those_of_the_files(self):
        lines = [line.split("  ") for line in self.sums.splitlines()]
        self.assertEqual(len(lines), 2)
        for digest, name in lines:
            self.assertEqual(hashlib.sha256((self.directory / "dist" / name).read_bytes()).hexdigest(), digest)

    def test_the_action_installs_the_archive(self):
        release = self.directory / "releases/v1.2.3rc1"
        release.mkdir(parents=True)
        for file in (self.directory / "dist").iterdir():
            (release / file.name).symlink_to(file)
        (release / "SHA256SUMS").write_text(self.sums)
        path = self.directory / "path"
        said = call(
            SCRIPTS / "install",
            "1.2.3rc1",
            PHALANX_RELEASES=f"file://{self.directory}/releases",
            RUNNER_TEMP=str(self.directory / "temp"),
            GITHUB_PATH=str(path),
        )
        self.assertIn("phalanx ", said)
        self.assertTrue((pathlib.Path(path.read_text().strip()) / "phalanx").exists())

    def test_the_archive_has_man_pages_and_completions(self):
        name = f"phalanx-1.2.3rc1-{TARGET}"
        with tarfile.open(self.directory / f"dist/{name}.tar.gz") as tar:
            names = {member.name.removeprefix(f"{name}/") for member in tar}
            page = tar.extractfile(f"{name}/share/man/man1/phalanx-run.1").read().decode()
        self.assertIn(".TH", page)
        self.assertIn("matrix", page)
        expected = ["bin/phalanx", "share/man/man1/phalanx.1", "share/man/man1/phalanx-self-check.1", "LICENSE-MIT"]
        expected += ["share/bash-completion/completions/phalanx", "share/zsh/vendor-completions/_phalanx"]
        expected += ["share/fish/vendor_completions.d/phalanx.fish", "systemd/phalanx-agent.service"]
        self.assertEqual([name for name in expected if name not in names], [])
        # A hidden command has no page.
        self.assertNotIn("share/man/man1/phalanx-docs.1", names)

    def test_the_same_program_gives_the_same_files(self):
        again = call(SCRIPTS / "package", PHALANX, TARGET, "1.2.3rc1", str(self.directory / "again"))
        self.assertEqual(again, self.sums)

    def test_the_package_installs_and_goes_again(self):
        root = self.directory / "root"
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/updates").mkdir()
        (root / "var/lib/dpkg/status").touch()
        # A program that isn't static depends on the C library, which an empty root doesn't have.
        dpkg = ["dpkg", f"--root={root}", "--force-depends", "--force-not-root", "--force-bad-path", f"--log={root}/log"]
        call(*dpkg, "--install", str(self.deb))
        said = call(str(root / "usr/bin/phalanx"), "--version")
        self.assertIn("phalanx ", said)
        self.assertIn("install ok installed", call("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-s", "phalanx"))
        page = gzip.decompress((root / "usr/share/man/man1/phalanx-init.1.gz").read_bytes()).decode()
        self.assertIn("from\\-compose", page)
        unit = (root / "usr/lib/systemd/system/phalanx-agent.service").read_text()
        self.assertIn("ExecStart=/usr/bin/phalanx agent", unit)
        call("bash", "-n", str(root / "usr/share/bash-completion/completions/phalanx"))
        call(*dpkg, "--purge", "phalanx")
        self.assertFalse((root / "usr/bin/phalanx").exists())


if __name__ == "__main__":
    unittest.main()
