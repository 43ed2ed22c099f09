//! The HTML report in a browser.

use std::fs;
use std::process::Command;

use crate::run::{Bench, said};
use crate::standin::{Service, start};

/// Named by what it needs: `tests/run` leaves it out, with the reason, where there is no chromium.
#[test]
fn a_page_opens_in_chromium_without_a_word_on_its_console() {
    let bench = Bench::new("page", start(Service::default()));
    let page = bench.dir.join("report.html");
    let args = "call --clients 8 --rate 500 --seconds 3";
    let output = bench.run(&format!("{args} --html {}", page.display()));
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(&page).expect("a page");
    // A mistake of the page's own is seen to be seen: the same browser reports it.
    let broken = bench.dir.join("broken.html");
    fs::write(&broken, text.replace("\"use strict\";", "nothing.such();")).expect("written");

    let opened = |page: &std::path::Path| {
        let screen = page.with_extension("png");
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
            ])
            .arg(format!("--user-data-dir={}", bench.dir.join("profile").display()))
            .args(["--window-size=1400,2000", "--virtual-time-budget=2000"])
            .arg(format!("--screenshot={}", screen.display()))
            .arg(format!("file://{}", page.display()))
            .output()
            .expect("chromium runs");
        assert!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let console: Vec<String> =
            told.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        (screen, console)
    };
    let (screen, console) = opened(&page);
    assert_eq!(console, Vec::<String>::new());
    let size = fs::metadata(&screen).expect("a screenshot").len();
    assert!(size > 40_000, "a page with charts is no {size} bytes");
    if let Some(keep) = std::env::var_os("MOORGATE_KEEP_SCREENSHOT") {
        fs::copy(&screen, keep).expect("kept");
    }
    assert!(!opened(&broken).1.is_empty(), "an error of the page would be seen");
}
