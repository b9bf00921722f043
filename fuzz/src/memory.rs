//! Memory is bounded: whoever asks for much at once ends the fuzzer's run.

use std::alloc::{GlobalAlloc, Layout, System};

/// Far more than any parser here may hold.
const BYTES_MAX: usize = 16 << 20;

struct Bounded;

#[global_allocator]
static BOUNDED: Bounded = Bounded;

// SAFETY: everything is the system's allocator, asked the same.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

fn check(bytes: usize) {
    assert!(bytes <= BYTES_MAX, "{bytes} bytes are asked for at once");
}
