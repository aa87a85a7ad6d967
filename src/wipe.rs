//! Memory that is wiped as it is freed, on the threads that load secrets: what parsers, buffers and
//! lists leave behind there would hold values that nobody refers to any more. Traffic threads never
//! ask for it and pay one look at a flag of their own.
#![expect(
    unsafe_code,
    reason = "an allocator, foreign functions, and bytes that safe code cannot write to; each says why it is sound"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;

use bytes::Bytes;

thread_local! {
    /// Without a destructor, so that it is there as long as the thread frees anything.
    static WIPES: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread wipes what it frees. There is no way back: what it frees late may have
/// been a secret's early.
pub fn on_this_thread() {
    WIPES.with(|wipes| wipes.set(true));
}

/// Whether this thread wipes what it frees: one that it starts to help must, too.
#[must_use]
pub fn is_on_this_thread() -> bool {
    wipes()
}

fn wipes() -> bool {
    WIPES.with(Cell::get)
}

/// The allocator inside, whose blocks are wiped before it gets them back, where the thread asked
/// for that.
pub struct Wiping<A>(
    /// The allocator that does the work.
    pub A,
);

// SAFETY: blocks come from `A` and go back to it as they came; between that and the caller's last
// use of a block only its own bytes are written.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if wipes() {
            // SAFETY: the block has this size and the caller is done with it.
            unsafe { wipe(at, layout.size()) };
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if wipes() {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.moved(at, layout, size) };
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.0.realloc(at, layout, size) }
    }
}

impl<A: GlobalAlloc> Wiping<A> {
    /// As `realloc`, and the old block does not keep what stood in it.
    #[cold]
    unsafe fn moved(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller of `realloc` promises that the new size is sound for this alignment.
        let layout_after = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: and that it is not zero.
        let after = unsafe { self.0.alloc(layout_after) };
        if !after.is_null() {
            // SAFETY: both blocks are at least so long, and the new one is nobody else's yet.
            unsafe { std::ptr::copy_nonoverlapping(at, after, layout.size().min(size)) };
            // SAFETY: a block of this layout, whose content has moved.
            unsafe { self.dealloc(at, layout) };
        }
        after
    }
}

/// # Safety
/// So many bytes can be written there, and nobody reads them afterwards.
unsafe fn wipe(at: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { at.write_bytes(0, size) };
    // Keeps the compiler from leaving out a write that nobody reads.
    black_box(at);
}

/// Lets OpenSSL's memory be wiped, too, where a thread asked for it: the text of what came over TLS
/// stands in its buffers. Call it before anything uses OpenSSL; later it changes nothing.
pub fn cover_openssl() {
    // SAFETY: the three stand for one allocator, and OpenSSL refuses them once it holds memory.
    unsafe { CRYPTO_set_mem_functions(allocate, reallocate, release) };
}

type Allocate = extern "C" fn(usize, *const c_char, c_int) -> *mut c_void;
type Reallocate = extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void;
type Release = extern "C" fn(*mut c_void, *const c_char, c_int);

unsafe extern "C" {
    fn CRYPTO_set_mem_functions(
        allocate: Allocate,
        reallocate: Reallocate,
        release: Release,
    ) -> c_int;
}

extern "C" fn allocate(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(size) }
}

extern "C" fn reallocate(
    at: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    if size == 0 {
        release(at, file, line);
        return std::ptr::null_mut();
    }
    if at.is_null() || !wipes() {
        // SAFETY: OpenSSL got the block from these functions.
        return unsafe { libc::realloc(at, size) };
    }
    // SAFETY: as above.
    let (after, before) = unsafe { (libc::malloc(size), libc::malloc_usable_size(at)) };
    if !after.is_null() {
        // SAFETY: both blocks are at least so long, and the new one is nobody else's yet.
        unsafe { std::ptr::copy_nonoverlapping(at, after, before.min(size)) };
        release(at, file, line);
    }
    after
}

extern "C" fn release(at: *mut c_void, _: *const c_char, _: c_int) {
    if at.is_null() {
        return;
    }
    if wipes() {
        // SAFETY: the block is so long, and OpenSSL is done with it.
        unsafe { wipe(at.cast(), libc::malloc_usable_size(at)) };
    }
    // SAFETY: OpenSSL got the block from these functions.
    unsafe { libc::free(at) };
}

/// Wipes a piece of an answer where the transport put it: a connection that is kept open keeps its
/// buffer, too. To be called on pieces that were read off a connection, and on nothing else.
pub fn received(piece: Bytes) {
    let (at, size) = (piece.as_ptr().cast_mut(), piece.len());
    // SAFETY: hyper splits what it hands out off a buffer on the heap that it read into (a
    // `BytesMut`), so that the bytes can be written to, belong to this piece alone, and outlive it
    // here. They are not read again: the piece is dropped, and the buffer writes before it reads.
    unsafe { wipe(black_box(at), size) };
    drop(piece);
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::Mutex;

    use bytes::BytesMut;

    use super::*;

    /// Notes what stands in blocks that are given back.
    struct Noting(Mutex<Vec<Vec<u8>>>);

    // SAFETY: it does what the system's allocator does, and looks at blocks before they go.
    unsafe impl GlobalAlloc for Noting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: the block was filled by the test.
            let content = unsafe { std::slice::from_raw_parts(at, layout.size()) };
            self.0.lock().expect("not poisoned").push(content.to_vec());
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(at, layout) }
        }
    }

    /// What is given back by a thread that fills a block, makes it longer, shorter, and frees it.
    fn given_back(prepare: fn()) -> Vec<Vec<u8>> {
        let thread = std::thread::spawn(move || {
            prepare();
            let allocator = Wiping(Noting(Mutex::default()));
            let of = |size| Layout::from_size_align(size, 8).expect("sound");
            // SAFETY: each block is used within its size, and under the layout it has.
            unsafe {
                let mut at = allocator.alloc(of(16));
                at.write_bytes(b's', 16);
                at = allocator.realloc(at, of(16), 64);
                assert_eq!(*at.add(15), b's', "the content moves along");
                at.write_bytes(b's', 64);
                at = allocator.realloc(at, of(64), 8);
                assert_eq!(*at, b's', "the content moves along");
                allocator.dealloc(at, of(8));
            }
            allocator.0.0.into_inner().expect("not poisoned")
        });
        thread.join().expect("no panic")
    }

    #[test]
    fn a_thread_that_asked_for_it_gives_back_nothing_but_zeros() {
        let blocks = given_back(on_this_thread);
        assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [16, 64, 8]);
        assert!(blocks.iter().flatten().all(|byte| *byte == 0));
    }

    #[test]
    fn other_threads_pay_nothing_for_it() {
        let blocks = given_back(|| ());
        assert!(blocks.iter().flatten().all(|byte| *byte == b's'));
    }

    #[test]
    fn openssl_s_blocks_move_and_go() {
        let thread = std::thread::spawn(|| {
            on_this_thread();
            let file = c"test".as_ptr();
            let at = allocate(16, file, 0);
            // SAFETY: the block is so long.
            unsafe { at.cast::<u8>().write_bytes(b's', 16) };
            let at = reallocate(at, 4096, file, 0);
            // SAFETY: the block was filled above, and is longer now.
            let moved = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), 16) };
            assert_eq!(moved, [b's'; 16]);
            release(at, file, 0);
            let none = std::ptr::null_mut();
            let fresh = reallocate(none, 8, file, 0);
            assert!(!fresh.is_null());
            assert!(reallocate(fresh, 0, file, 0).is_null(), "freed");
            release(none, file, 0);
        });
        thread.join().expect("no panic");
    }

    #[test]
    fn a_piece_is_wiped_in_the_buffer_it_was_split_off() {
        let mut buffer = BytesMut::from(&b"head secret tail"[..]);
        let head = buffer.split_to(5);
        let piece = buffer.split_to(6).freeze();
        let at = piece.as_ptr();
        received(piece);
        // SAFETY: the buffer's allocation lives, since `head` and the rest share it.
        let left = unsafe { std::slice::from_raw_parts(at, 6) };
        assert_eq!(
            (left, &head[..], &buffer[..]),
            (&[0; 6][..], &b"head "[..], &b" tail"[..])
        );
    }
}
