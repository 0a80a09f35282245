#!/usr/bin/env python3
"""Draws what a command prints on a terminal as an SVG picture for the docs.

    picture.py OUTPUT.svg [--title TEXT] [--last LINES] -- COMMAND …

Knows the colours that `phalanx --color always` uses; other control sequences are left out. Times and ids are drawn as printed, so a
picture differs from run to run: it is redrawn by .github/workflows/pictures.yml, not compared in the gate.
"""
import argparse, html, re, subprocess, sys

COLOURS = {"31": "#e05561", "32": "#8cc265", "33": "#d18f52", "34": "#4aa5f0", "35": "#c162de", "36": "#42b3c2", "90": "#7f8797"}
WIDTH, HEIGHT, MARGIN, TITLE = 8.4, 18, 14, 30


def spans(line):
    """A line's pieces, each with its style: (text, colour or None, bold, dim)."""
    made, colour, bold, dim, at = [], None, False, False, 0
    for match in re.finditer(r"\x1b\[([0-9;]*)([A-Za-z])", line):
        if match.start() > at:
            made.append((line[at:match.start()], colour, bold, dim))
        at = match.end()
        for code in match.group(1).split(";") if match.group(2) == "m" else []:
            if code in ("", "0"):
                colour, bold, dim = None, False, False
            elif code == "1":
                bold = True
            elif code == "2":
                dim = True
            elif code in COLOURS:
                colour = COLOURS[code]
    if at < len(line):
        made.append((line[at:], colour, bold, dim))
    return made


def draw(text, title):
    lines = [spans(line.expandtabs(8)) for line in text.rstrip("\n").split("\n")]
    columns = max([len(title) + 8, *(sum(len(s[0]) for s in line) for line in lines)])
    width, height = columns * WIDTH + 2 * MARGIN, TITLE + len(lines) * HEIGHT + MARGIN
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{html.escape(title)}">',
           f'<rect width="{width:.0f}" height="{height}" rx="6" fill="#23272e"/>',
           f'<text x="{MARGIN}" y="20" font-family="monospace" font-size="13" fill="#7f8797">{html.escape(title)}</text>',
           '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14" fill="#d7dae0" xml:space="preserve">']
    for number, line in enumerate(lines):
        column, pieces = 0, []
        for piece, colour, bold, dim in line:
            style = "".join([f' fill="{colour}"' if colour else "", ' font-weight="bold"' if bold else "", ' fill-opacity="0.6"' if dim else ""])
            # Each piece has its own place and width: a font of another width doesn't shift the columns.
            pieces.append(f'<tspan x="{MARGIN + column * WIDTH:.1f}" textLength="{len(piece) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"{style}>{html.escape(piece)}</tspan>')
            column += len(piece)
        out.append(f'<text y="{TITLE + number * HEIGHT + 13}">{"".join(pieces)}</text>')
    return "\n".join([*out, "</g>", "</svg>", ""])


def printed(command):
    """What a command prints as its answer; progress and warnings are no part of a picture, and a command that failed isn't drawn."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"picture: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output")
    arguments.add_argument("--title")
    arguments.add_argument("--last", type=int, default=0)
    arguments.add_argument("command", nargs="+")
    given = arguments.parse_args()
    lines = printed(given.command).rstrip("\n").split("\n")
    with open(given.output, "w", encoding="utf-8") as file:
        file.write(draw("\n".join(lines[-given.last :]), given.title or "$ " + " ".join(given.command)))


if __name__ == "__main__":
    main()
