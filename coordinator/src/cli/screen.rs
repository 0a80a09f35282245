//! Draws frames on a terminal: lasting lines scroll up, the frame stays below them. A frame goes out in one write, as a
//! synchronized update, and clears only what changed its place, so that nothing flickers.

use crate::report::live::Size;
use console::{Term, measure_text_width};
use std::io::Write;

/// What is on the screen below the lasting lines.
#[derive(Debug, Default)]
pub struct Screen {
    /// Widths of the lines drawn last; a resized terminal wraps them, which moves the cursor.
    drawn: Vec<usize>,
}

impl Screen {
    /// Columns and rows now; a terminal that doesn't know gets 80 × 24.
    pub fn size() -> Size {
        let (height, width) = Term::stderr().size_checked().unwrap_or((24, 80));
        Size {
            width: usize::from(width).max(1),
            height: usize::from(height).max(1),
        }
    }

    /// Writes the lasting lines and the frame beneath.
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

    /// The bytes of an update.
    fn update(&mut self, lasting: &[String], frame: &[String], size: Size) -> String {
        let mut text = String::from("\x1b[?2026h\r");
        let rows: usize = self
            .drawn
            .iter()
            .map(|width| width.div_ceil(size.width).max(1))
            .sum();
        let up = rows.min(size.height.saturating_sub(1));
        if up > 0 {
            text += &format!("\x1b[{up}A");
        }
        for line in lasting.iter().chain(frame) {
            text += line;
            text += "\x1b[K\n";
        }
        text += "\x1b[J\x1b[?2026l";
        self.drawn = frame.iter().map(|line| measure_text_width(line)).collect();
        text
    }
}

#[cfg(test)]
mod tests {
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
    fn lines_that_a_smaller_terminal_wrapped_are_counted() {
        let mut screen = Screen::default();
        screen.update(&[], &["123456789".to_owned()], SIZE);
        let narrow = Size { width: 4, ..SIZE };
        assert!(screen.update(&[], &[], narrow).contains("\x1b[3A"));
    }
}
