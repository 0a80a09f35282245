//! The timing of a run for people and for other programs: [`text`] for terminals, [`csv`] for spreadsheets, [`trace`] for
//! trace viewers such as Perfetto.

pub mod csv;
pub mod text;
pub mod trace;
