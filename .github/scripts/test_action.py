#!/usr/bin/env python3
"""Tests of the scripts of action.yml, and of the workflows in docs/github.md.

    test_action.py                 the scripts with a fake `phalanx`; with PHALANX=PROGRAM also with a real one
    test_action.py --blocks DIR    writes the files of docs/github.md (`# file: NAME`) to a directory, for a check of their schemas
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = TOP / ".github/scripts"
PHALANX = os.environ.get("PHALANX")
BLOCK = re.compile(r"^```\w+\n(?:#|//) file: (\S+)\n(.*?)^```$", re.M | re.S)


def blocks():
    """The files that docs/github.md shows, by name."""
    return dict(BLOCK.findall((TOP / "docs/github.md").read_text()))


class Runner:
    """A directory like that of a job, with the files that GitHub's runner reads after a step."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        for name in ("output", "path", "summary"):
            (self.directory / name).touch()

    def fake(self, code=0):
        program = self.bin / "phalanx"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{self.directory}/arguments"\nexit {code}\n')
        program.chmod(0o755)

    def run(self, *command, cwd=None, **env):
        env = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.directory / "output"),
            "GITHUB_PATH": str(self.directory / "path"),
            "GITHUB_STEP_SUMMARY": str(self.directory / "summary"),
            "PHALANX_STATE_DIR": str(self.directory / "state"),
            **env,
        }
        return subprocess.run(command, cwd=cwd or self.directory, env=env, capture_output=True, text=True, timeout=300)

    def text(self, name):
        return (self.directory / name).read_text()


@contextlib.contextmanager
def runner():
    with tempfile.TemporaryDirectory() as directory:
        yield Runner(directory)


class Run(unittest.TestCase):
    def test_every_line_becomes_an_argument_and_none_is_read_by_a_shell(self):
        with runner() as job:
            job.fake()
            done = job.run(
                SCRIPTS / "run",
                IN_SPEC="my spec.yaml",
                IN_INPUTS="a=1\n\nb=$(touch harm) ; two words\r\n",
                IN_ONLY="db=pg,my\n",
                IN_CELL="pg / v1",
                IN_SECRETS="KEY",
                IN_INPUTS_FILE="in.yaml",
                IN_COORDINATOR="http://c:1",
                IN_ARGUMENTS="--keep\non-failure",
                IN_REPORTS="out",
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            expected = ["run", "my spec.yaml", "--input", "a=1", "--input", "b=$(touch harm) ; two words", "--only", "db=pg,my"]
            expected += ["--cell", "pg / v1", "--secret-env", "KEY", "--inputs-file", "in.yaml", "--coordinator", "http://c:1"]
            expected += ["--keep", "on-failure", "--artifacts", "out/artifacts", "--report", "junit=out/junit.xml", "--report", "json=out/report.json"]
            expected += ["--report", "html=out/run.html"]
            self.assertEqual(job.text("arguments").splitlines(), expected)
            self.assertEqual(job.text("output"), "exit-code=0\n")
            self.assertFalse((job.directory / "harm").exists())

    def test_the_step_fails_as_the_run_does(self):
        with runner() as job:
            job.fake(code=3)
            self.assertEqual(job.run(SCRIPTS / "run", IN_SPEC="s.yaml").returncode, 3)
            self.assertEqual(job.text("output"), "exit-code=3\n")
            self.assertIn("`spec` is empty", job.run(SCRIPTS / "run", IN_SPEC="").stderr)

    @unittest.skipUnless(PHALANX, "needs PHALANX, the path of the program")
    def test_a_real_run_leaves_reports_summary_and_annotations(self):
        with runner() as job:
            (job.bin / "phalanx").symlink_to(pathlib.Path(PHALANX).resolve())
            spec = job.directory / "spec.yaml"
            spec.write_text("name: s\nstrategy: { matrix: { n: [1, 2] } }\nphases: { p: [{ run: 'test ${{ matrix.n }} = 1' }] }\n")
            done = job.run(SCRIPTS / "run", IN_SPEC="spec.yaml")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("::error file=spec.yaml,line=3", done.stdout)
            self.assertIn("FAILED", job.text("summary").upper())
            self.assertIn("<testsuite", job.text("phalanx-report/junit.xml"))
            self.assertEqual(json.loads(job.text("phalanx-report/report.json"))["outcome"], "failed")
            self.assertIn("<html", job.text("phalanx-report/run.html"))


class Install(unittest.TestCase):
    def release(self, job, damage=b""):
        """A release of one file, with its checksum."""
        name = f"phalanx-1.2.3-{os.uname().machine}-unknown-linux-musl"
        files = job.directory / "releases/v1.2.3"
        files.mkdir(parents=True)
        program = job.directory / "phalanx"
        program.write_text("#!/bin/sh\necho phalanx 1.2.3\n")
        program.chmod(0o755)
        archive = files / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(program, f"{name}/bin/phalanx")
        digest = hashlib.sha256(archive.read_bytes() + damage).hexdigest()
        (files / "SHA256SUMS").write_text(f"{digest}  {name}.tar.gz\n")
        return {"PHALANX_RELEASES": f"file://{job.directory}/releases", "RUNNER_TEMP": str(job.directory / "temp")}

    def test_a_release_is_installed_and_later_steps_find_it(self):
        with runner() as job:
            done = job.run(SCRIPTS / "install", "1.2.3", **self.release(job))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("phalanx 1.2.3", done.stdout)
            found = pathlib.Path(job.text("path").strip()) / "phalanx"
            self.assertTrue(os.access(found, os.X_OK))

    def test_what_is_not_the_release_is_refused(self):
        with runner() as job:
            done = job.run(SCRIPTS / "install", "1.2.3", **self.release(job, damage=b"x"))
            self.assertEqual(done.returncode, 2)
            self.assertIn("is not what SHA256SUMS says", done.stdout)
            self.assertEqual(job.text("path"), "")
        with runner() as job:
            done = job.run(SCRIPTS / "install", "1.2.4", **self.release(job))
            self.assertIn("is 1.2.4 a release?", done.stdout)
            self.assertIn("must be a release", job.run(SCRIPTS / "install", "newest").stdout)
            self.assertIn("no phalanx on the PATH", job.run(SCRIPTS / "install", "none").stdout)
            job.fake()
            self.assertEqual(job.run(SCRIPTS / "install", "none").returncode, 0)


class Action(unittest.TestCase):
    def test_the_scripts_read_the_inputs_that_the_action_passes(self):
        action = (TOP / "action.yml").read_text()
        passed = set(re.findall(r"^ +(IN_\w+):", action, re.M))
        self.assertEqual(passed, set(re.findall(r"IN_\w+", (SCRIPTS / "run").read_text())) - {"IN_"})
        declared = set(re.findall(r"^  ([\w-]+):$", action.split("\noutputs:")[0], re.M))
        self.assertEqual(declared, set(re.findall(r"inputs\.([\w-]+)", action)))
        page = (TOP / "docs/github.md").read_text()
        self.assertEqual([name for name in sorted(declared) if f"`{name}`" not in page], [])


class Snippets(unittest.TestCase):
    def test_there_is_a_file_for_each_system(self):
        self.assertEqual(sorted(blocks()), ["Jenkinsfile", "e2e.yml", "fan-out.yml", "gitlab-ci.yml"])

    @unittest.skipUnless(PHALANX, "needs PHALANX, the path of the program")
    def test_the_commands_run(self):
        for name in sorted(blocks()):
            with self.subTest(name), runner() as job:
                (job.bin / "phalanx").symlink_to(pathlib.Path(PHALANX).resolve())
                for tool in ("pip", "pipx"):
                    (job.bin / tool).write_text("#!/bin/sh\n")
                    (job.bin / tool).chmod(0o755)
                # Jenkins' snippet makes an environment of its own.
                (job.bin / "python3").write_text("#!/bin/sh\nmkdir -p .venv/bin && ln -s ../../bin/pip ../../bin/phalanx .venv/bin/\n")
                (job.bin / "python3").chmod(0o755)
                spec = "name: s\nstrategy: { matrix: { n: [1, 2] } }\nphases: { p: [{ run: 'true' }] }\n"
                (job.directory / "phalanx.yaml").write_text(spec)
                for script in scripts(blocks()[name]):
                    done = job.run("bash", "-e", "-c", script)
                    self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}{done.stderr}")
                if name == "fan-out.yml":
                    (job.directory / "broken.yaml").write_text("name: s\n")
                    for script in scripts(blocks()[name]):
                        if "--format github" in script:
                            done = job.run("bash", "-e", "-c", script.replace("phalanx.yaml", "broken.yaml"))
                            self.assertNotEqual(done.returncode, 0, "a plan that is refused fails the step")
                    matrix = job.text("output").removeprefix("matrix=")
                    self.assertEqual([entry["n"] for entry in json.loads(matrix)["include"]], [1, 2])
                elif name != "e2e.yml":
                    self.assertIn("<testsuite", job.text("report/junit.xml"))


def scripts(text):
    """The shell commands of a snippet: `run:` of GitHub, the list `script:` of GitLab, `sh '…'` of Jenkins."""
    found = re.findall(r"^ +(?:- )?run: (.+)$", text, re.M) + re.findall(r"^ +sh '(.+)'$", text, re.M)
    listed = re.search(r"^  script:\n((?:    - .+\n)+)", text, re.M)
    return found + (re.findall(r"- (.+)", listed[1]) if listed else [])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--blocks"]:
        for name, text in blocks().items():
            (pathlib.Path(sys.argv[2]) / name).write_text(text)
    else:
        unittest.main()
