//! Mapped files that another program may shorten.
//!
//! A write to a mapped page behind the end of its file raises SIGBUS, which ends the process. No check
//! before the write can rule that out, because the file can be shortened in between, and writing with
//! system calls instead would cost one for each record. So a handler puts zeroed memory in the place
//! of the pages that are gone, from the one that was hit to the end of the mapping, and notes that
//! the mapping is lost. The write is then repeated and succeeds; whoever wrote looks at
//! [`Mapping::is_lost`] afterwards and goes on in another file. A SIGBUS anywhere else ends the
//! process as before.

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

/// So many mappings are guarded at the same time: three for each worker. More are an error.
const GUARDED_MAX: usize = 4096;
/// In `start`: the slot is being filled.
const TAKEN: usize = 1;

/// A mapping that is guarded. The handler reads these: nothing here locks or allocates.
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

/// What was done about the signal before this handler; an error where it could not be installed.
static BEFORE: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A file in memory, for reading and writing.
#[derive(Debug)]
pub struct Mapping {
    map: MmapMut,
    slot: &'static Slot,
}

impl Mapping {
    /// Maps the whole file.
    pub fn of(file: &File) -> io::Result<Mapping> {
        install()?;
        // SAFETY: another process may change the file; what is read from the mapping is never
        // trusted, and pages that are gone are replaced by the handler.
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

    /// Whether pages of the file were gone when they were written: what was written to it since
    /// may be gone, too.
    pub fn is_lost(&self) -> bool {
        // The handler runs on this thread, in the middle of a write: the flag is read after it.
        compiler_fence(Ordering::SeqCst);
        self.slot.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the memory is given back, which may be mapped again for something else.
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
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        // SAFETY: all zeros are a valid `sigaction`: no flags, an empty mask.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does only what may be
        // done in one.
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
    // Not of a mapping here: as if this handler did not exist.
    if let Some(Ok(before)) = BEFORE.get() {
        // SAFETY: it is what stood there before. The signal is blocked until this returns, and is
        // handled by that then.
        unsafe {
            libc::sigaction(signal, before, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
}

/// Puts memory in the place of what is gone, from this address on; whether it is of a mapping here.
/// Only what a signal handler may do: atomics, and one system call.
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
    fn write_behind_the_end_of_a_shortened_file_is_noticed() {
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
        // Over the edge of a page.
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
    fn slots_are_used_again() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for _ in 0..2 * GUARDED_MAX {
            Mapping::of(&file).unwrap();
        }
    }
}
