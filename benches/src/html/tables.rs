//! What of a report is words and numbers.

use std::fmt::Write;

use serde_json::Value;

use super::axis::short;
use super::escape;

/// The first figures that a reader of each command looks for: name, path in the report, unit, scale.
const TILES: &[(&str, &str, &str, f64)] = &[
    ("calls", "calls_per_second", "/s", 1.0),
    ("highest rate", "highest_rate", "/s", 1.0),
    ("acknowledged", "acknowledged_per_second", "/s", 1.0),
    ("delivered", "deliveries_per_second", "/s", 1.0),
    ("held", "connections.held", "", 1.0),
    ("lost", "connections.lost", "", 1.0),
    ("done", "done_per_second", "/s", 1.0),
    ("refused", "refused", "", 1.0),
    ("p50", "latency_ms.p50", "ms", 1.0),
    ("p99", "latency_ms.p99", "ms", 1.0),
    ("p99.9", "latency_ms.p999", "ms", 1.0),
    ("max", "latency_ms.max", "ms", 1.0),
    ("acknowledged, p99", "latency_ms.ack.p99", "ms", 1.0),
    ("delivered, p99", "latency_ms.deliver.p99", "ms", 1.0),
    ("user memory", "server.user_bytes_per_connection", "B a connection", 1.0),
    ("kernel memory", "server.kernel_bytes_per_connection", "B a connection", 1.0),
    ("CPU", "server.cpu_us_per_heartbeat", "us a heartbeat", 1.0),
    ("server's CPU", "server.cpu_us_per_operation", "us an operation", 1.0),
    ("gateway's CPU", "server.gateway.cpu_us_per_call", "us a call", 1.0),
    ("gateway's CPU", "server.gateway.cpu_us_per_message", "us a message", 1.0),
    ("backend's CPU", "server.backend.cpu_us_per_message", "us a message", 1.0),
    ("delivered", "broadcast.delivered", "notices", 1.0),
    ("the slowest notice", "broadcast.seconds", "s", 1.0),
    ("gateway's CPU", "broadcast.cpu_us_per_phone", "us a phone told", 1.0),
    ("beats, p99", "heartbeats.latency_ms.p99", "ms", 1.0),
    ("beats lost", "heartbeats.lost", "", 1.0),
    ("messages", "gateway.messages_per_second_per_core", "/s a core of the gateway", 1.0),
    ("missing", "missing", "", 1.0),
    ("duplicates", "duplicates", "", 1.0),
    ("errors", "errors", "", 1.0),
    ("late starts", "late_starts", "", 1.0),
    ("dropped starts", "dropped_starts", "", 1.0),
];

fn at<'a>(report: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(report, |value, key| &value[key])
}

pub(super) fn head(report: &Value) -> String {
    let command = report["command"].as_str().unwrap_or("report");
    let mut out = format!("<header><h1>moorgate-bench {}</h1>\n", escape(command));
    let mut told: Vec<String> = Vec::new();
    for (name, unit) in [
        ("clients", "phones"),
        ("rounds_asked", "rounds"),
        ("round_ms", "ms a round"),
        ("payload_bytes", "bytes of payload"),
        ("seconds", "s"),
        ("heartbeat_s", "s between beats"),
    ] {
        if let Some(value) = report[name].as_f64() {
            told.push(format!("{} {unit}", short(value)));
        }
    }
    if let Some(rate) = report["pace"]["rate"].as_f64().or(report["rate"].as_f64()) {
        let arrival = report["pace"]["arrival"].as_str().or(report["arrival"].as_str()).unwrap_or("");
        told.push(format!("{} a second asked for {arrival}", short(rate)));
    }
    let _ = writeln!(out, "<p class=told>{}</p>", escape(&told.join(" · ")));
    let verdicts = [
        (&report["generator"]["verdict"], report["generator"]["was_the_limit"] == true),
        (&report["verdict"], report["is_good"] == false),
        (&report["pace"]["hides"], true),
        (&report["connections"]["trouble"], true),
    ];
    for (text, is_bad) in verdicts {
        if let Some(text) = text.as_str() {
            let _ = writeln!(
                out,
                "<p class=\"verdict {}\">{}</p>",
                if is_bad { "bad" } else { "good" },
                escape(text)
            );
        }
    }
    if report["ended_early"] == true {
        out.push_str("<p class=\"verdict bad\">ended early by Ctrl-C: this is what ran so far</p>\n");
    }
    if let Some(used) = report["host"]["other_cores_used"].as_f64().filter(|&used| used > 0.25) {
        let _ = writeln!(
            out,
            "<p class=\"verdict bad\">other processes used {used:.1} cores meanwhile: the figures are spoilt</p>"
        );
    }
    out.push_str("</header>\n");
    out
}

pub(super) fn tiles(report: &Value) -> String {
    let mut out = String::from("<section class=tiles>\n");
    for (name, path, unit, scale) in TILES {
        if let Some(value) = at(report, path).as_f64() {
            let _ = writeln!(
                out,
                "<div><span>{name}</span><b>{}</b> <small>{unit}</small></div>",
                short(value * scale)
            );
        }
    }
    out + "</section>\n"
}

/// Every operation of every phase.
pub(super) fn operations(report: &Value) -> String {
    let Some(operations) = report["measured"]["operations"].as_object().filter(|all| !all.is_empty()) else {
        return String::new();
    };
    let mut out = String::from(
        "<section><h2>Operations by phase</h2><div class=wide><table>\n<tr><th>operation<th>phase<th>done<th>errors<th>starts\
         <th>late<th>dropped<th>p50 ms<th>p99 ms<th>p99.9 ms<th>max ms\n",
    );
    for (name, phases) in operations {
        for (phase, told) in phases.as_object().into_iter().flatten() {
            let _ = write!(out, "<tr><td>{}<td>{}", escape(name), escape(phase));
            for key in ["done", "errors", "starts", "late_starts", "dropped_starts"] {
                let _ = write!(out, "<td class=n>{}", told[key].as_u64().unwrap_or(0));
            }
            for key in ["p50", "p99", "p999", "max"] {
                let _ = write!(out, "<td class=n>{:.2}", told["latency_ms"][key].as_f64().unwrap_or(0.0));
            }
            out.push('\n');
        }
    }
    out + "</table></div></section>\n"
}

/// The steps of a ramp or a search: a table of whatever keys they have.
pub(super) fn steps(report: &Value) -> String {
    let steps = ["steps", "search", "trials", "rounds"].into_iter().find_map(|key| report[key].as_array());
    let Some((steps, first)) = steps.and_then(|steps| Some((steps, steps.first()?.as_object()?))) else {
        return String::new();
    };
    let keys: Vec<&String> = first
        .iter()
        .filter(|(_, value)| !value.is_object() && !value.is_array())
        .map(|(key, _)| key)
        .collect();
    let mut out = String::from("<section><h2>Steps</h2><div class=wide><table>\n<tr>");
    for key in &keys {
        let _ = write!(out, "<th>{}", escape(&key.replace('_', " ")));
    }
    for step in steps {
        out.push_str("\n<tr>");
        for key in &keys {
            let _ = write!(out, "<td class=n>{}", escape(&value(&step[key.as_str()])));
        }
    }
    out + "\n</table></div></section>\n"
}

/// The ratios of a comparison, each with its raw figures and what is said beside it.
pub(super) fn ratios(report: &Value) -> String {
    let Some(raw) = report["raw"].as_object().filter(|raw| !raw.is_empty()) else { return String::new() };
    let mut out = String::from(
        "<section><h2>Ratios, ours by the peer's</h2><div class=wide><table>\n<tr><th>key<th>ratio<th>with 95 %<th>must be<th>\
         <th>ours<th>peer<th>what<th>connections<th>a second<th>what one side does that the other does not\n",
    );
    for (key, told) in raw {
        let figure = |name: &str| told[name].as_f64().map_or("?".to_owned(), short);
        let verdict = match (told["must_be"].as_str(), told["is_met"].as_bool()) {
            (Some("told only"), _) => "",
            (_, Some(true)) => "met",
            _ => "not met",
        };
        let limit =
            if told["generator_was_the_limit"] == true { ", the generator was the limit" } else { "" };
        let _ = writeln!(
            out,
            "<tr><td>{}<td class=n>{}<td class=n>{} .. {}<td>{}<td>{verdict}{limit}<td class=n>{}<td class=n>{}<td>{}<td class=n>{}\
             <td class=n>{}<td>{}",
            escape(key),
            figure("ratio"),
            figure("low"),
            figure("high"),
            escape(told["must_be"].as_str().unwrap_or("")),
            figure("ours"),
            figure("peer"),
            escape(&format!(
                "{}; {}",
                told["unit"].as_str().unwrap_or(""),
                told["peer_name"].as_str().unwrap_or("")
            )),
            value(&told["connections"]),
            figure("units_per_second"),
            escape(told["note"].as_str().unwrap_or("")),
        );
    }
    out.push_str("</table></div>\n");
    for (key, why) in report["skipped"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "<p class=told>{} was left out: {}</p>", escape(key), escape(&value(why)));
    }
    if let Some(floor) = report["floor"].as_str() {
        let _ = writeln!(out, "<p class=told>the floor is {}</p>", escape(floor));
    }
    out + "</section>\n"
}

/// What the servers used.
pub(super) fn server(report: &Value) -> String {
    let mut rows = Vec::new();
    flatten(&report["server"], "", &mut rows);
    flatten(&report["gateway"], "gateway's own word", &mut rows);
    flatten(&report["setup"], "setup", &mut rows);
    flatten(&report["versions"], "version", &mut rows);
    table("Server", &rows)
}

pub(super) fn host(report: &Value) -> String {
    let mut rows = Vec::new();
    flatten(&report["host"], "", &mut rows);
    rows.push(("schema".to_owned(), value(&report["schema"])));
    table("Host", &rows)
}

fn table(title: &str, rows: &[(String, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("<section><h2>{title}</h2><table class=pairs>\n");
    for (key, value) in rows {
        let _ = writeln!(out, "<tr><th>{}<td>{}", escape(key), escape(value));
    }
    out + "</table></section>\n"
}

/// Keys and values, those of inner objects behind their own key.
fn flatten(tree: &Value, under: &str, rows: &mut Vec<(String, String)>) {
    for (key, inner) in tree.as_object().into_iter().flatten() {
        let words = key.replace('_', " ");
        let name = if under.is_empty() { words } else { format!("{under}, {words}") };
        match inner {
            Value::Object(_) => flatten(inner, &name, rows),
            Value::Null => {}
            Value::Array(all) if all.is_empty() => {}
            _ => rows.push((name, value(inner))),
        }
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, short),
        Value::Array(all) => all.iter().map(self::value).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}
