//! Threads and the cores that they run on.

use std::io;

/// Cores that this thread may run on, in ascending order.
pub fn available_cores() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, for which all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a writable cpu_set_t of the size given; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        return (0..count).collect();
    }
    // SAFETY: the macro reads bits of `set` below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("cannot run on {cores:?}; this process may use the cores {available:?}")]
pub struct PinError {
    cores: Vec<usize>,
    available: Vec<usize>,
    source: io::Error,
}

/// Runs the calling thread on `core` alone.
pub fn pin_current_thread(core: usize) -> Result<(), PinError> {
    keep_current_thread_on(&[core])
}

/// Runs the calling thread, and those that it starts from now on, on `cores` alone.
pub fn keep_current_thread_on(cores: &[usize]) -> Result<(), PinError> {
    let refuse = |source| PinError { cores: cores.to_vec(), available: available_cores(), source };
    if cores.iter().any(|&core| core >= libc::CPU_SETSIZE as usize) {
        return Err(refuse(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    // SAFETY: as in `available_cores`; each core is below the size of the set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores {
            libc::CPU_SET(core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(refuse(io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_core_that_it_has_and_to_no_other() {
        std::thread::spawn(|| {
            let cores = available_cores();
            keep_current_thread_on(&cores).unwrap();
            assert_eq!(available_cores(), cores);
            assert!(keep_current_thread_on(&[]).is_err());
            let last = *cores.last().unwrap();
            pin_current_thread(last).unwrap();
            assert_eq!(available_cores(), [last]);
            assert!(pin_current_thread(1 << 20).is_err());
        })
        .join()
        .unwrap();
    }
}
