//! Indexes into maps, bounded so that every kernel's verifier sees it.

/// `index` cut to the bits of `mask`, where it is used.
///
/// The compiler forgets a mask, or a check, that an earlier comparison makes superfluous; verifiers before Linux 6.18
/// forget that comparison when it was made on a copy of the register. So the mask is an instruction of its own, which
/// the compiler knows nothing about: it must then check the bound of the row once more.
#[inline(always)]
pub fn masked(index: usize, mask: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let index = {
        let mut index = index;
        // SAFETY: the instruction changes this register alone.
        unsafe {
            core::arch::asm!("{index} &= {mask}", index = inout(reg) index, mask = in(reg) mask, options(pure, nomem, nostack));
        }
        index
    };
    #[cfg(not(target_arch = "bpf"))]
    let index = index & mask;
    index
}
