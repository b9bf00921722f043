//! Memory is bounded: a target that allocates much at once fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Far more than any parser here may hold.
const BYTES_MAX: usize = 16 << 20;

thread_local! {
    /// Bytes of the largest allocation.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Runs this, and panics if it allocated more than the bound at once.
pub fn bounded(run: impl FnOnce()) {
    LARGEST.set(0);
    run();
    let largest = LARGEST.get();
    assert!(largest <= BYTES_MAX, "an allocation of {largest} bytes");
}

struct Measured;

#[global_allocator]
static MEASURED: Measured = Measured;

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Measured {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

fn note(bytes: usize) {
    LARGEST.set(LARGEST.get().max(bytes));
}
