//! What is said when a coroutine runs over the end of its stack: whose it was, then the process ends.
//!
//! The handler of SIGSEGV runs on the thread's alternate stack, looks whether the address lies in a guard page of an
//! arena, and hands every other fault on to whoever had the signal before.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_void, siginfo_t};

use crate::Label;
use crate::arena::LABEL_BYTES;
use crate::limits::{ARENAS_MAX, GUARD_BYTES, SIGNAL_STACK_BYTES};

/// An arena's place in the list that the handler looks through; taken out when it is dropped.
#[derive(Debug)]
pub(crate) struct Listed(usize);

/// One arena; `bytes` is written last and cleared first, and 0 says that the place is free.
struct Range {
    is_used: AtomicBool,
    base: AtomicUsize,
    stack_bytes: AtomicUsize,
    bytes: AtomicUsize,
}

static RANGES: [Range; ARENAS_MAX] = [const {
    Range {
        is_used: AtomicBool::new(false),
        base: AtomicUsize::new(0),
        stack_bytes: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
    }
}; ARENAS_MAX];

impl Listed {
    /// None: the list is full.
    pub(crate) fn new(base: usize, bytes: usize, stack_bytes: usize) -> Option<Self> {
        let free = |range: &Range| !range.is_used.swap(true, Ordering::AcqRel);
        let at = RANGES.iter().position(free)?;
        let range = &RANGES[at];
        range.base.store(base, Ordering::Relaxed);
        range.stack_bytes.store(stack_bytes, Ordering::Relaxed);
        range.bytes.store(bytes, Ordering::Release);
        Some(Self(at))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        RANGES[self.0].bytes.store(0, Ordering::Release);
        RANGES[self.0].is_used.store(false, Ordering::Release);
    }
}

/// Sets the handler, once in a process, and gives the thread an alternate stack if it has none.
pub(crate) fn prepare_thread() -> io::Result<()> {
    static IS_SET: Mutex<bool> = Mutex::new(false);
    let mut is_set = IS_SET.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_set {
        set_handler()?;
        *is_set = true;
    }
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: asks for the thread's alternate stack, and gives memory for the answer.
    if unsafe { libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above wrote it.
    let stack = unsafe { stack.assume_init() };
    // Threads of the standard library have one.
    if stack.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    // Never given back: a thread may fault as long as it lives.
    let memory = Box::leak(vec![0u8; SIGNAL_STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIGNAL_STACK_BYTES };
    // SAFETY: the memory is the thread's for ever.
    if unsafe { libc::sigaltstack(&stack, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What had the signal before. Written once before our handler is set, read in it.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written under the lock of `prepare_thread` before the handler is set, and only read after.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::uninit()));

fn set_handler() -> io::Result<()> {
    // SAFETY: zeros are a valid `sigaction`; all that matters is set here.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handle_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the first call reads what had the signal into memory that nobody reads yet; the second sets a handler that
    // does only what a handler may.
    let done = unsafe {
        libc::sigaction(libc::SIGSEGV, ptr::null(), (*PREVIOUS.0.get()).as_mut_ptr()) == 0
            && libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some((stack_bytes, label)) = overflowed(address) {
        tell(stack_bytes, label);
        // SAFETY: ends the process; may be called in a handler.
        unsafe { libc::abort() };
    }
    hand_on(signal, info, context);
}

/// The stack in whose guard page the address lies.
fn overflowed(address: usize) -> Option<(usize, Label)> {
    for range in &RANGES {
        let bytes = range.bytes.load(Ordering::Acquire);
        let (base, stack_bytes) =
            (range.base.load(Ordering::Relaxed), range.stack_bytes.load(Ordering::Relaxed));
        if bytes == 0 || !(base..base + bytes).contains(&address) {
            continue;
        }
        let at = address - base;
        if at % stack_bytes >= GUARD_BYTES {
            return None;
        }
        let top = base + (at / stack_bytes + 1) * stack_bytes;
        // SAFETY: the arena is mapped, and whoever runs on this stack had its label written at its top. A stray access to
        // a stack that was never used reads zeros, which `Option` takes for no label (a reference is never null).
        return unsafe { *((top - LABEL_BYTES) as *const Option<Label>) }.map(|label| (stack_bytes, label));
    }
    None
}

/// Writes one line, with nothing that allocates or locks.
fn tell(stack_bytes: usize, label: Label) {
    let mut digits = [0u8; 20];
    say("the coroutine of ");
    say(label.service);
    say(".");
    say(label.method);
    say(" has overflowed its stack of ");
    say(decimal(stack_bytes - GUARD_BYTES, &mut digits));
    say(" bytes; give the service larger stacks, or let the handler keep less on them. The process ends.\n");
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // Only digits stand there.
    std::str::from_utf8(&digits[at..]).unwrap_or("")
}

fn say(text: &str) {
    // SAFETY: writes bytes that live to the end of the call. That it may fail changes nothing: the process ends.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Lets whoever had the signal before handle it; nobody: the fault comes again and ends the process.
fn hand_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: written before this handler was set.
    let previous = unsafe { (*PREVIOUS.0.get()).assume_init_ref() };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: sets what had the signal before us; may be called in a handler.
            unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO it is a function of three arguments.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO it is a function of the signal's number.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

const _: () = assert!(size_of::<Option<Label>>() == size_of::<Label>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        let mut digits = [0; 20];
        assert_eq!(decimal(0, &mut digits), "0");
        assert_eq!(decimal(61_440, &mut digits), "61440");
        assert_eq!(decimal(usize::MAX, &mut digits), usize::MAX.to_string());
    }
}
