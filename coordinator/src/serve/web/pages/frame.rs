//! What every page has: head, navigation, and words that several pages use.

use maud::{Markup, html};
use phalanx_report::html::frame::document;
use phalanx_report::text::{clean, duration};
use phalanx_shared::time::Timestamp;

/// A page before it is framed.
pub struct Framed<'a> {
    /// Title in the browser's tab.
    pub title: &'a str,
    /// The place in the navigation: `runs`, `agents` …
    pub place: &'static str,
    /// Links from the top to this page, outermost first: text and address.
    pub path: Vec<(String, String)>,
    /// Address of the page's event stream, if it goes on.
    pub events: Option<String>,
    /// Time that a page of the past shows.
    pub at: Option<Timestamp>,
    /// The secret of the page's buttons, if it has any.
    pub token: Option<&'a str>,
    /// Name of the reader's token, if the reader has one.
    pub who: Option<&'a str>,
    /// Content of the page.
    pub body: Markup,
}

const PLACES: [(&str, &str, &str); 5] = [
    ("runs", "/runs", "Runs"),
    ("agents", "/agents", "Agents"),
    ("compare", "/compare", "Compare"),
    ("history", "/history", "History"),
    ("explain", "/explain", "Errors"),
];

/// Returns the whole page.
pub fn framed(page: Framed<'_>) -> String {
    let Framed {
        title,
        place,
        path,
        events,
        at,
        token,
        who,
        body,
    } = page;
    let body = html! {
        a.skip href="#page" { "Skip to content" }
        header.bar {
            a.brand href="/runs" { "Phalanx" }
            nav aria-label="Pages" {
                @for (key, address, name) in PLACES {
                    @if key == place {
                        a href=(address) aria-current="page" { (name) }
                    } @else {
                        a href=(address) { (name) }
                    }
                }
            }
            span #connection role="status" {}
            @if let Some(who) = who {
                form.who method="post" action="/logout" {
                    span { (clean(who)) } " "
                    button type="submit" { "Log out" }
                }
            }
        }
        main #page tabindex="-1" data-events=[events] data-now=[at.map(|at| at.0)] data-token=[token] {
            @if !path.is_empty() {
                nav.path aria-label="Path" {
                    @for (index, (text, address)) in path.iter().enumerate() {
                        @if index > 0 { span aria-hidden="true" { " / " } }
                        a href=(address) { (clean(text)) }
                    }
                }
            }
            (body)
        }
    };
    bare(title, &body)
}

/// Returns a page without navigation.
pub fn bare(title: &str, body: &Markup) -> String {
    let head = html! {
        link rel="icon" href="data:,";
        link rel="stylesheet" href="/static/live.css";
        script src="/static/live.js" defer {}
    };
    document(&format!("{title} – Phalanx"), &head, body)
}

/// Returns a duration that ended, or one that the browser counts on.
pub fn elapsed(from: Option<Timestamp>, to: Option<Timestamp>) -> Markup {
    match (from, to) {
        (Some(from), Some(to)) => {
            let micros = u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX);
            html! { span.time { (duration(micros)) } }
        }
        (Some(from), None) => html! { span.time data-since=(from.0) {} },
        (None, _) => html! {},
    }
}

/// Returns a time of day that the browser shows in the reader's time zone.
pub fn moment(at: Timestamp) -> Markup {
    let text = at.to_rfc3339();
    html! { time datetime=(text) { (text) } }
}

/// Returns an id for an element from any text.
pub fn element_id(prefix: &str, text: &str) -> String {
    let mut id = format!("{prefix}-");
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => id.push(c),
            other => id.push_str(&format!("_{:x}_", u32::from(other))),
        }
    }
    id
}
