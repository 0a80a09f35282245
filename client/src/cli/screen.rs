//! Draws frames on a terminal: lasting lines scroll up, the frame stays below them. A frame is sent in one write, as a
//! synchronized update, and clears only what changed its place, so nothing flickers.
//!
//! After a resize, the whole screen is redrawn. A smaller terminal wraps lines and pushes the top of a frame out of
//! sight, a larger one brings it back, so the position of the old frame is unknown.

use console::{Term, measure_text_width, strip_ansi_codes};
use phalanx_report::live::Size;
use std::collections::VecDeque;
use std::io::Write;

/// Number of lasting lines that a resize redraws; higher screens are rare.
const KEPT: usize = 200;

/// The contents of the screen: lasting lines, and the frame below them.
#[derive(Debug, Default)]
pub struct Screen {
    /// The last frame; a resized terminal wraps its lines, which moves the cursor.
    drawn: Vec<String>,
    /// The newest lasting lines.
    lasting: VecDeque<String>,
    /// Terminal size at the last draw.
    size: Option<Size>,
}

impl Screen {
    /// Returns the current columns and rows, 80 × 24 if the terminal doesn't report them.
    pub fn size() -> Size {
        let (height, width) = Term::stderr().size_checked().unwrap_or((24, 80));
        Size {
            width: usize::from(width).max(1),
            height: usize::from(height).max(1),
        }
    }

    /// Writes the lasting lines and the frame below them.
    pub fn draw(
        &mut self,
        lasting: &[String],
        frame: &[String],
        size: Size,
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        let text = self.update(lasting, frame, size);
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Returns the bytes of an update.
    fn update(&mut self, lasting: &[String], frame: &[String], size: Size) -> String {
        let resized = self.size.is_some_and(|known| known != size);
        let most = size.height.saturating_sub(1);
        let mut text = String::from("\x1b[?2026h\r");
        let mut again = Vec::new();
        if resized {
            text += "\x1b[H";
            let mut room = most.saturating_sub(rows(frame, size.width) + rows(lasting, size.width));
            for line in self.lasting.iter().rev() {
                let Some(left) = room.checked_sub(height(line, size.width)) else {
                    break;
                };
                room = left;
                again.push(line.clone());
            }
            again.reverse();
        } else {
            let up = rows(&self.drawn, size.width).min(most);
            if up > 0 {
                text += &format!("\x1b[{up}A");
            }
        }
        for line in again.iter().chain(lasting).chain(frame) {
            text += line;
            text += "\x1b[K\n";
        }
        text += "\x1b[J\x1b[?2026l";
        self.lasting.extend(lasting.iter().cloned());
        let older = self.lasting.len().saturating_sub(KEPT);
        self.lasting.drain(..older);
        self.drawn = frame.to_vec();
        self.size = Some(size);
        text
    }
}

/// Returns the number of rows that lines take on a terminal of that width.
fn rows<'l>(lines: impl IntoIterator<Item = &'l String>, width: usize) -> usize {
    lines.into_iter().map(|line| height(line, width)).sum()
}

/// Returns the number of rows of a line. A character of two columns moves to the next row if only one column is left.
fn height(line: &str, width: usize) -> usize {
    let (mut rows, mut column) = (1, 0);
    let mut utf8 = [0; 4];
    for c in strip_ansi_codes(line).chars() {
        let columns = measure_text_width(c.encode_utf8(&mut utf8));
        if column + columns > width {
            rows += 1;
            column = 0;
        }
        column += columns;
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const SIZE: Size = Size {
        width: 10,
        height: 5,
    };

    #[test]
    fn a_frame_replaces_the_one_before_and_lasting_lines_stay_above() {
        let mut screen = Screen::default();
        let frame = |text: &str| vec![text.to_owned(), text.to_owned()];
        assert!(!screen.update(&[], &frame("a"), SIZE).contains('A'));
        let second = screen.update(&["kept".to_owned()], &frame("b"), SIZE);
        assert_eq!(
            second,
            "\x1b[?2026h\r\x1b[2Akept\x1b[K\nb\x1b[K\nb\x1b[K\n\x1b[J\x1b[?2026l"
        );
    }

    #[test]
    fn wide_characters_wrap_as_a_whole() {
        assert_eq!(height("123456789", 4), 3);
        assert_eq!(height("語語語語語", 5), 3);
        assert_eq!(height("\x1b[31m語\x1b[0m", 2), 1);
        assert_eq!(height("", 4), 1);
    }

    /// A terminal that wraps and unwraps lines when its size changes, and keeps what scrolled out, as tmux does.
    struct Terminal {
        size: Size,
        /// Each line as written, without breaks. The cursor is at the beginning of the row after the last one.
        lines: Vec<String>,
    }

    impl Terminal {
        fn rows(&self) -> Vec<(usize, String)> {
            let mut rows = Vec::new();
            for (index, line) in self.lines.iter().enumerate() {
                let mut row = String::new();
                for c in line.chars() {
                    let columns = measure_text_width(&c.to_string());
                    if measure_text_width(&row) + columns > self.size.width {
                        rows.push((index, std::mem::take(&mut row)));
                    }
                    row.push(c);
                }
                rows.push((index, row));
            }
            rows
        }

        fn visible(&self) -> Vec<String> {
            let rows = self.rows();
            let first = rows.len().saturating_sub(self.size.height - 1);
            rows[first..].iter().map(|(_, row)| row.clone()).collect()
        }

        /// Interprets the bytes of an update.
        fn write(&mut self, text: &str) {
            let text = text
                .trim_start_matches("\x1b[?2026h\r")
                .trim_end_matches("\x1b[J\x1b[?2026l");
            let mut text = text.to_owned();
            if let Some(rest) = text.strip_prefix("\x1b[H") {
                // Lines that scrolled out stay out: the screen is filled from its top, with nothing below.
                self.lines.clear();
                text = rest.to_owned();
            } else if let Some(rest) = text.strip_prefix("\x1b[")
                && let Some((up, rest)) = rest.split_once('A')
                && let Ok(up) = up.parse::<usize>()
            {
                let rows = self.rows();
                let up = up.min(self.size.height - 1).min(rows.len());
                let (at, _) = rows[rows.len() - up].clone();
                // A row in the middle of a wrapped line: keep the beginning of the line.
                let before = rows[..rows.len() - up]
                    .iter()
                    .filter(|(line, _)| *line == at);
                let kept: String = before.map(|(_, row)| row.as_str()).collect();
                self.lines.truncate(at);
                if !kept.is_empty() {
                    self.lines.push(kept);
                }
                text = rest.to_owned();
            }
            let lines = text
                .split_terminator('\n')
                .map(|line| line.trim_end_matches("\x1b[K"));
            self.lines.extend(lines.map(str::to_owned));
        }
    }

    #[test]
    fn no_part_of_an_earlier_frame_is_seen_after_a_resize() {
        let sizes = [
            (40, 20),
            (12, 20),
            (12, 6),
            (12, 20),
            (40, 5),
            (40, 24),
            (7, 9),
            (40, 20),
        ];
        let mut terminal = Terminal {
            size: Size {
                width: 40,
                height: 20,
            },
            lines: vec!["$ phalanx run".to_owned()],
        };
        let mut screen = Screen::default();
        for (number, (width, height)) in sizes.into_iter().enumerate() {
            let size = Size { width, height };
            terminal.size = size;
            for draw in 0..3 {
                let tag = format!("{number}.{draw}");
                let lines = (0..10).map(|line| {
                    let text = format!("語語 F{tag} cell {line}");
                    phalanx_report::text::fit(&text, width - 1)
                        .trim_end()
                        .to_owned()
                });
                let mut frame: Vec<String> = lines.collect();
                frame.truncate(height - 1);
                let lasting = match draw {
                    1 => vec![format!("lasting {number}")],
                    _ => Vec::new(),
                };
                terminal.write(&screen.update(&lasting, &frame, size));
                let seen = terminal.visible();
                let frames = seen
                    .iter()
                    .filter(|row| row.contains('語') || row.contains('F'));
                assert_eq!(frames.count(), frame.len(), "{size:?} {seen:#?}");
                assert!(seen.ends_with(&frame), "{size:?} {seen:#?}");
            }
        }
        let all = terminal.rows().into_iter().map(|(_, row)| row);
        let last = all.filter(|row| row.starts_with("lasting 7")).count();
        assert_eq!(last, 1, "lasting lines stay");
    }
}
