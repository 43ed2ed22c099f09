//! What coroutines cost: how many handlers wait at once on one thread, bytes of resident memory each, and ns a switch.
//!
//! `coroutine_figures [HANDLERS] [--json]`: a server of the sample service in a process of its own, one thread, whose
//! handlers have decoded their request and wait for another service, which is held in this process and answers nobody. Its
//! resident memory before and after, divided by the handlers: stacks, tasks, connections' tables, calls in flight to the
//! other service, frames that were not yet freed, all of it. Once with the async twin of the handler, for comparison. Then,
//! in this process, the switch: a coroutine that waits for what is ready, and a hundred thousand that wait in turns.

mod memory;
mod serve;
mod switch;

use std::{env, process};

use memory::Memory;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [command, kind, behind] = &args[..]
        && command == serve::COMMAND
    {
        return serve::serve(kind, behind);
    }
    let json = args.iter().any(|arg| arg == "--json");
    let number = args.iter().find(|arg| *arg != "--json").map_or(Ok(100_000), |arg| arg.parse());
    let Ok(handlers) = number else {
        eprintln!("coroutine_figures [HANDLERS] [--json]");
        process::exit(2);
    };
    let coroutines = memory::measure("sync", handlers);
    let tasks = memory::measure("async", handlers);
    let (hot_ns, start_ns) = (switch::hot_ns(), switch::start_ns());
    let cold_ns = switch::cold_ns(100_000);
    if json {
        println!(
            "{{\"waiting\":{},\"bytes_each\":{},\"page_table_bytes_each\":{},\"maps\":{},\"async_bytes_each\":{},\
             \"switch_ns\":{hot_ns:.1},\"switch_cold_ns\":{cold_ns:.1},\"start_ns\":{start_ns:.1}}}",
            handlers, coroutines.resident, coroutines.page_tables, coroutines.maps, tasks.resident
        );
        return;
    }
    let line = |what: &str, memory: &Memory| {
        println!(
            "{handlers} {what} wait on one thread: {} bytes resident each, {} of page tables, {} mappings in all",
            memory.resident, memory.page_tables, memory.maps
        );
    };
    line("handlers on coroutines", &coroutines);
    line("async handlers", &tasks);
    println!("a switch there and back: {hot_ns:.1} ns hot, {cold_ns:.1} ns over 100 000 stacks in turn");
    println!("a coroutine from its start to its end: {start_ns:.1} ns");
}
