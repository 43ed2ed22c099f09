//! A report as one page that needs nothing else: no network, no fonts, no scripts but its own few lines.

mod axis;
mod chart;
mod charts;
mod tables;

use serde_json::Value;

const STYLE: &str = include_str!("page.css");
const HOVER: &str = include_str!("hover.js");

/// The page of any command's report, from its JSON.
pub fn page(report: &Value) -> String {
    let command = report["command"].as_str().unwrap_or("report");
    let charts: String = charts::of(report).iter().map(chart::Chart::figure).collect();
    // A script's text ends at the first "</", wherever it stands.
    let raw = report.to_string().replace("</", "<\\/");
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <link rel=icon href=\"data:,\">\n\
         <title>moorgate-bench {title}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
         {head}{tiles}<section class=charts>\n{charts}</section>\n{ratios}{operations}{steps}{server}{host}\n</main>\n\
         <script type=\"application/json\" id=report>{raw}</script>\n<script>\n{HOVER}</script>\n</body></html>\n",
        title = escape(command),
        head = tables::head(report),
        tiles = tables::tiles(report),
        ratios = tables::ratios(report),
        operations = tables::operations(report),
        steps = tables::steps(report),
        server = tables::server(report),
        host = tables::host(report),
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
