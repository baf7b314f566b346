//! A table of shared words in memory: a mapping of a BPF array map, or of anonymous memory where there is no BPF.

use std::{io, marker::PhantomData, os::fd::BorrowedFd, ptr::NonNull};

use baton_ebpf::{
    layout::{Control, Counters, GateGroup, Peer},
    steering::Steer,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A row that may live in memory shared with the kernel.
///
/// # Safety
/// The type must consist of atomic words alone, so that all bytes (zero included) are valid and shared writes are no race.
pub(super) unsafe trait Row: Sync {}

// SAFETY: `repr(C)` structures of `Word`.
unsafe impl Row for Control {}
// SAFETY: `repr(C)` structures of `Word`.
unsafe impl Row for Peer {}
// SAFETY: `repr(C)` structures of `Word`.
unsafe impl Row for Counters {}
// SAFETY: `repr(C)` structures of `Word`.
unsafe impl Row for GateGroup {}
// SAFETY: `repr(C)` structures of `Word`.
unsafe impl Row for Steer {}

/// Rows in mapped memory, unmapped on drop.
#[derive(Debug)]
pub(super) struct Region<T: Row> {
    start: NonNull<T>,
    rows: usize,
    bytes: usize,
    rows_type: PhantomData<T>,
}

// SAFETY: the memory is owned by the region, and rows are `Sync`.
unsafe impl<T: Row> Send for Region<T> {}
// SAFETY: the memory is owned by the region, and rows are `Sync`.
unsafe impl<T: Row> Sync for Region<T> {}

impl<T: Row> Region<T> {
    /// Maps a BPF array map (`BPF_F_MMAPABLE`) of `rows` rows.
    pub(super) fn of_map(map: BorrowedFd<'_>, rows: usize, writable: bool) -> io::Result<Self> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let bytes = Self::bytes(rows);
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, map, 0) }?;
        Self::new(start, rows, bytes)
    }

    /// Zeroed anonymous memory for `rows` rows.
    pub(super) fn anonymous(rows: usize) -> io::Result<Self> {
        let bytes = Self::bytes(rows);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }?;
        Self::new(start, rows, bytes)
    }

    fn new(start: *mut std::ffi::c_void, rows: usize, bytes: usize) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, rows, bytes, rows_type: PhantomData })
    }

    fn bytes(rows: usize) -> usize {
        // The kernel rounds up to whole pages by itself.
        size_of::<T>() * rows
    }

    /// The rows.
    pub(super) fn rows(&self) -> &[T] {
        // SAFETY: the mapping holds `rows` rows, lives as long as `self`, and rows are valid whatever their bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.rows) }
    }
}

impl<T: Row> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) } {
            tracing::error!(%error, "a table cannot be unmapped");
        }
    }
}
