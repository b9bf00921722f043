//! Mapped files that another program may truncate.
//!
//! A write to a mapped page beyond the end of its file raises SIGBUS, which ends the process. No check
//! before the write can exclude that, because the file can be truncated in between, and writing with
//! system calls instead would cost one for each record. So a handler maps zeroed memory in place of the
//! missing pages, from the one that was hit to the end of the mapping, and marks the mapping as lost. The
//! write is then repeated and succeeds. The writer checks [`Mapping::is_lost`] afterwards and continues in
//! another file. A SIGBUS anywhere else ends the process as before.

#![expect(
    unsafe_code,
    reason = "a signal handler, and memory that changes under its owner"
)]

use memmap2::MmapMut;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};

/// The most guarded mappings at the same time: three for each worker. More are an error.
const GUARDED_MAX: usize = 4096;
/// A value of `start`: the slot is being filled.
const TAKEN: usize = 1;

/// A guarded mapping. The handler reads it, so nothing here locks or allocates.
#[derive(Debug)]
struct Slot {
    /// Its first address; 0 in a free slot.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; GUARDED_MAX] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; GUARDED_MAX];

/// The previous handler of the signal, or the error of installing this one.
static BEFORE: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A file in memory, for reading and writing.
#[derive(Debug)]
pub(super) struct Mapping {
    map: MmapMut,
    slot: &'static Slot,
}

impl Mapping {
    /// Maps the whole file.
    pub(super) fn of(file: &File) -> io::Result<Mapping> {
        install()?;
        // SAFETY: another process may change the file; data from the mapping is never trusted, and the
        // handler replaces missing pages.
        let map = unsafe { MmapMut::map_mut(file)? };
        let free = |slot: &&Slot| {
            let taken = slot
                .start
                .compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        let slot = SLOTS.iter().find(free).ok_or_else(|| {
            io::Error::other(format!("more than {GUARDED_MAX} journal files are open"))
        })?;
        slot.lost.store(false, Ordering::Relaxed);
        let start = map.as_ptr() as usize;
        slot.end.store(start + map.len(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Ok(Mapping { map, slot })
    }

    /// Whether pages of the file were missing when they were written. Data that was written since may be
    /// missing, too.
    pub(super) fn is_lost(&self) -> bool {
        // The handler runs on this thread in the middle of a write, so the flag is read after it.
        compiler_fence(Ordering::SeqCst);
        self.slot.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the memory is unmapped, because it may be mapped again for another purpose.
        self.slot.start.store(0, Ordering::Release);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

/// Installs the handler, once for the process.
fn install() -> io::Result<()> {
    let before = BEFORE.get_or_init(|| {
        // SAFETY: returns a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        // SAFETY: all zeros are a valid `sigaction`: no flags, an empty mask.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO requires, and does only what a handler
        // may do.
        match unsafe { libc::sigaction(libc::SIGBUS, &action, &mut before) } {
            0 => Ok(before),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    });
    match before {
        Ok(_) => Ok(()),
        Err(code) => Err(io::Error::from_raw_os_error(*code)),
    }
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives the handler a valid `siginfo_t`; for SIGBUS it holds an address.
    let at = unsafe { (*info).si_addr() } as usize;
    if replace(at) {
        return;
    }
    // The address is in no mapping of ours: act as if this handler did not exist.
    if let Some(Ok(before)) = BEFORE.get() {
        // SAFETY: this restores the previous handler. The signal is blocked until this returns, and then
        // reaches that handler.
        unsafe {
            libc::sigaction(signal, before, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
}

/// Maps memory in place of the missing pages from this address on. Returns whether the address is in a
/// mapping of ours. It does only what a signal handler may do: atomics, and one system call.
fn replace(at: usize) -> bool {
    let holds = |slot: &&Slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > TAKEN && start <= at && at < slot.end.load(Ordering::Relaxed)
    };
    let Some(slot) = SLOTS.iter().find(holds) else {
        return false;
    };
    let page = at & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
    let bytes = slot.end.load(Ordering::Relaxed) - page;
    // SAFETY: these pages belong to one mapping of this process, which the thread that runs this is
    // writing to; they are replaced by others that can be read and written as well.
    let replaced = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    slot.lost.store(true, Ordering::Relaxed);
    replaced != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_beyond_the_end_of_a_truncated_file_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 10).unwrap();
        let mut mapping = Mapping::of(&file).unwrap();
        let other = tempfile::tempfile().unwrap();
        other.set_len(8 << 10).unwrap();
        let mut other = Mapping::of(&other).unwrap();
        mapping[..4].copy_from_slice(b"kept");
        file.set_len(4096).unwrap();
        mapping[..4].copy_from_slice(b"more");
        assert!(!mapping.is_lost());
        // Across the edge of a page.
        mapping[20_470..20_490].copy_from_slice(&[7; 20]);
        assert!(mapping.is_lost() && mapping[20_475] == 7 && mapping[..4] == *b"more");
        mapping[60_000] = 1;
        file.set_len(0).unwrap();
        mapping[0] = 1;
        other[8000] = 1;
        assert!(!other.is_lost());
        drop((mapping, other));
    }

    #[test]
    fn slots_are_reused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for _ in 0..2 * GUARDED_MAX {
            Mapping::of(&file).unwrap();
        }
    }
}
