//! The page.
//!
//! Duty: one HTML document that needs nothing else: totals, a funnel of steps for each source,
//! what each step dropped with examples, histograms, bad records. Prohibition: every text of
//! somebody else is escaped.

use std::fmt::Write;

use super::chart::{histogram, share};
use super::{Report, SourceReport};
use crate::data::clean::{Dropped, StepReport};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let _infallible = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Prepared data</title><style>{STYLE}</style></head><body><main>\
         <h1>From documents to tokens</h1>"
    );
    totals(report, &mut out);
    for source in &report.sources {
        write_source(source, &mut out);
    }
    out + "</main></body></html>\n"
}

/// A number with commas between thousands.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in a unit that fits.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

fn percent(part: u64, all: u64) -> String {
    format!("{:.2} %", part as f64 / all.max(1) as f64 * 100.0)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            // Neither a page nor a reader takes these.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// What a name of a step or reason says to a reader.
fn words(name: &str) -> String {
    escape(&name.replace('_', " "))
}

fn totals(report: &Report, out: &mut String) {
    let sum = |of: fn(&SourceReport) -> u64| report.sources.iter().map(of).sum::<u64>();
    let (came, left) = (sum(SourceReport::documents_in), sum(|source| source.documents));
    let (bytes, text) = (sum(|source| source.bytes), sum(|source| source.text_bytes));
    let (train, held_out) =
        (sum(|source| source.train_tokens), sum(|source| source.validation_tokens));
    let cells = [
        ("documents in", number(came), format!("{} in files", size(bytes))),
        ("documents kept", number(left), percent(left, came)),
        (
            "text",
            size(text),
            format!("{:.3} bytes per token", text as f64 / (train + held_out).max(1) as f64),
        ),
        (
            "tokens out",
            number(train + held_out),
            format!("{} to train on, {} held out", number(train), number(held_out)),
        ),
    ];
    out.push_str("<section class=\"totals\">");
    for (name, value, more) in cells {
        let _infallible = write!(
            out,
            "<div><span>{name}</span><strong>{value}</strong><small>{more}</small></div>"
        );
    }
    let _infallible = write!(
        out,
        "</section><p>Tokenizer: <code>{}</code>, {} tokens.",
        escape(&report.tokenizer),
        number(report.vocabulary as u64)
    );
    for (stage, seconds) in &report.seconds {
        let _infallible = write!(out, " {}: {seconds:.1} s.", words(stage));
    }
    out.push_str("</p>");
}

fn write_source(source: &SourceReport, out: &mut String) {
    let name = if source.name.is_empty() { "text" } else { &source.name };
    let _infallible = write!(out, "<section><h2>{}</h2><p>Files: ", escape(name));
    let formats = source
        .formats
        .iter()
        .map(|(format, count)| format!("{} of {}", number(*count), escape(format)));
    out.push_str(&formats.collect::<Vec<_>>().join(", "));
    let _infallible = write!(out, ". {}.</p>", escape(&source.skipped.to_string()));
    if !source.steps.is_empty() {
        funnel(source, out);
    }
    out.push_str("<div class=\"charts\">");
    let power = |at: usize| size(1 << at.min(63));
    let before = source.steps.first().map_or(&[][..], |step| &step.sizes);
    out.push_str(&histogram(before, power, "Documents by size, as they came"));
    out.push_str(&histogram(&source.sizes, power, "Documents by size, as they were kept"));
    let tokens = |at: usize| number(1 << at.min(63));
    out.push_str(&histogram(&source.lengths, tokens, "Documents by tokens"));
    for step in source.steps.iter().filter(|step| !step.scores.is_empty()) {
        let title = format!("Documents by score of {}", words(&step.name));
        let twentieth = |at: usize| format!("{:.2}", at as f64 / 20.0);
        out.push_str(&histogram(&step.scores, twentieth, &title));
    }
    out.push_str("</div>");
    for step in source.steps.iter().filter(|step| !step.dropped.is_empty()) {
        let _infallible = write!(out, "<h3>Dropped by {}</h3>", words(&step.name));
        for (reason, dropped) in &step.dropped {
            write_dropped(source, step, (reason, dropped), out);
        }
    }
    bad_records(source, out);
    out.push_str("</section>");
}

fn funnel(source: &SourceReport, out: &mut String) {
    let all = source.documents_in();
    out.push_str(
        "<table><thead><tr><th>step</th><th>in</th><th>dropped</th><th>changed</th><th>out</th>\
         <th>text out</th><th class=\"wide\">kept of all</th></tr></thead><tbody>",
    );
    for step in &source.steps {
        let lost = step.documents_in - step.documents_out;
        let _infallible = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{} ({})</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            words(&step.name),
            number(step.documents_in),
            number(lost),
            percent(lost, step.documents_in),
            number(step.changed),
            number(step.documents_out),
            size(step.bytes_out),
            share(step.documents_out, lost, all),
        );
    }
    let _infallible = write!(
        out,
        "</tbody><tfoot><tr><td>tokens</td><td>{}</td><td></td><td></td><td>{}</td><td></td>\
         <td></td></tr></tfoot></table>",
        number(source.documents),
        number(source.tokens()),
    );
}

fn write_dropped(
    source: &SourceReport,
    step: &StepReport,
    (reason, dropped): (&str, &Dropped),
    out: &mut String,
) {
    let _infallible = write!(
        out,
        "<details><summary><b>{}</b>: {} documents ({}), {} of text</summary>",
        words(reason),
        number(dropped.documents),
        percent(dropped.documents, step.documents_in),
        size(dropped.bytes),
    );
    for sample in &dropped.samples {
        let file = source.files.get(&sample.file).map_or("", String::as_str);
        let _infallible = write!(
            out,
            "<div class=\"sample\"><small>{}, byte {}</small><pre>{}</pre></div>",
            escape(file),
            number(sample.offset),
            escape(&sample.text),
        );
    }
    out.push_str("</details>");
}

fn bad_records(source: &SourceReport, out: &mut String) {
    if source.bad_records.is_empty() {
        return;
    }
    let _infallible = write!(
        out,
        "<h3>Bad records</h3><p>{} in all; the first:</p><table><thead><tr><th>file</th>\
         <th>byte</th><th>what is wrong</th></tr></thead><tbody>",
        number(source.skipped.bad_lines)
    );
    for bad in &source.bad_records {
        let _infallible = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&bad.file),
            number(bad.offset),
            escape(&bad.reason)
        );
    }
    out.push_str("</tbody></table>");
}
