//! The shared word: a u64 in a map that the programs and user space both read and write atomically.
//!
//! The BPF target offers none of Rust's atomic operations on instruction set v3, so they are written out: loads and
//! stores as volatile ones, read-modify-write operations as BPF instructions. A successful fetching one orders everything before and after it (Documentation/atomic_t.txt).

use core::sync::atomic::AtomicU64;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::Ordering;

/// How often a compare-and-exchange loop tries before it gives up.
pub const TRIES_MAX: usize = 8;

/// A u64 shared between the kernel side and user space.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Word {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// The value, without ordering.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        #[cfg(not(target_arch = "bpf"))]
        return self.0.load(Ordering::Relaxed);
        // The v3 instruction set has plain loads alone; a volatile one of an aligned word is one instruction.
        #[cfg(target_arch = "bpf")]
        // SAFETY: this word is valid and aligned.
        unsafe {
            self.0.as_ptr().read_volatile()
        }
    }

    /// Sets the value, without ordering.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.store(value, Ordering::Relaxed);
        #[cfg(target_arch = "bpf")]
        // SAFETY: this word is valid and aligned.
        unsafe {
            self.0.as_ptr().write_volatile(value);
        }
    }

    /// Adds without ordering: for counters.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.fetch_add(value, Ordering::Relaxed);
        #[cfg(target_arch = "bpf")]
        // SAFETY: the operand is this word, which is valid and aligned.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {value}",
                word = in(reg) self.0.as_ptr(),
                value = in(reg) value,
            );
        }
    }

    /// Exchanges `old` for `new`; true when it did. Success is a full barrier, failure orders nothing.
    #[inline(always)]
    pub fn compare_exchange(&self, old: u64, new: u64) -> bool {
        #[cfg(not(target_arch = "bpf"))]
        let seen = match self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(seen) | Err(seen) => seen,
        };
        #[cfg(target_arch = "bpf")]
        let seen = {
            let seen: u64;
            // SAFETY: the operand is this word, which is valid and aligned; r0 is the instruction's fixed operand.
            unsafe {
                core::arch::asm!(
                    "r0 = cmpxchg_64({word} + 0, r0, {new})",
                    word = in(reg) self.0.as_ptr(),
                    new = in(reg) new,
                    inout("r0") old => seen,
                );
            }
            seen
        };
        seen == old
    }

    /// Raises the word to at least `value`. True: it was raised. False: it was there already, or [`TRIES_MAX`] was spent.
    #[inline(always)]
    pub fn raise(&self, value: u64) -> bool {
        for _ in 0..TRIES_MAX {
            let seen = self.load();
            if seen >= value {
                return false;
            }
            if self.compare_exchange(seen, value) {
                return true;
            }
        }
        false
    }

    /// Raises the word to at least `value` by a full barrier, also when it needs no raising. False: [`TRIES_MAX`] was spent.
    #[inline(always)]
    pub fn raise_fenced(&self, value: u64) -> bool {
        for _ in 0..TRIES_MAX {
            let seen = self.load();
            let new = if seen > value { seen } else { value };
            if self.compare_exchange(seen, new) {
                return true;
            }
        }
        false
    }
}
