//! The view of a terminal: what is done, how long it takes, what stands, and what both sides use.

use std::collections::VecDeque;
use std::io::{self, Stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table};
use ratatui::{Frame, Terminal};

use super::line::{ms, used};
use crate::measure::{Live, OpPoint, PartGauge};

/// Seconds that the charts show.
const SHOWN_S: usize = 300;
/// Lines that stay, of the last.
const SAID_MAX: usize = 200;
/// How often keys are looked for.
const KEYS_MS: u64 = 100;

const COLORS: [Color; 4] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta];

#[derive(Debug)]
pub(super) struct Tui {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    screen: Screen,
    is_over: Arc<AtomicBool>,
    keys: Option<JoinHandle<()>>,
}

/// What is shown.
#[derive(Debug, Default)]
struct Screen {
    title: String,
    status: String,
    live: Option<Live>,
    history: VecDeque<Live>,
    said: VecDeque<String>,
}

impl Tui {
    pub fn open(title: &str) -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let opened = execute!(io::stderr(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stderr())));
        let terminal = opened.inspect_err(|_| restore())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let keys = {
            let is_over = is_over.clone();
            thread::Builder::new().name("keys".into()).spawn(move || watch_keys(&is_over)).ok()
        };
        Ok(Self { terminal, screen: Screen { title: title.to_owned(), ..Screen::default() }, is_over, keys })
    }

    pub fn status(&mut self, text: &str) {
        self.screen.status = text.to_owned();
        self.draw();
    }

    pub fn say(&mut self, text: &str) {
        self.screen.say(text);
        self.draw();
    }

    pub fn second(&mut self, live: &Live) {
        self.screen.second(live);
        self.draw();
    }

    /// Gives what was said, for the terminal's own history.
    pub fn close(mut self) -> VecDeque<String> {
        std::mem::take(&mut self.screen.said)
    }

    fn draw(&mut self) {
        // A terminal that went away is no reason to stop.
        let _ = draw(&mut self.terminal, &self.screen);
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(keys) = self.keys.take() {
            let _ = keys.join();
        }
        restore();
    }
}

fn restore() {
    let _ = execute!(io::stderr(), LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

/// In raw mode Ctrl-C is a key and no signal.
fn watch_keys(is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if !event::poll(Duration::from_millis(KEYS_MS)).unwrap_or(false) {
            continue;
        }
        let Ok(Event::Key(key)) = event::read() else { continue };
        let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if is_ctrl_c || key.code == KeyCode::Char('q') {
            crate::signals::interrupt(restore);
        }
    }
}

impl Screen {
    fn say(&mut self, text: &str) {
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back(text.to_owned());
    }

    fn second(&mut self, live: &Live) {
        if self.history.len() == SHOWN_S {
            self.history.pop_front();
        }
        self.history.push_back(live.clone());
        self.status.clear();
        self.live = Some(live.clone());
    }
}

fn draw<B: Backend>(terminal: &mut Terminal<B>, screen: &Screen) -> Result<(), B::Error> {
    terminal.draw(|frame| render(frame, screen)).map(|_| ())
}

fn render(frame: &mut Frame<'_>, screen: &Screen) {
    let operations = screen.live.as_ref().map_or(0, |live| live.point.operations.len()) as u16;
    let [head, table, charts, parts, said] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(operations + 3),
        Constraint::Min(8),
        Constraint::Length(5),
        Constraint::Length(5),
    ])
    .areas(frame.area());
    render_head(frame, head, screen);
    render_operations(frame, table, screen);
    let [latency, rate] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(charts);
    render_chart(frame, latency, screen, "p99, ms", |op| op.p99_ms);
    render_chart(frame, rate, screen, "done a second", |op| op.count as f64);
    render_parts(frame, parts, screen);
    let rows = usize::from(said.height.saturating_sub(1));
    let lines = screen.said.iter().skip(screen.said.len().saturating_sub(rows));
    let lines: Vec<Line> = lines.map(|text| Line::from(text.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::new().title("said")), said);
}

fn render_head(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let [title, bar] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let head = Line::from(vec![
        Span::styled(screen.title.as_str(), bold),
        Span::raw("   Ctrl-C ends it with the report of what ran"),
    ]);
    frame.render_widget(Paragraph::new(head), title);
    match &screen.live {
        Some(live) if screen.status.is_empty() => {
            let ratio = (live.elapsed_s as f64 / live.of_s.max(1) as f64).clamp(0.0, 1.0);
            let label = format!("{}: {} of {} s", live.what, live.elapsed_s, live.of_s);
            let style = Style::new().fg(Color::Blue);
            frame.render_widget(Gauge::default().ratio(ratio).label(label).gauge_style(style), bar);
        }
        _ => frame.render_widget(Paragraph::new(screen.status.as_str()), bar),
    }
}

fn render_operations(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let Some(live) = &screen.live else { return };
    let header = ["", "done/s", "p50 ms", "p99 ms", "max ms", "errors", "late", "dropped"];
    let rows = live.point.operations.iter().zip(COLORS.into_iter().cycle()).map(|((name, op), color)| {
        let cells = [
            (*name).to_owned(),
            op.count.to_string(),
            ms(op.p50_ms),
            ms(op.p99_ms),
            ms(op.max_ms),
            op.errors.to_string(),
            op.late.to_string(),
            op.dropped.to_string(),
        ];
        Row::new(cells).style(Style::new().fg(color))
    });
    let widths = [Constraint::Length(14)].into_iter().chain([Constraint::Length(9); 7]);
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered()), area);
}

fn render_chart(
    frame: &mut Frame<'_>,
    area: Rect,
    screen: &Screen,
    title: &str,
    value: impl Fn(&OpPoint) -> f64,
) {
    let Some(live) = &screen.live else { return };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = live
        .point
        .operations
        .keys()
        .map(|name| {
            let points = screen
                .history
                .iter()
                .filter_map(|live| Some((live.point.s as f64, value(live.point.operations.get(name)?))));
            (*name, points.collect())
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let from = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let to = all().map(|point| point.0).fold(1.0, f64::max);
    let top = all().map(|point| point.1).fold(0.1, f64::max) * 1.1;
    let from = if from.is_finite() { from.min(to - 1.0) } else { 0.0 };
    let datasets = lines.iter().zip(COLORS.into_iter().cycle()).map(|((name, points), color)| {
        let set = Dataset::default().name(*name).marker(Marker::Braille).graph_type(GraphType::Line);
        set.style(Style::new().fg(color)).data(points)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title))
        .x_axis(Axis::default().bounds([from, to]).labels([format!("{from:.0} s"), format!("{to:.0} s")]))
        .y_axis(Axis::default().bounds([0.0, top]).labels(["0".to_owned(), ms(top / 2.0), ms(top)]));
    frame.render_widget(chart, area);
}

fn render_parts(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let Some((live, gauges)) =
        screen.live.as_ref().and_then(|live| Some((live, live.point.gauges.as_ref()?)))
    else {
        return;
    };
    let part = |name: &str, part: &PartGauge| {
        Line::from(format!("{name:>8}  {}", used(part).unwrap_or_else(|| "not known".to_owned())))
    };
    let lines = vec![
        part("gateway", &gauges.gateway),
        part("backend", &gauges.backend),
        part("bench", &gauges.bench),
    ];
    let title = format!("{} of {} connections stand, {} lost", gauges.up, live.asked, gauges.lost);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ratatui::backend::TestBackend;

    use super::*;
    use crate::measure::{Gauges, Point};

    fn live(s: u64) -> Live {
        let op = OpPoint { count: 900 + s, p99_ms: 2.0 + s as f64, late: 4, ..OpPoint::default() };
        let bench = PartGauge { cores: Some(0.25), rss_bytes: Some(1 << 20) };
        let gauges = Gauges { up: 64, bench, ..Gauges::default() };
        let point = Point { s, operations: BTreeMap::from([("call", op)]), gauges: Some(gauges) };
        Live { what: "calling".into(), elapsed_s: s, of_s: 600, asked: 64, point }
    }

    fn shown(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        draw(&mut terminal, screen).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn the_view_shows_what_a_line_says() {
        let mut screen = Screen { title: "moorgate-bench call".into(), ..Screen::default() };
        screen.status = "connecting: 5 of 64".into();
        assert!(shown(&screen, 100, 34).contains("connecting: 5 of 64"));
        (1..=1_000).for_each(|s| screen.second(&live(s)));
        (0..1_000).for_each(|n| screen.say(&format!("killed {n}")));
        assert_eq!((screen.history.len(), screen.said.len()), (SHOWN_S, SAID_MAX));
        let text = shown(&screen, 100, 34);
        for told in
            ["calling: 1000 of 600 s", "1900", "1002", "64 of 64 connections", "25 % of a core", "killed 999"]
        {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
        assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "a line is drawn\n{text}");
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        let mut screen = Screen::default();
        screen.second(&live(1));
        for (width, height) in [(1, 1), (5, 3), (20, 10), (300, 2)] {
            let _ = shown(&screen, width, height);
        }
    }
}
