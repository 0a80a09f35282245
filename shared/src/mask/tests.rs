#![allow(clippy::unwrap_used)]
use super::*;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use serde_json::json;

fn masker(values: &[&str]) -> Arc<Masker> {
    let masker = Masker::new();
    masker.add_all(values.iter().copied()).unwrap();
    Arc::new(masker)
}

fn text(value: &str, text: &str) -> String {
    masker(&[value]).masks().text(text).into_owned()
}

#[test]
fn a_value_is_masked_wherever_it_stands() {
    assert_eq!(
        text("hunter2-secret", "a hunter2-secret, hunter2-secret"),
        "a ***, ***"
    );
    assert_eq!(text("hunter2-secret", "nothing"), "nothing");
    assert_eq!(text("pässwörd-é", "x pässwörd-é y"), "x *** y");
}

#[test]
fn short_values_are_refused_and_not_shown() {
    let error = Masker::new().add("  short  ").unwrap_err();
    assert_eq!(error, MaskError::TooShort { chars: 5 });
    assert!(!error.to_string().contains("short  "));
    assert!(Masker::new().add(&"x".repeat(MAX_BYTES + 1)).is_err());
}

#[test]
fn overlapping_secrets_are_masked_together() {
    let masks = masker(&["abcdefgh", "efghijkl"]).masks();
    assert_eq!(masks.text("<abcdefghijkl>"), "<***>");
}

#[test]
fn basic_authentication_is_masked() {
    let header = STANDARD.encode("admin:correct horse battery");
    let masked = text(
        "correct horse battery",
        &format!("Authorization: Basic {header}"),
    );
    assert!(
        masked.ends_with("***") || masked.contains("***"),
        "{masked}"
    );
    assert!(!masked.contains(&header[12..]), "{masked}");
}

#[test]
fn json_is_masked_in_texts_keys_and_numbers() {
    let masks = masker(&["1234567890", "key-value-x"]).masks();
    let masked = masks.json(&json!({"key-value-x": [1234567890, "a 1234567890", true, null, 5]}));
    assert_eq!(masked, json!({"***": ["***", "a ***", true, null, 5]}));
}

#[test]
fn lines_of_a_secret_are_masked_on_their_own() {
    let secret = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEEFFFF\n-----END KEY-----\n";
    let masked = text(secret, "x\r\nAAAABBBBCCCC\r\nDDDDEEEEFFFF");
    assert_eq!(masked, "x\r\n***\r\n***");
}

#[test]
fn only_what_may_become_a_secret_is_held_back() {
    let mut stream = StreamMasker::new(masker(&["hunter2-secret"]));
    assert_eq!(stream.push(b"a line\n"), b"a line\n");
    assert_eq!(stream.push(b"pass hunter2"), b"pass ");
    assert!(stream.is_holding());
    assert_eq!(stream.push(b"-secret\nhun"), b"***\n");
    assert_eq!(stream.push(b"ting"), b"hunting");
    assert_eq!(stream.push(b"hunter"), b"");
    assert_eq!(stream.finish(), b"hunter");
}

#[test]
fn a_stream_of_repeated_overlaps_holds_a_bounded_number_of_bytes() {
    let masker = masker(&["aaaaaaaa"]);
    let longest = masker.masks().longest;
    let mut stream = StreamMasker::new(masker);
    let mut out = Vec::new();
    for _ in 0..1000 {
        out.extend(stream.push(b"aaaaa"));
        assert!(stream.held() <= longest);
    }
    out.extend(stream.push(b"b"));
    out.extend(stream.finish());
    assert_eq!(out, b"***b");
}

#[test]
fn colours_line_breaks_and_what_has_no_shape_hide_no_secret() {
    let masks = masker(&["hunter2-secret"]).masks();
    for text in [
        "<\u{1b}[31mhunter2\u{1b}[0m-secret>",
        "<hunter\u{200b}2-\u{ad}secret>",
        "<hunt\ner2-\nsecr\net>",
        "<hunter2\u{1b}]0;title\u{7}-secret>",
        "<hunter2-sec\u{9b}1mret>",
        "<\u{1b}]8;;x://hunter2-secret\u{7}>",
        // A terminal takes the secret's first letter as part of the sequence; other readers don't.
        "<\u{1b}[31hunter2-secret>",
    ] {
        let masked = masks.text(text);
        assert!(masked.contains(MASK), "{text:?}: {masked:?}");
        for half in ["hunt", "secr", "cret"] {
            assert!(!masked.contains(half), "{text:?}: {masked:?}");
        }
        for cut in 1..text.len() {
            let mut stream = StreamMasker::new(masker(&["hunter2-secret"]));
            let mut out = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                out.extend(stream.push(piece));
            }
            out.extend(stream.finish());
            assert_eq!(String::from_utf8_lossy(&out), masked, "pieces of {cut}");
        }
    }
}

#[test]
fn a_line_goes_out_although_a_secret_begins_with_its_last_letter() {
    let mut stream = StreamMasker::new(masker(&["hunter2-secret"]));
    assert_eq!(stream.push(b"bath\n"), b"bath\n");
    assert_eq!(stream.push(b"hunt\n"), b"");
    assert_eq!(stream.push(b"er\n\n"), b"");
    assert_eq!(stream.push(b"2-secret\n"), b"***\n");
}

/// Returns forms into which a program may bring a secret before it prints it.
fn disguises(secret: &str, before: &str, after: &str) -> Vec<String> {
    let both = format!("{before}{secret}{after}");
    let percent: String = both
        .bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => (b as char).to_string(),
            b => format!("%{b:02x}"),
        })
        .collect();
    vec![
        both.clone(),
        json!(both).to_string(),
        json!(json!(both).to_string()).to_string(),
        json!({"a": both}).to_string(),
        hex::encode(&both),
        hex::encode_upper(&both),
        percent,
        both.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;"),
    ]
}

fn secrets() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9]{8,40}",
        "[ -~]{8,60}",
        "[a-zé\"'\\\\<>&/+ü☃ ]{10,30}"
    ]
    .prop_filter("long enough", |s| s.trim().chars().count() >= MIN_CHARS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_canary_never_survives_any_encoding_or_split(
        secret in secrets(),
        before in "[a-z:]{0,7}",
        after in "[a-z:\n]{0,5}",
        cuts in proptest::collection::vec(1usize..9, 1..30),
    ) {
        let masker = masker(&[&secret]);
        for disguise in disguises(&secret, &before, &after) {
            let mut stream = StreamMasker::new(masker.clone());
            let mut out = Vec::new();
            let mut rest = disguise.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                out.extend(stream.push(piece));
                rest = tail;
            }
            out.extend(stream.finish());
            let out = String::from_utf8_lossy(&out).into_owned();
            prop_assert!(out.contains(MASK), "{disguise:?} became {out:?}");
            for form in disguises(secret.trim(), "", "") {
                let core = form.trim_matches('"');
                prop_assert!(!out.contains(core), "{core:?} is in {out:?}");
            }
            prop_assert_eq!(masker.masks().text(&disguise).into_owned(), out);
        }
        for engine in [&STANDARD, &URL_SAFE] {
            let encoded = engine.encode(format!("{before}{secret}{after}"));
            let out = masker.masks().text(&encoded).into_owned();
            prop_assert!(out.contains(MASK), "{encoded:?}");
            // The unmasked rest decodes to nothing of the secret except bits at its edges.
            let left = out.replace(MASK, "").len();
            prop_assert!(left <= (before.len() + after.len()) * 4 / 3 + 12, "{encoded:?} became {out:?}");
        }
    }

    #[test]
    fn what_holds_no_secret_passes_unchanged(text in "[ -~\n]{0,200}", cut in 1usize..50) {
        let masker = masker(&["\u{1}never-there\u{1}"]);
        let mut stream = StreamMasker::new(masker);
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(cut) {
            out.extend(stream.push(piece));
        }
        out.extend(stream.finish());
        prop_assert_eq!(out, text.as_bytes());
    }
}
