//! The frame of a page: head, policy, style, script, and the symbols of the marks.

use super::mark;
use crate::text::clean;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

/// Returns a document that needs no other file: `body`, the script, and `data` after it, which the browser need not
/// have read before the script runs. Its policy allows this style and this script, by their hashes, workers
/// from the page's own blobs, pictures and videos that the page holds, and no request at all.
pub fn alone(title: &str, style: &str, script: &str, body: &Markup, data: &Markup) -> String {
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; worker-src blob:; img-src data:; media-src data:; base-uri 'none'; form-action 'none'",
        digest(script),
        digest(style)
    );
    let head = html! {
        meta http-equiv="Content-Security-Policy" content=(policy);
        meta name="referrer" content="no-referrer";
        style { (PreEscaped(style)) }
    };
    let body = html! { (body) script { (PreEscaped(script)) } (data) };
    document(title, &head, &body)
}

/// Returns a document with these elements in its head (policy, links to style and script) and this body.
pub fn document(title: &str, head: &Markup, body: &Markup) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                (head)
                title { (clean(title)) }
            }
            body { (mark::symbols()) (body) }
        }
    };
    document.into_string()
}

fn digest(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}
