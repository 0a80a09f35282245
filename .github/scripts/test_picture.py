#!/usr/bin/env python3
"""Tests of picture.py; run by .ci/run."""

import unittest
import xml.etree.ElementTree as tree

import picture

SVG = "{http://www.w3.org/2000/svg}"


class Pictures(unittest.TestCase):
    def test_styles_end_where_they_are_reset(self):
        self.assertEqual(picture.spans("a\x1b[1;32mb\x1b[0mc\x1b[2md"), [("a", None, False, False), ("b", "#8cc265", True, False), ("c", None, False, False), ("d", None, False, True)])

    def test_other_control_sequences_are_left_out(self):
        self.assertEqual(picture.spans("\x1b[2Ka\x1b[3Cb"), [("a", None, False, False), ("b", None, False, False)])

    def test_a_picture_is_well_formed_and_holds_each_line_once(self):
        drawn = tree.fromstring(picture.draw("a < b & c\n\x1b[31mfailed\x1b[0m \"x\"\n", "phalanx run"))
        lines = ["".join(line.itertext()) for line in drawn.iter(f"{SVG}text")]
        self.assertEqual(lines, ["phalanx run", "a < b & c", 'failed "x"'])

    def test_pieces_stand_one_after_the_other(self):
        drawn = tree.fromstring(picture.draw("ab\x1b[32mcd", "t"))
        places = [float(piece.get("x")) for piece in drawn.iter(f"{SVG}tspan")]
        self.assertEqual(places, [picture.MARGIN, round(picture.MARGIN + 2 * picture.WIDTH, 1)])


class Commands(unittest.TestCase):
    def test_only_the_answer_is_drawn(self):
        self.assertEqual(picture.printed(["sh", "-c", "echo answer; echo warning >&2"]), "answer\n")

    def test_a_command_that_failed_is_not_drawn(self):
        with self.assertRaises(SystemExit) as caught:
            picture.printed(["sh", "-c", "echo half; echo why >&2; exit 3"])
        self.assertIn("ended with 3:\nhalf\nwhy", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
