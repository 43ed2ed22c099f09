//! Whether this host has the io_uring that the gateway needs, and what mends it when not.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

/// What the kernel offers beyond the least that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// [`Wait::min_wait`](crate::Wait::min_wait) has an effect (Linux 6.12).
    pub min_wait: bool,
    /// [`RingAddress::post`](crate::RingAddress::post) works (Linux 6.13).
    pub post_without_ring: bool,
    /// Direct descriptors that one ring can have here.
    pub direct_slots_max: u32,
}

/// Why there is no io_uring here, and what to do. The message is for the screen of whoever starts the
/// program.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {value}); switch it on with: \
         sysctl -w kernel.io_uring_disabled=0"
    )]
    SwitchedOff { value: u8 },
    #[error(
        "the kernel forbids io_uring to this process, most likely a seccomp filter of the container; run it \
         with a profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run \
         --security-opt seccomp=unconfined, or SystemCallFilter=@system-service @aio of the unit)"
    )]
    Forbidden { source: io::Error },
    #[error(
        "this kernel has no io_uring (Linux {found}); it needs {LEAST_KERNEL_TEXT} or newer with CONFIG_IO_URING=y"
    )]
    Missing { found: String },
    #[error(
        "Linux {found} is too old: {lacking} is not there; install {LEAST_KERNEL_TEXT} or newer (6.12 or newer is best)"
    )]
    KernelTooOld { found: String, lacking: &'static str },
    #[error(
        "no memory for a ring: the limit on locked memory is too low (ulimit -l unlimited, or \
         LimitMEMLOCK=infinity of the unit), or the machine is out of memory"
    )]
    LockedMemory { source: io::Error },
    #[error("too many open files: raise the limit (ulimit -n 1048576, or LimitNOFILE= of the unit)")]
    OpenFiles { source: io::Error },
    #[error("the kernel refused a ring")]
    Other { source: io::Error },
}

/// The first kernel with socket commands for SO_PEERNAME and a ring without an index array.
const LEAST_KERNEL_TEXT: &str = "Linux 6.7";
const LEAST_KERNEL: (u32, u32) = (6, 7);

/// Makes a small ring and looks for every operation that the wrapper uses.
pub fn probe() -> Result<Capabilities, ProbeError> {
    let io = IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_no_sqarray()
        .build(8)
        .map_err(explain_refusal)?;
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe).map_err(|source| ProbeError::Other { source })?;
    if let Some((_, lacking)) = needed().into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(ProbeError::KernelTooOld { found: kernel_release(), lacking });
    }
    let kernel = kernel_version();
    if kernel < LEAST_KERNEL {
        return Err(ProbeError::KernelTooOld {
            found: kernel_release(),
            lacking: "getsockopt on a direct socket",
        });
    }
    Ok(Capabilities {
        kernel,
        min_wait: io.params().is_feature_min_timeout(),
        post_without_ring: kernel >= (6, 13),
        direct_slots_max: crate::setup::direct_slots_limit(),
    })
}

fn needed() -> [(u8, &'static str); 10] {
    [
        (opcode::Accept::CODE, "accept"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::Recv::CODE, "receive"),
        (opcode::Send::CODE, "send"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Close::CODE, "close"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::MsgRingData::CODE, "a message between rings"),
        (opcode::UringCmd16::CODE, "a socket command"),
    ]
}

/// The likely cause of an error from io_uring_setup.
pub(crate) fn explain_refusal(source: io::Error) -> ProbeError {
    explain(source, disabled_value(), kernel_release())
}

fn explain(source: io::Error, disabled: Option<u8>, found: String) -> ProbeError {
    match (source.raw_os_error().unwrap_or(0), disabled) {
        (libc::EPERM | libc::EACCES, Some(value @ 1..)) => ProbeError::SwitchedOff { value },
        (libc::EPERM | libc::EACCES, _) => ProbeError::Forbidden { source },
        // A filter may answer ENOSYS too; the sysctl is there only where the kernel has io_uring.
        (libc::ENOSYS, Some(_)) => ProbeError::Forbidden { source },
        (libc::ENOSYS, None) => ProbeError::Missing { found },
        (libc::EINVAL, _) => ProbeError::KernelTooOld { found, lacking: "a ring of this kind" },
        (libc::ENOMEM, _) => ProbeError::LockedMemory { source },
        (libc::EMFILE | libc::ENFILE, _) => ProbeError::OpenFiles { source },
        _ => ProbeError::Other { source },
    }
}

/// 0 allowed, 1 for a group only, 2 for nobody; absent before Linux 6.6 and without io_uring.
fn disabled_value() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "?".into(), |text| text.trim().into())
}

fn kernel_version() -> (u32, u32) {
    parse_version(&kernel_release())
}

fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, disabled: Option<u8>) -> String {
        explain(io::Error::from_raw_os_error(errno), disabled, "5.4.0".into()).to_string()
    }

    #[test]
    fn every_refusal_names_its_cause_and_the_mending_command() {
        assert!(explained(libc::EPERM, Some(2)).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(explained(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(explained(libc::ENOSYS, Some(0)).contains("seccomp"));
        assert!(explained(libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(explained(libc::EINVAL, None).contains("5.4.0 is too old"));
        assert!(explained(libc::ENOMEM, None).contains("ulimit -l"));
        assert!(explained(libc::EMFILE, None).contains("ulimit -n"));
    }

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(parse_version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(parse_version("6.1"), (6, 1));
        assert_eq!(parse_version("?"), (0, 0));
    }

    #[test]
    fn this_host_has_what_is_needed() {
        let capabilities = probe().unwrap();
        assert!(capabilities.kernel >= LEAST_KERNEL && capabilities.direct_slots_max > 0);
    }
}
