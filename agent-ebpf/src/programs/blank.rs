//! Blank values without a call: where the compiler would call `memset`, the verifiers before Linux 6.4 give up telling
//! like states from unlike ones, and take too long.

use core::mem::MaybeUninit;

use baton_ebpf::index::unknown_zero;

/// Plain words, all zero.
///
/// # Safety
/// `T` must be valid when all its bytes are zero, consist of whole 32-bit words and be aligned as they are.
#[inline(always)]
pub unsafe fn blank<T: Copy>() -> T {
    const { assert!(size_of::<T>() % 4 == 0 && align_of::<T>() >= 4) };
    let mut value = MaybeUninit::<T>::uninit();
    let words = value.as_mut_ptr().cast::<u32>();
    let zero = unknown_zero();
    let mut i = 0;
    while i < size_of::<T>() / 4 {
        // SAFETY: within the value.
        unsafe { words.add(i).write(zero as u32) };
        i += 1;
    }
    // SAFETY: every byte is zero, which the caller says is a value.
    unsafe { value.assume_init() }
}
