//! The pages of error codes, from their Markdown: headings, paragraphs, code and lists, which is all that they use.

use maud::{Markup, html};

/// Returns the list of all codes.
pub fn list(pages: &[(&str, &str)]) -> Markup {
    html! {
        h1 { "Errors" }
        dl.codes {
            @for (code, text) in pages {
                dt { a href={ "/explain/" (code) } { (code) } }
                dd { (title(text)) }
            }
        }
    }
}

/// Returns the heading without the code.
fn title(text: &str) -> &str {
    let heading = text.lines().next().unwrap_or_default();
    let heading = heading.trim_start_matches(['#', ' ']);
    heading.split_once(": ").map_or(heading, |(_, title)| title)
}

/// Returns a page.
pub fn page(text: &str) -> Markup {
    html! { article.explained { @for block in blocks(text) { (block) } } }
}

fn blocks(text: &str) -> Vec<Markup> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .take_while(|l| !l.starts_with("```"))
                .collect();
            blocks.push(html! { pre { code { (code.join("\n")) } } });
        } else if let Some(heading) = line.strip_prefix("# ") {
            blocks.push(html! { h1 { (inline(heading)) } });
        } else if let Some(heading) = line.strip_prefix("## ") {
            blocks.push(html! { h2 { (inline(heading)) } });
        } else if line.starts_with("    ") || line.starts_with('\t') {
            blocks.push(html! { pre { code { (line.trim()) } } });
        } else if let Some(item) = line.strip_prefix("- ") {
            blocks.push(html! { p.item { "• " (inline(item)) } });
        } else if !line.trim().is_empty() {
            let mut paragraph = line.to_owned();
            let ends =
                |next: &str| next.trim().is_empty() || next.starts_with(['#', '`', '-', ' ', '\t']);
            while let Some(next) = lines.next_if(|next| !ends(next)) {
                paragraph = format!("{paragraph} {next}");
            }
            blocks.push(html! { p { (inline(&paragraph)) } });
        }
    }
    blocks
}

/// Returns a text with its parts in backticks as code.
fn inline(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_made_of_headings_paragraphs_and_code_and_all_of_it_is_escaped() {
        let text =
            "# PHX0001: a <name>\n\nFirst line\nsecond `line <b>`.\n\n```\na < b\n```\n- one\n";
        assert_eq!(title(text), "a <name>");
        assert_eq!(
            page(text).into_string(),
            "<article class=\"explained\"><h1>PHX0001: a &lt;name&gt;</h1><p>First line second <code>line &lt;b&gt;</code>.</p><pre><code>a &lt; b</code></pre><p class=\"item\">• one</p></article>"
        );
    }
}
