//! The HTML report: what is in the file, that nothing from outside becomes markup, and its size.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod sample;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phalanx_report::artifacts::Contents;
use phalanx_report::html;
use phalanx_report::logs::{LogLine, Logs, ServiceLog};
use phalanx_report::view::RunView;
use phalanx_shared::event::{Artifact, Event, LogStream};
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde_json::Value;
use std::io::Read;

const ALL: i64 = i64::MAX / 4;
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&\u{202e}\u{7}";

fn view_of(events: &[Event]) -> RunView {
    let (state, now) = sample::state(events, ALL);
    RunView::of(&state, now, None)
}

fn logs_of(view: &RunView, lines: usize, text: &str) -> Logs {
    let services = view.cells.iter().map(|cell| ServiceLog {
        cell: cell.id.clone(),
        attempt: cell.newest().unwrap().attempt,
        service: format!("db{text}"),
        lines: (0..lines)
            .map(|line| LogLine {
                at: Timestamp(cell.newest().unwrap().offered.0 + line as i64 * 1000),
                stream: LogStream::Stdout,
                text: format!("line {line} {text}"),
                gap: false,
            })
            .collect(),
    });
    Logs {
        services: services.collect(),
    }
}

/// The texts of the compressed blocks.
fn blocks(page: &str) -> Vec<String> {
    page.split("<script type=\"text/plain\"")
        .skip(1)
        .filter(|block| !block.starts_with(" id=\"worker\""))
        // Artifacts aren't compressed: pictures and videos are already.
        .filter(|block| !block.starts_with(" id=\"file-"))
        .map(|block| {
            let base64 = block.split_once('>').unwrap().1.split_once('<').unwrap().0;
            let bytes = STANDARD.decode(base64).unwrap();
            let mut text = String::new();
            flate2::read::GzDecoder::new(bytes.as_slice())
                .read_to_string(&mut text)
                .unwrap();
            text
        })
        .collect()
}

/// Appends a hostile text to every text of an event that comes from outside.
fn poison(key: &str, value: &mut Value) {
    const OWN: [&str; 15] = [
        "kind", "run", "cell", "attempt", "outcome", "state", "stream", "id", "agent", "digest",
        "action", "axes", "verifies", "runs_on", "status",
    ];
    match value {
        Value::String(text) if !OWN.contains(&key) && (key != "path" || text.contains('/')) => {
            text.push_str(HOSTILE);
        }
        Value::Array(items) if !OWN.contains(&key) => {
            items.iter_mut().for_each(|item| poison(key, item));
        }
        Value::Object(fields) if key == "matrix" => {
            let renamed = std::mem::take(fields).into_iter().map(|(axis, mut value)| {
                poison("value", &mut value);
                (format!("{axis}{HOSTILE}"), value)
            });
            fields.extend(renamed);
        }
        Value::Object(fields) => fields.iter_mut().for_each(|(key, item)| poison(key, item)),
        _ => {}
    }
}

#[test]
fn no_text_from_outside_becomes_markup() {
    let mut state = RunState::new(sample::events(1, 1)[0].run.clone());
    for event in sample::events(27, 9) {
        let mut value = serde_json::to_value(&event).unwrap();
        poison("", &mut value["kind"]);
        for (key, field) in value.as_object_mut().unwrap() {
            if key != "kind" && key != "run" && key != "attempt" {
                poison(key, field);
            }
        }
        state.apply(&serde_json::from_value(value).unwrap());
    }
    let view = RunView::of(&state, state.finished.unwrap(), None);
    let page = html::render(&view, Some(&logs_of(&view, 3, HOSTILE)));
    let texts = blocks(&page);
    let details = texts.iter().filter(|text| text.starts_with("<article"));
    assert_eq!(details.clone().count(), 27);
    assert!(page.matches("onerror").count() > 20, "the text is shown");
    for markup in details.chain([&page]) {
        assert!(!markup.contains("<img"), "{markup}");
        assert!(!markup.contains('\u{202e}') && !markup.contains('\u{7}'));
        assert_eq!(
            markup.matches("</script").count(),
            markup.matches("<script").count()
        );
        // An attribute would end at a quote.
        assert!(!markup.contains("onerror=alert(1)>"));
    }
}

#[test]
fn the_page_allows_its_own_script_and_style_and_nothing_else() {
    let view = view_of(&sample::events(27, 9));
    let page = html::render(&view, None);
    assert!(page.contains("default-src 'none'; script-src 'sha256-"));
    for forbidden in [
        "http://",
        "https://",
        " style=\"",
        " onclick=\"",
        "unsafe",
        "<link",
        "<iframe",
    ] {
        // Addresses occur as texts of requests, never as attributes.
        let attribute = format!("=\"{forbidden}");
        assert!(
            !page.contains(if forbidden.starts_with("http") {
                &attribute
            } else {
                forbidden
            }),
            "{forbidden}"
        );
    }
}

#[test]
fn the_first_screen_needs_no_block() {
    let view = view_of(&sample::events(27, 9));
    let page = html::render(&view, None);
    let first = page.split_once("id=\"worker\"").unwrap().0;
    assert!(first.contains("3 of 27 cells failed, 1 errored."));
    assert_eq!(first.matches("class=\"c\"").count(), 27);
    assert!(first.contains("VM status transition"));
    assert!(
        first.contains("json.results[0].status.value"),
        "the values of the failed check"
    );
    assert!(
        first.contains("Custom field creation via proxbox-api"),
        "the coverage table"
    );
}

#[test]
fn every_cell_has_its_detail_and_its_logs() {
    let view = view_of(&sample::events(27, 9));
    let page = html::render(&view, Some(&logs_of(&view, 10, "")));
    let texts = blocks(&page);
    assert_eq!(texts.len(), 54);
    for cell in &view.cells {
        let detail = texts.iter().find(|text| {
            text.contains(&format!(
                "<article class=\"cell\" data-cell=\"{}\"",
                cell.id
            ))
        });
        let detail = detail.unwrap();
        for step in cell.steps() {
            assert!(detail.contains(&format!("data-path=\"{}\"", step.path)));
        }
        assert!(page.contains(&format!(
            "id=\"l-{}-{}\"",
            cell.id,
            cell.newest().unwrap().attempt
        )));
    }
}

#[test]
fn logs_above_the_limit_are_left_out_and_those_of_red_cells_stay() {
    let view = view_of(&sample::events(27, 9));
    let logs = logs_of(&view, 400, "x");
    let whole = html::render(&view, Some(&logs));
    assert!(!whole.contains("data-left-out"));
    let cut = html::render_within(&view, Some(&logs), html::CELL_BYTES, 20_000);
    assert!(cut.len() < whole.len());
    for cell in &view.cells {
        let id = format!("id=\"l-{}-", cell.id);
        let tag = cut.split_once(&id).unwrap().1.split_once('>').unwrap().0;
        if !cell.outcome.unwrap().is_ok() {
            assert!(!tag.contains("data-left-out"), "{}", cell.name);
        }
    }
    assert!(cut.contains("data-left-out"));
}

#[test]
fn details_above_the_limit_are_left_out_and_said_and_those_of_red_cells_stay() {
    let view = view_of(&sample::events(27, 9));
    let whole = html::render(&view, None);
    assert!(!whole.contains("cells are not in this file"));
    let cut = html::render_within(&view, None, 30_000, 0);
    let kept = |cell: &CellId| cut.contains(&format!("id=\"d-{cell}\""));
    let lacking = view.cells.iter().filter(|cell| !kept(&cell.id)).count();
    assert!(0 < lacking && lacking < 24, "{lacking}");
    for cell in &view.cells {
        assert!(
            kept(&cell.id) || cell.outcome.unwrap().is_ok(),
            "{}",
            cell.name
        );
    }
    let said = format!("The steps of {lacking} cells are not in this file");
    assert!(cut.contains(&said), "{said}");
}

#[test]
fn an_axis_of_very_many_values_makes_no_rows() {
    let mut view = view_of(&sample::events(27, 9));
    let one = view.cells.pop().unwrap();
    view.cells = (0..1_200)
        .map(|n| {
            let mut cell = one.clone();
            cell.id = CellId::from(format!("c{n}"));
            cell.matrix = [
                ("seed".to_owned(), Value::from(n)),
                ("half".to_owned(), Value::from(n % 2)),
            ]
            .into();
            cell
        })
        .collect();
    let page = html::render_within(&view, None, 0, 0);
    let table = page.split_once("class=\"pivot\"").unwrap().1;
    let table = table.split_once("</table>").unwrap().0;
    assert_eq!(table.matches("<tr>").count(), 2, "a head and one row");
    assert_eq!(table.matches("class=\"c\"").count(), 1_200);
    assert!(!page.contains(">seed</option>"));
}

#[test]
fn equal_runs_give_equal_files_of_bounded_size() {
    let view = view_of(&sample::events(27, 9));
    let logs = logs_of(&view, 200, "GET /api/dcim/devices/ 200");
    let page = html::render(&view, Some(&logs));
    assert_eq!(page, html::render(&view, Some(&logs)));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn a_run_that_has_just_begun_is_shown() {
    let events = sample::events(27, 9);
    for until in [0, 3_100, 400_000, 5_000_000] {
        let (state, now) = sample::state(&events, until);
        let view = RunView::of(&state, now, None);
        let page = html::render(&view, None);
        assert!(page.contains("Running: "), "at {until}");
    }
}

#[test]
fn artifacts_are_shown_by_a_few_media_types_and_their_names_are_text() {
    let mut view = view_of(&sample::events(1, 1));
    let artifact = |id: u32, media_type: &str| Artifact {
        id,
        name: format!("{id}{HOSTILE}.png"),
        from: format!("web:/{HOSTILE}"),
        digest: format!("{id:064x}"),
        size: 4,
        media_type: media_type.to_owned(),
        ..Artifact::default()
    };
    let kinds = [
        "image/png",
        "video/webm",
        "image/svg+xml",
        "text/html",
        "image/png\" onload=\"alert(1)",
    ];
    let artifacts: Vec<Artifact> = (1..)
        .zip(kinds)
        .map(|(id, kind)| artifact(id, kind))
        .collect();
    let mut contents = Contents::default();
    for artifact in &artifacts {
        contents.insert(artifact.digest.clone(), b"data".to_vec());
    }
    view.cells[0].attempts[0].artifacts = artifacts;
    let page = html::render_with(&view, None, &contents);
    let texts = blocks(&page);
    let detail = texts
        .iter()
        .find(|text| text.starts_with("<article"))
        .unwrap();
    assert_eq!(detail.matches("<img class=\"shot\"").count(), 1);
    assert_eq!(detail.matches("<video class=\"shot\"").count(), 1);
    assert_eq!(detail.matches("data-type=\"image/png\"").count(), 1);
    assert!(!detail.contains("onload="), "{detail}");
    assert!(!detail.contains("<svg onload") && !detail.contains("<script"));
    assert!(page.contains(&format!("id=\"file-{:064x}\"", 1)));
}
